"""All inputs of many series, candle by candle: those of the 49 with what a view adds to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError
from feature_store.extensions.engine import ExtensionEngine
from feature_store.extensions.expansion import LiveExpansion
from feature_store.extensions.view import FeatureView, as_inputs
from feature_store.features.definition import WINDOW
from feature_store.features.engine import FEATURE_COUNT, Continuity
from feature_store.features.live import LatestFeatures, LiveFeatures

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from feature_store.features.state_files import StoredStates

# More candles than a worker looks back for what came late.
_SKIPPED_KEPT = 1_000
# Later than any candle: what has arrived is known.
_NOW = np.iinfo(np.int64).max


def live_features(symbols: Sequence[str], timeframe: Timeframe, view: FeatureView) -> LiveFeatures:
    """Return the live inputs of a view; of the plain one, those of the 49 alone, at no cost."""
    return ViewedFeatures(symbols, timeframe, view) if view.extra_names else LiveFeatures(symbols, timeframe)


class ViewedFeatures(LiveFeatures):
    """
    As `LiveFeatures`, with the added inputs at the end of each row.

    A row is decided when `latest` is first asked after its candle: of other symbols it holds what has arrived by then.
    A snapshot of the 49 does not hold what is added, so a start reads candles instead.
    """

    def __init__(self, symbols: Sequence[str], timeframe: Timeframe, view: FeatureView) -> None:
        super().__init__(symbols, timeframe)
        self.view = view
        missing = sorted(set(view.expansion.symbols if view.expansion else ()) - set(self.symbols))
        if missing:
            raise BadInputError(
                f"Inputs of {', '.join(missing)} are to be included, but it is not followed; add it to QT_SYMBOLS"
            )
        extensions, expansion = view.extensions, view.expansion
        self._own = {} if extensions is None else {one: ExtensionEngine(extensions, timeframe) for one in self.symbols}
        self._others = None if expansion is None else LiveExpansion(expansion, self.symbols, timeframe)
        self._extra = np.full((len(self.symbols), WINDOW, len(view.extra_names)), np.nan, np.float32)
        self._skipped: dict[str, set[int]] = {}
        self._closes: dict[str, npt.NDArray[np.int64]] = {}
        self._again: set[str] = set()
        self._undecided: dict[str, npt.NDArray[np.int64]] = {}
        self._peers: dict[str, tuple[Continuity, ...]] = {}

    @property
    def ready_after(self) -> int:
        """Candles after which a series has a full window of all inputs."""
        return self.view.ready_after(self.timeframe)

    def advance(self, symbol: str, block: CandleBlock) -> npt.NDArray[np.float64]:
        """
        Take in closed candles of one symbol and return the 49 features of those that are new.

        Raises:
            UnknownSymbolError: The symbol is not among ours.
            BadInputError: The block holds an impossible candle, or a feature of one's own failed; nothing was changed.
        """
        last = self._engine(symbol).last_open_time_ms
        fresh = self._engine(symbol).new_candles(block)
        own = self._own[symbol].advance(block) if self._own else np.empty((len(fresh), 0))
        features = super().advance(symbol, block)
        if self._others is not None:
            self._others.advance(symbol, fresh, 0)
            self._skipped[symbol] = self._skipped.get(symbol, set()) | skipped(last, fresh, self.timeframe)
            closes = fresh.open_time_ms + self.timeframe.milliseconds
            for kept in (self._undecided, self._closes):
                kept[symbol] = np.concatenate([kept.get(symbol, np.empty(0, np.int64)), closes])[-WINDOW:]
        rows = np.full((len(fresh), self._extra.shape[2]), np.nan, np.float32)
        rows[:, : own.shape[1]] = as_inputs(own)
        window = self._extra[self.symbols.index(symbol)]
        window[:] = np.concatenate([window, rows])[-WINDOW:]
        return features

    def advance_rows(
        self,
        places: npt.NDArray[np.int64],
        open_time_ms: npt.NDArray[np.int64],
        values: npt.NDArray[np.float64],
    ) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        """Take in one candle of several symbols, one after the other: features of one's own are Python."""
        out, taken = np.empty((len(places), FEATURE_COUNT)), np.empty(len(places), np.int64)
        for row, place in enumerate(places.tolist()):
            block = CandleBlock(open_time_ms[row : row + 1], values[row : row + 1])
            try:
                features = self.advance(self.symbols[place], block)
            except BadInputError:
                taken[row] = -1
                continue
            taken[row] = len(features)
            out[row : row + len(features)] = features
        return out, taken

    def rebuild(self, symbol: str, block: CandleBlock) -> npt.NDArray[np.float64]:
        """
        Begin a symbol afresh from stored candles, and decide anew the rows that hold anything of it.

        What others read of it, and it of its own longer timeframes, goes without the candles that came late, as in
        training; what was corrected counts as it is now.

        Raises:
            UnknownSymbolError: The symbol is not among ours.
            BadInputError: The block holds an impossible candle, or a feature of one's own failed; the symbol's added
                inputs are undefined then until it is rebuilt.
        """
        features = super().rebuild(symbol, block)
        window = self._extra[self.symbols.index(symbol)]
        window[:] = np.nan
        if self._own:
            self._own[symbol] = ExtensionEngine(self._own[symbol].extensions, self.timeframe)
            rows = as_inputs(self._own[symbol].advance(block))[-WINDOW:]
            window[WINDOW - len(rows) :, : rows.shape[1]] = rows
        if self._others is not None:
            self._others.forget(symbol)
            in_time = ~self._is_late(symbol, block.open_time_ms)
            taken = CandleBlock(block.open_time_ms[in_time], block.values[in_time])
            self._others.advance(symbol, taken, taken.open_time_ms + self.timeframe.milliseconds)
            self._closes[symbol] = (block.open_time_ms + self.timeframe.milliseconds)[-WINDOW:]
            is_included = symbol in self._others.expansion.symbols
            for one in self.symbols if is_included else (symbol,):
                self._undecided[one] = self._closes.get(one, np.empty(0, np.int64))
                self._again.add(one)
        return features

    def _is_late(self, symbol: str, open_time_ms: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        return np.isin(open_time_ms, list(self._skipped.get(symbol, ())))

    def latest(self) -> LatestFeatures:
        """Return the newest inputs, windows and returns of all symbols, the added inputs at the end."""
        self._decide()
        base = super().latest()
        windows = np.concatenate([base.windows, self._extra], axis=2)
        ready = base.ready & np.isfinite(self._extra).all(axis=(1, 2))
        return base._replace(model_inputs=windows[:, -1].copy(), windows=windows, ready=ready)

    def peers(self, symbol: str) -> tuple[Continuity, ...]:
        """Return what had arrived of each included symbol when the newest row of a symbol was decided."""
        return self._peers.get(symbol, ())

    def load(self, path: Path, series: Series) -> bool:  # noqa: ARG002 - as the class that this one is
        """Take over nothing: a snapshot of the 49 says nothing of the added inputs."""
        return False

    def take_over(self, stored: StoredStates, symbols: Sequence[str]) -> frozenset[str]:  # noqa: ARG002
        """Take over nothing, as `load`."""
        return frozenset()

    def _decide(self) -> None:
        if self._others is None:
            return
        included = tuple(self.continuity(one) for one in self._others.expansion.symbols)
        self._peers.update(dict.fromkeys(self._undecided, included))
        for symbol, closes in self._undecided.items():
            rows = self._others.rows(symbol, closes, self._decided_ms(symbol, closes))
            self._extra[self.symbols.index(symbol), WINDOW - len(closes) :, -rows.shape[1] :] = as_inputs(rows)
        self._undecided = {}
        self._again.clear()

    def _decided_ms(self, symbol: str, closes: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return when rows are decided: now; those decided again as their candles closed, if they came then."""
        if symbol not in self._again:
            return np.full(len(closes), _NOW)
        return np.where(self._is_late(symbol, closes - self.timeframe.milliseconds), _NOW, closes)


def skipped(last_ms: int | None, fresh: CandleBlock, timeframe: Timeframe) -> set[int]:
    """Return the open times up to the newest of some candles at which there was none, back to what was known before."""
    step = timeframe.milliseconds
    begin = fresh.first_open_time_ms if last_ms is None else last_ms + step
    newest = fresh.last_open_time_ms
    if begin is None or newest is None or (newest - begin) // step + 1 == len(fresh):
        return set()
    begin = max(begin, newest - _SKIPPED_KEPT * step)
    return set(np.setdiff1d(np.arange(begin, newest, step), fresh.open_time_ms).tolist())
