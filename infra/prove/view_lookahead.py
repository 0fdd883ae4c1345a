"""Inputs of one's own, of other symbols and of longer timeframes, cut short: none knows what comes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.extensions.expansion import Expansion, Known
from feature_store.extensions.loading import load_extensions
from feature_store.extensions.view import FeatureView

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from typing import Any

    import numpy.typing as npt

    from feature_store.candle import Series

_OWN = '''
from feature_store.extensions.definition import Window, feature


@feature(lookback=30, formula="(close - min(low, 30)) / close", source="the proof")
def above_low_30(w: Window) -> float:
    """How far the close lies above the low of 30 candles."""
    return (w.close[-1] - w.low.min()) / w.close[-1]


@feature(lookback=80, formula="close / mean(close, 80) - 1", source="the proof", vectorised=True)
def against_mean_80(w: Window):
    """How far the close lies from a long mean."""
    return w.close[:, -1] / w.close.mean(axis=1) - 1
'''


class Comparing(Protocol):
    """What counts values and remembers those that the future changed."""

    def compare(self, name: str, before: npt.NDArray[Any], after: npt.NDArray[Any]) -> None:
        """Compare what was known with what is said of it later."""
        ...


def added_inputs_know_no_future(blocks: Mapping[Series, CandleBlock], moments: Iterable[int], tally: Comparing) -> None:
    """What a view adds at each candle is the same without all candles, of all symbols, that come after a moment."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "own.py"
        path.write_text(_OWN)
        own = load_extensions(path)
    moments = list(moments)
    for timeframe in sorted({series.timeframe for series in blocks}):
        peers = {series.symbol: block for series, block in blocks.items() if series.timeframe is timeframe}
        coarser = tuple(one for one in (Timeframe.H1, Timeframe.H4) if one.milliseconds > timeframe.milliseconds)
        names = ("rsi", "log_return_6", "volatility_20")
        view = FeatureView(own, Expansion(names=names, symbols=tuple(peers)[:2], timeframes=coarser))
        arriving = {one: _arriving(number, block, timeframe) for number, (one, block) in enumerate(peers.items())}
        for symbol, block in peers.items():
            # Its own candles come in order: one that came after its decision would be a correction of features.
            known = {**arriving, symbol: Known(block, block.open_time_ms + timeframe.milliseconds + 1_000)}
            whole = view.extra_inputs(symbol, timeframe, known)
            for share in moments:
                now_ms = int(np.quantile(block.open_time_ms, share / 100)) + timeframe.milliseconds
                early = {name: _until(one, now_ms) for name, one in known.items()}
                rows = view.extra_inputs(symbol, timeframe, early)
                for column, name in enumerate(view.extra_names):
                    tally.compare(f"added {name}", rows[:, column], whole[: len(rows), column])


def _arriving(number: int, block: CandleBlock, timeframe: Timeframe) -> Known:
    """Return candles of which every eleventh comes a minute late, and every 97th after four later ones."""
    at = np.arange(len(block)) + number
    late = np.where(at % 97 == 0, 4 * timeframe.milliseconds + 1, np.where(at % 11 == 0, 60_000, 0))
    return Known(block, block.open_time_ms + timeframe.milliseconds + 1_000 + late)


def _until(one: Known, now_ms: int) -> Known:
    there = one.known_ms <= now_ms
    return Known(CandleBlock(one.block.open_time_ms[there], one.block.values[there]), one.known_ms[there])
