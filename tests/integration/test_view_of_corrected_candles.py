"""Added inputs where candles come late or are corrected: what training reads at a decision, a rebuilt worker had."""

from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CLOSE, VOLUME, CandleBlock, Timeframe
from feature_store.extensions.live import ViewedFeatures
from feature_store.extensions.settings import ViewSettings
from feature_store.lake import CandleLake
from feature_store.past_lake import PastLake
from flows.frames import frames_between
from inference.feed.rebuilding import rebuilt
from tests.extension_support import PLAIN_NUMPY, written
from tests.feature_support import BTC, ETH, STEP, market, same

CANDLES = 320
CORRECTED, LATE = 250, 280
BLOCKS = {BTC: market(CANDLES, seed=1), ETH: market(CANDLES, seed=2)}
# The second series is decided on two seconds after the first.
SECONDS = {BTC: 1_000, ETH: 3_000}


def _delivered(lake, series, corrected_after_ms):
    """Store candles as they close, but for one that comes when three more had closed, and correct one."""
    block = BLOCKS[series]
    known_ms = block.open_time_ms + STEP + SECONDS[series]
    known_ms[LATE] += 3 * STEP + STEP // 3
    lake.append(series, block, available_at_ms=known_ms)
    if corrected_after_ms is not None:
        part = block[CORRECTED : CORRECTED + 1]
        values = part.values.copy()
        values[:, :VOLUME] *= 1.004
        values[:, CLOSE] = values[:, :VOLUME].min()
        values[:, VOLUME] *= 3.0
        at_ms = int(part.open_time_ms[0]) + STEP + corrected_after_ms
        lake.append(series, CandleBlock(part.open_time_ms, values), available_at_ms=at_ms)


def _worker_rows(view, lake):
    """Yield the newest row at each decision of a worker that rebuilds what changed before it decides."""
    live = ViewedFeatures([one.symbol for one in BLOCKS], Timeframe.M5, view)
    rows = {one: lake.read_rows(one) for one in BLOCKS}
    for moment_ms in np.unique(np.concatenate([one.available_at_ms for one in rows.values()])).tolist():
        fresh = []
        for one, stored in rows.items():
            last = live.last_open_time_ms(one.symbol)
            for open_ms in stored.block.open_time_ms[stored.available_at_ms == moment_ms].tolist():
                history = PastLake(lake, moment_ms).read(one)
                if last is not None and open_ms <= last:
                    assert rebuilt(live, one.symbol, history) is not None
                else:
                    live.advance(one.symbol, history.since(open_ms))
                    fresh.append((one, open_ms))
        latest = live.latest()
        for one, open_ms in fresh:
            yield one, open_ms, latest.windows[latest.symbols.index(one.symbol)][-1]


# Before the next closes; between the decisions on the two series; ten and a half candles later.
@pytest.mark.parametrize("after_ms", [None, STEP // 2, 2_000, 10 * STEP + STEP // 2])
def test_frames_hold_what_a_rebuilt_worker_decided_on(tmp_path, monkeypatch, after_ms):
    """With a correction and a late candle of a series and of one that it includes, each row is the worker's."""
    monkeypatch.setenv("QT_EXTENSIONS", str(written(tmp_path, PLAIN_NUMPY)))
    monkeypatch.setenv("QT_INCLUDE_SYMBOLS", BTC.symbol)
    monkeypatch.setenv("QT_INCLUDE_TIMEFRAMES", "15m")
    monkeypatch.setenv("QT_INCLUDE_INPUTS", "rsi,log_return_6,volume_ratio")
    lake = CandleLake(tmp_path / "lake")
    _delivered(lake, BTC, after_ms)
    _delivered(lake, ETH, None if after_ms is None else max(after_ms, 2 * SECONDS[ETH]))
    start_ms = int(BLOCKS[BTC].open_time_ms[0])
    frames = frames_between(
        tmp_path / "features", lake, list(BLOCKS), start_ms=start_ms, end_ms=start_ms + CANDLES * STEP, horizon=12
    )
    batch = {frame.symbol: frame for frame in frames.frames}

    compared = 0
    for one, open_ms, row in _worker_rows(ViewSettings.of().view(), lake):
        place = np.searchsorted(batch[one.symbol].open_time_ms, open_ms)
        assert same(batch[one.symbol].inputs[place], row), (one.symbol, place)
        compared += 1
    # Of the late candle of each a worker decided nothing.
    assert compared == 2 * (CANDLES - 1)
