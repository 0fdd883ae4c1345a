"""Features of all symbols taken from batch to batch: what models may read now, and why the rest may not be read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.candle import CLOSE, CandleBlock
from feature_store.errors import BadInputError
from feature_store.features.definition import INDEX
from feature_store.features.live import UNBROKEN, LatestFeatures, LiveFeatures
from inference.feed.batches import CandleBatch
from inference.feed.plausible import sift
from inference.feed.rebuilding import Behind
from inference.telemetry.logs import logger

_log = logger("features")
_ATR, _VOLUME = INDEX["atr_14"], INDEX["volume_sma_20"]

KeepRow = Callable[[str, npt.NDArray[np.float64]], None]
"""Is told the newest row of 49 features of a symbol."""


@dataclass(frozen=True, slots=True)
class LastRow:
    """
    Average true range and close of a symbol's newest candle, in price units.

    `volume` is what was traded a candle, the mean of 20, in base units; NaN where that is not known.
    """

    atr: float
    close: float
    volume: float = np.nan


@dataclass(frozen=True, slots=True, eq=False)
class Known:
    """
    What is known once a batch was taken in.

    `ready` are the rows of `latest` that models may read; `incomplete` says of every other symbol why not.
    """

    latest: LatestFeatures
    ready: list[int]
    incomplete: Mapping[str, str]
    candles: int


class FollowedFeatures:
    """Feature states with the newest candle behind each; whoever calls `advance` does so from one thread at a time."""

    def __init__(self, features: LiveFeatures, *, keep: KeepRow = lambda _symbol, _row: None) -> None:
        self.features = features
        self.rows: dict[str, LastRow] = {}
        self._keep_row = keep
        # How many candles of a symbol in a row no market has made, and why the newest of them is none.
        self._refused: dict[str, tuple[int, str]] = {}

    def advance(self, batch: CandleBatch, behind: Behind) -> Known:
        """Rebuild what candles were read for, take in a batch, and tell what may be read."""
        # First what has been read, which reaches as far as the batch before, then what closed now.
        stale = behind.rebuild(self.features, self._keep)
        candles = self._take(batch)
        latest = self.features.latest()
        ready = [
            row
            for row, symbol in enumerate(latest.symbols)
            if latest.ready[row]
            and symbol not in stale
            and symbol not in self._refused
            and (last := self.rows.get(symbol)) is not None
            and np.isfinite(last.atr)
        ]
        chosen = {latest.symbols[row] for row in ready}
        incomplete = {
            symbol: self._why_incomplete(symbol, batch, stale) for symbol in latest.symbols if symbol not in chosen
        }
        return Known(latest, ready, incomplete, candles)

    def _take(self, batch: CandleBatch) -> int:
        candles = 0
        blocks = {symbol: self._sifted(symbol, block) for symbol, block in batch.blocks.items()}
        for symbol, computed in self.features.advance_all(blocks).items():
            if isinstance(computed, BadInputError):
                # Its features stay behind, and what is behind is not traded; the others go on.
                _log.warning("candle_unusable", symbol=symbol, error=str(computed)[:300])
                continue
            candles += len(computed)
            if len(computed):
                self._keep(symbol, computed, blocks[symbol])
        return candles

    def _sifted(self, symbol: str, block: CandleBlock) -> CandleBlock:
        """Leave out what no market has made: what is computed on would carry it for hundreds of candles."""
        last = self.features.last_open_time_ms(symbol)
        fresh = block if last is None else block.since(last + 1)
        if not len(fresh):
            return block
        in_a_row, _ = self._refused.pop(symbol, (0, ""))
        sifted = sift(self.features.newest_candles(symbol), fresh, refused_before=in_a_row)
        for opened, why in sifted.refused.items():
            _log.warning("candle_refused", symbol=symbol, open_time_ms=opened, why=why)
        if sifted.newest:
            after = sum(opened > (sifted.block.last_open_time_ms or 0) for opened in sifted.refused)
            self._refused[symbol] = (after + (0 if len(sifted.block) else in_a_row), sifted.newest)
        return sifted.block

    def _keep(self, symbol: str, computed: npt.NDArray[np.float64], block: CandleBlock) -> None:
        newest = computed[-1]
        self.rows[symbol] = LastRow(
            atr=float(newest[_ATR]), close=float(block.values[-1, CLOSE]), volume=float(newest[_VOLUME])
        )
        self._keep_row(symbol, computed[-1])

    def _why_incomplete(self, symbol: str, batch: CandleBatch, stale: Mapping[str, str]) -> str:
        if symbol in batch.late:
            return "its newest candle did not arrive in time"
        if symbol in self._refused:
            return self._refused[symbol][1]
        if symbol in stale:
            return f"{stale[symbol]}, its features are being rebuilt"
        seen = self.features.continuity(symbol)
        if seen.candles >= self.features.ready_after and seen.candles_since_gap < UNBROKEN:
            return f"{UNBROKEN} candles in a row needed after a gap, {seen.candles_since_gap} so far"
        return f"warming up, {seen.candles} candles seen"
