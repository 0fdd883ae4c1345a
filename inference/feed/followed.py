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
from inference.feed.rebuilding import Behind
from inference.telemetry.logs import logger

_log = logger("features")
_ATR = INDEX["atr_14"]

KeepRow = Callable[[str, npt.NDArray[np.float64]], None]
"""Is told the newest row of 49 features of a symbol."""


@dataclass(frozen=True, slots=True)
class LastRow:
    """Average true range and close of a symbol's newest candle, in price units."""

    atr: float
    close: float


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
        for symbol, computed in self.features.advance_all(batch.blocks).items():
            if isinstance(computed, BadInputError):
                # Its features stay behind, and what is behind is not traded; the others go on.
                _log.warning("candle_unusable", symbol=symbol, error=str(computed)[:300])
                continue
            candles += len(computed)
            if len(computed):
                self._keep(symbol, computed, batch.blocks[symbol])
        return candles

    def _keep(self, symbol: str, computed: npt.NDArray[np.float64], block: CandleBlock) -> None:
        self.rows[symbol] = LastRow(atr=float(computed[-1, _ATR]), close=float(block.values[-1, CLOSE]))
        self._keep_row(symbol, computed[-1])

    def _why_incomplete(self, symbol: str, batch: CandleBatch, stale: Mapping[str, str]) -> str:
        if symbol in batch.late:
            return "its newest candle did not arrive in time"
        if symbol in stale:
            return f"{stale[symbol]}, its features are being rebuilt"
        seen = self.features.continuity(symbol)
        if seen.candles >= self.features.ready_after and seen.candles_since_gap < UNBROKEN:
            return f"{UNBROKEN} candles in a row needed after a gap, {seen.candles_since_gap} so far"
        return f"warming up, {seen.candles} candles seen"
