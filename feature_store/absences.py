"""Why candles are absent: the whole venue was silent, or one instrument did not trade, or we cannot tell."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Series
from feature_store.errors import BadInputError
from feature_store.quality import Gap, check

if TYPE_CHECKING:
    import numpy.typing as npt

    Times = npt.NDArray[np.int64]

WITNESSES = 2
"""An outage needs this many listed instruments: one that is silent alone may simply not have traded."""
WITNESS_SHARE = 0.5
"""And this share of those that the venue lists, where that is known: a few quiet ones among many prove nothing."""


class Cause(StrEnum):
    """What the absence of a candle tells."""

    OUTAGE = "outage"
    UNEXPLAINED = "no trade or unknown"


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """From when an instrument was listed, or recorded, up to when (exclusive); absence outside it means nothing."""

    start_ms: int
    end_ms: int


@dataclass(frozen=True, slots=True)
class Absence:
    """Candles in a row that are absent for the same cause."""

    start_ms: int
    end_ms: int
    candles: int
    cause: Cause


def span_of(series: Series, block: CandleBlock) -> tuple[Span, ...]:
    """Return from the first to the last candle of a block: what can be said of a listing without another source."""
    first, last = block.first_open_time_ms, block.last_open_time_ms
    if first is None or last is None:
        return ()
    return (Span(first, last + series.timeframe.milliseconds),)


def witnesses_needed(venue_lists: int | None) -> int:
    """Return how many instruments must be silent at once for an outage, of so many that the venue lists."""
    return max(WITNESSES, math.ceil(WITNESS_SHARE * (venue_lists or 0)))


def candles_within(spans: Sequence[Span], within: Span, step: int) -> int:
    """Return how many candles of a duration in ms open in a stretch of time and in some spans."""
    return int(candles_in_each(spans, [within], step)[0])


def candles_in_each(spans: Sequence[Span], within: Sequence[Span], step: int) -> Times:
    """
    Return how many candles of a duration in ms open in each of many stretches of time and in some spans.

    The cost grows with how many spans and stretches there are together, not with each for each.
    """
    own = joined(spans)
    if not own:
        return np.zeros(len(within), np.int64)
    begins, ends = np.array([(one.start_ms, one.end_ms) for one in own], np.int64).T
    before = np.concatenate([[0], np.cumsum(_opened(ends, step) - _opened(begins, step))])

    def until(times: Times) -> Times:
        """Count the candles of the spans that open before each moment."""
        begun = np.searchsorted(begins, times)
        last = np.maximum(begun - 1, 0)
        inside = _opened(np.minimum(times, ends[last]), step) - _opened(begins[last], step)
        counts: Times = np.where(begun == 0, 0, before[last] + inside)
        return counts

    cuts = np.array([(one.start_ms, max(one.start_ms, one.end_ms)) for one in within], np.int64).reshape(-1, 2)
    return until(cuts[:, 1]) - until(cuts[:, 0])


def _opened(times: Times, step: int) -> Times:
    """Return how many candles open before each moment, counted from the epoch."""
    counts: Times = -(-times // step)
    return counts


def joined(spans: Sequence[Span]) -> tuple[Span, ...]:
    """Return the same stretches of time with those that touch or overlap made one, oldest first."""
    result: list[Span] = []
    for span in sorted(one for one in spans if one.start_ms < one.end_ms):
        if result and span.start_ms <= result[-1].end_ms:
            result[-1] = Span(result[-1].start_ms, max(result[-1].end_ms, span.end_ms))
        else:
            result.append(span)
    return tuple(result)


def gaps_in(series: Series, block: CandleBlock, spans: Sequence[Span]) -> tuple[Gap, ...]:
    """Return the gaps that the quality report finds within each span."""
    return tuple(
        gap
        for span in joined(spans)
        for gap in check(
            block.since(span.start_ms).until(span.end_ms),
            series.timeframe,
            start_ms=span.start_ms,
            end_ms=span.end_ms,
        ).gaps
    )


def absences(
    blocks: Mapping[Series, CandleBlock],
    listed: Mapping[Series, Sequence[Span]] | None = None,
    *,
    confirmed: Mapping[Series, Sequence[Span]] | None = None,
    traded_ms: Times | None = None,
    least: int = WITNESSES,
) -> dict[Series, tuple[Absence, ...]]:
    """
    Return what is absent in each series and why, oldest first.

    A candle that every instrument lacks which was listed then is an outage, provided that at least `least` were, that
    the venue confirmed it where it was asked, and that it did not trade meanwhile by another timeframe. Any other
    absence is left unexplained: no trade, or a recording that is not whole.

    Args:
        blocks: The candles of all series of one venue and timeframe that are known.
        listed: When each was listed; from its first to its last candle, where nothing is said.
        confirmed: Where the venue, asked again, had no candle; a series that is not named was recorded, not asked for.
        traded_ms: Open times of the venue's candles in a shorter timeframe, in order: it was open then.
        least: How many instruments it takes; see `witnesses_needed`.

    Raises:
        BadInputError: The series are of more than one venue or timeframe.
    """
    if len({(one.venue, one.timeframe) for one in blocks}) > 1:
        found = ", ".join(sorted({f"{one.venue} {one.timeframe}" for one in blocks}))
        raise BadInputError(f"Outages are told apart within one venue and timeframe, found {found}; ask for each alone")
    spans = {one: joined((listed or {}).get(one, span_of(one, block))) for one, block in blocks.items()}
    missing = {one: _times(gaps_in(one, block, spans[one]), one) for one, block in blocks.items()}
    told = confirmed or {}
    proved = {one: _inside(times, told[one]) if one in told else times for one, times in missing.items()}
    silent = _silent_times(proved, spans, least)
    if traded_ms is not None and len(silent):
        silent = _without_trades(silent, traded_ms, next(iter(blocks)).timeframe.milliseconds)
    return {one: _absences(times, silent, one) for one, times in missing.items()}


def _times(gaps: Sequence[Gap], series: Series) -> Times:
    step = series.timeframe.milliseconds
    parts = [np.arange(gap.start_ms, gap.end_ms, step, dtype=np.int64) for gap in gaps]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


def _inside(times: Times, spans: Sequence[Span]) -> Times:
    within = np.zeros(len(times), np.bool_)
    for span in joined(spans):
        begin, end = np.searchsorted(times, [span.start_ms, span.end_ms])
        within[begin:end] = True
    inside: Times = times[within]
    return inside


def _without_trades(silent: Times, traded_ms: Times, step: int) -> Times:
    begins, ends = np.searchsorted(traded_ms, [silent, silent + step])
    quiet: Times = silent[begins == ends]
    return quiet


def _silent_times(missing: Mapping[Series, Times], spans: Mapping[Series, Sequence[Span]], least: int) -> Times:
    """Return when every instrument was silent that was listed, where enough were."""
    if not missing:
        return np.empty(0, np.int64)
    times, lacking = np.unique(np.concatenate(list(missing.values())), return_counts=True)
    listed = np.zeros(len(times), np.int64)
    for stretches in spans.values():
        for span in stretches:
            begin, end = np.searchsorted(times, [span.start_ms, span.end_ms])
            listed[begin:end] += 1
    silent: Times = times[(lacking == listed) & (listed >= least)]
    return silent


def _absences(times: Times, silent: Times, series: Series) -> tuple[Absence, ...]:
    step = series.timeframe.milliseconds
    if len(times) == 0:
        return ()
    is_outage = np.isin(times, silent)
    ends = np.flatnonzero((np.diff(times) != step) | (is_outage[1:] != is_outage[:-1]))
    begins = [0, *(ends + 1).tolist()]
    return tuple(
        Absence(
            int(times[begin]),
            int(times[end]) + step,
            end - begin + 1,
            Cause.OUTAGE if is_outage[begin] else Cause.UNEXPLAINED,
        )
        for begin, end in zip(begins, [*ends.tolist(), len(times) - 1], strict=True)
    )
