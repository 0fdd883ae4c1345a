"""Whether candles can be trusted: gaps, duplicates, impossible candles, staleness."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_store.candle import CandleBlock, Timeframe, broken_rows

STALE_AFTER_CANDLES = 2
"""A series is stale when this many candles have closed since its newest one."""


@dataclass(frozen=True, slots=True)
class Gap:
    """Missing candles, from the first that is absent to the first that is there again."""

    start_ms: int
    end_ms: int
    candles: int


@dataclass(frozen=True, slots=True)
class QualityReport:
    """What is wrong with a block of candles; nothing, when `is_clean`."""

    expected: int
    found: int
    gaps: tuple[Gap, ...]
    duplicates: int
    out_of_order: int
    off_grid: int
    ohlc_violations: int
    is_stale: bool

    @property
    def is_usable(self) -> bool:
        """Whether the candles may be stored: a market may leave gaps, but it makes no impossible candles."""
        return not (self.duplicates or self.out_of_order or self.off_grid or self.ohlc_violations)

    @property
    def is_clean(self) -> bool:
        """Whether nothing at all is wrong."""
        return self.is_usable and not self.gaps and not self.is_stale

    @property
    def missing(self) -> int:
        """Candles that are absent between the first and the last."""
        return sum(gap.candles for gap in self.gaps)

    def describe(self) -> str:
        """Say in one line what was found."""
        if self.is_clean:
            return f"{self.found} candles, clean"
        faults = {
            "missing": self.missing,
            "duplicate": self.duplicates,
            "out of order": self.out_of_order,
            "off the grid": self.off_grid,
            "impossible": self.ohlc_violations,
        }
        parts = [f"{count} {fault}" for fault, count in faults.items() if count]
        if self.is_stale:
            parts.append("stale")
        return f"{self.found} candles of {self.expected}: {', '.join(parts)}"


def check(
    block: CandleBlock,
    timeframe: Timeframe,
    *,
    start_ms: int | None = None,
    end_ms: int | None = None,
    now_ms: int | None = None,
) -> QualityReport:
    """
    Judge a block of candles.

    Args:
        block: The candles, in whatever state they are.
        timeframe: Their duration.
        start_ms: From where candles are expected; from the first one found, if None.
        end_ms: Up to where (exclusive); up to the last one found, if None.
        now_ms: The moment for judging staleness; not judged if None.
    """
    step = timeframe.milliseconds
    times, counts = np.unique(block.open_time_ms, return_counts=True)
    on_grid = times[times % step == 0]
    gaps, expected = _gaps(on_grid, step, start_ms, end_ms)
    last = block.open_time_ms.max() if len(block) else None
    stale_from = None if now_ms is None else timeframe.last_closed_open_ms(now_ms) - STALE_AFTER_CANDLES * step
    return QualityReport(
        expected=expected,
        found=len(block),
        gaps=gaps,
        duplicates=int((counts - 1).sum()),
        out_of_order=int((np.diff(block.open_time_ms) < 0).sum()),
        off_grid=int((times % step != 0).sum()),
        ohlc_violations=int(broken_rows(block).sum()),
        is_stale=stale_from is not None and (last is None or bool(last <= stale_from)),
    )


def _gaps(
    times: np.ndarray[tuple[int], np.dtype[np.int64]], step: int, start_ms: int | None, end_ms: int | None
) -> tuple[tuple[Gap, ...], int]:
    if len(times) == 0 and (start_ms is None or end_ms is None):
        return (), 0
    begin = int(times[0]) if start_ms is None else -(-start_ms // step) * step
    end = int(times[-1]) + step if end_ms is None else -(-end_ms // step) * step
    inside = times[(times >= begin) & (times < end)]
    edges = np.concatenate([[begin - step], inside, [max(end, begin)]])
    at = np.flatnonzero(np.diff(edges) > step)
    gaps = tuple(
        Gap(int(edges[i] + step), int(edges[i + 1]), int((edges[i + 1] - edges[i]) // step - 1)) for i in at.tolist()
    )
    return gaps, max(0, (end - begin) // step)
