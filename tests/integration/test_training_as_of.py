"""Training on a past date: what the product reads then is what a store held that knew nothing later."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import pytest

from feature_store.candle import CandleBlock
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.past_lake import PastLake
from flows.frames import frames_between, lake_as_of, recent_frames, stored_series
from flows.settings import FlowSettings
from flows.sizes import training_config
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset
from tests.feature_support import BTC, ETH, STEP, market, without

CANDLES = 900
BLOCKS = {BTC: market(CANDLES, seed=1), ETH: market(CANDLES, seed=2)}
TIMES = BLOCKS[BTC].open_time_ms
AS_OF_MS = int(TIMES[700]) + STEP + 1_000
VIEW = {"QT_INCLUDE_SYMBOLS": ETH.symbol, "QT_INCLUDE_TIMEFRAMES": "15m", "QT_INCLUDE_INPUTS": "rsi"}


def _corrected(series, place, count):
    block = BLOCKS[series][place : place + count]
    return CandleBlock(block.open_time_ms, block.values * 1.01)


def _deliver(lake, until_ms):
    """Store what came by a moment: most candles at their close, some late, some corrected."""
    late, shift = np.r_[300:304], STEP + 1_000
    for series, block in BLOCKS.items():
        held = without(block, late)
        there = held.open_time_ms + shift <= until_ms
        lake.append(series, CandleBlock(held.open_time_ms[there], held.values[there]))
    for series, arrived_ms, told in (
        (BTC, int(TIMES[330]), BLOCKS[BTC][300:304]),
        (ETH, int(TIMES[720]), BLOCKS[ETH][300:304]),
        (BTC, int(TIMES[450]), _corrected(BTC, 420, 3)),
        (ETH, int(TIMES[800]), _corrected(ETH, 400, 2)),
        (BTC, int(TIMES[890]), _corrected(BTC, 650, 40)),
    ):
        if arrived_ms <= until_ms:
            lake.append(series, told, available_at_ms=arrived_ms)


def _home(folder, until_ms=10**15):
    settings = FlowSettings.of(venue="sandbox", timeframe="5m", days=2, symbols="all", home=folder)
    _deliver(CandleLake(settings.lake), until_ms)
    return settings


def _assert_equal(one, other):
    assert one.symbols == other.symbols
    for frame, expected in zip(one.frames, other.frames, strict=True):
        for name in ("open_time_ms", "inputs", "log_return", "close", "late"):
            np.testing.assert_array_equal(getattr(frame, name), getattr(expected, name), err_msg=name)
    labels = [Dataset(frames, horizon=12, window=64).label for frames in (one, other)]
    np.testing.assert_array_equal(*labels)


@pytest.mark.parametrize("view", [{}, VIEW], ids=["plain", "view"])
def test_training_on_a_past_date_is_training_then(tmp_path, monkeypatch, view):
    """Candles, corrections and late candles that came after the moment change nothing of what is learned from."""
    for name, value in view.items():
        monkeypatch.setenv(name, value)
    whole, then = _home(tmp_path / "whole"), _home(tmp_path / "then", AS_OF_MS)
    past = recent_frames(whole, 12, as_of_ms=AS_OF_MS)

    _assert_equal(past, recent_frames(then, 12))
    assert past.frames[0].open_time_ms[-1] == TIMES[700]
    assert recent_frames(whole, 12).frames[0].open_time_ms[-1] == TIMES[-1]


@pytest.mark.parametrize("view", [{}, VIEW], ids=["plain", "view"])
def test_rows_before_a_correction_are_the_same_after_it(tmp_path, monkeypatch, view):
    """What a row holds when it is decided on, it holds for ever, whatever is corrected or comes later."""
    for name, value in view.items():
        monkeypatch.setenv(name, value)
    span = {"start_ms": int(TIMES[200]), "end_ms": int(TIMES[-1]) + STEP, "horizon": 12}
    whole, then = _home(tmp_path / "whole"), _home(tmp_path / "then", AS_OF_MS)
    now = frames_between(whole.features, whole.candle_lake(), [BTC, ETH], **span)
    before = frames_between(then.features, then.candle_lake(), [BTC, ETH], **span)

    for frame, known in zip(now.frames, before.frames, strict=True):
        rows = np.isin(frame.open_time_ms, known.open_time_ms)
        np.testing.assert_array_equal(frame.inputs[rows], known.inputs)


def test_a_late_candle_breaks_windows_as_a_gap_does(tmp_path):
    """Nobody had the candle when the next rows were decided on, so none of them is learned from with it in sight."""
    settings = _home(tmp_path)
    span = {"start_ms": int(TIMES[0]), "end_ms": int(TIMES[-1]) + STEP, "horizon": 12}
    frames = frames_between(settings.features, settings.candle_lake(), [BTC], **span)
    dataset = Dataset(frames, horizon=12, window=64)

    assert np.flatnonzero(frames.frames[0].late).tolist() == [300, 301, 302, 303]
    assert dataset.complete[299]
    assert not dataset.complete[300:367].any()
    assert dataset.complete[367:].all()


def test_what_was_corrected_too_often_is_named(tmp_path):
    """Rows whose past would cost too much are not learned from, and whoever trains hears of which series, how many."""
    lake, block, told = CandleLake(tmp_path / "lake"), BLOCKS[BTC][:300], []
    lake.append(BTC, block)
    between_ms = int(TIMES[290]) + STEP + 2_000
    for number in range(5):
        corrected = CandleBlock(block.open_time_ms[:290], block.values[:290] * (1.001 + number / 1e4))
        lake.append(BTC, corrected, available_at_ms=between_ms + 300 * number + np.arange(290))
    last = CandleBlock(block.open_time_ms[:1], block.values[:1] * 1.02)
    lake.append(BTC, last, available_at_ms=int(TIMES[295]) + STEP + 2_000)
    span = {"start_ms": int(TIMES[0]), "end_ms": int(TIMES[300]), "horizon": 12}
    frames = frames_between(tmp_path / "features", lake, [BTC], tell=told.append, **span)

    assert [sentence.split(" are ")[0] for sentence in told] == ["BTC/USDT:USDT 5m: 5 of 300 candles"]
    lost = np.isnan(frames.frames[0].inputs).all(axis=1)
    assert np.flatnonzero(lost).tolist() == [291, 292, 293, 294, 295]


def test_a_lake_of_the_past(tmp_path):
    """Series, first and last candles and rows are those of then; a series that came later is not there at all."""
    lake = CandleLake(tmp_path)
    lake.append(BTC, BLOCKS[BTC])
    lake.append(ETH, BLOCKS[ETH], available_at_ms=int(TIMES[-1]) + STEP)
    past = PastLake(lake, AS_OF_MS)

    assert past.series() == [BTC]
    assert (past.first_open_time_ms(BTC), past.last_open_time_ms(BTC)) == (TIMES[0], TIMES[700])
    assert past.last_open_time_ms(ETH) is None
    assert past.coverage(BTC).candles == 701
    assert PastLake(lake, AS_OF_MS - 1).last_open_time_ms(BTC) == TIMES[699]


def test_before_the_first_candle_there_is_nothing_to_learn_from(tmp_path):
    """A date before anything was known is refused with what to do about it."""
    settings = _home(tmp_path)
    with pytest.raises(BadInputError, match=r"were known at 2020-01-01 00:00 UTC; choose a later moment"):
        stored_series(lake_as_of(settings, 1_577_836_800_000), settings)


def test_a_run_records_its_moment(tmp_path):
    """The configuration that is logged holds the moment, and reads it back for whoever scores the version."""
    moment = datetime(2026, 3, 1, tzinfo=UTC)
    config = training_config(_home(tmp_path), moment, as_of="2026-03-01")

    assert config.as_of == "2026-03-01T00:00:00+00:00"
    assert config.as_of_ms == 1_772_323_200_000
    assert training_config(_home(tmp_path), moment).as_of_ms is None
    assert TrainingConfig(created_at="", code_version="").as_of is None
