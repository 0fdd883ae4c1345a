from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import FEATURES, INDEX, MODEL_INPUT_NAMES, TAIL, WARM_UP, WINDOW
from feature_store.features.engine import READY_AFTER, FeatureEngine, model_inputs
from feature_store.features.live import UNBROKEN, LiveFeatures
from flows.training.dataset import Dataset, FrameSet, TrainingFrame
from tests.feature_support import STEP, market, same, without

LENGTH = 700
seeds = st.integers(0, 10_000)
gaps = st.lists(st.tuples(st.integers(1, LENGTH - 1), st.integers(1, 150)), max_size=4)
quick = settings(max_examples=40, deadline=None)


def gapped(seed: int, holes: list[tuple[int, int]], flat: float = 0.1) -> CandleBlock:
    """A market from which stretches of candles are missing."""
    absent = np.concatenate([np.arange(at, min(at + size, LENGTH)) for at, size in holes] or [np.empty(0, int)])
    return without(market(LENGTH, seed=seed, flat=flat), np.unique(absent).astype(int))


def batch(block: CandleBlock) -> np.ndarray:
    """Features of a whole block at once."""
    return FeatureEngine(Timeframe.M5).advance(block)


@quick
@given(seed=seeds, holes=gaps, cut=st.integers(0, LENGTH))
def test_appending_the_future_changes_no_past(seed, holes, cut):
    """The no-lookahead property: a prefix gives the same features as the whole, to the bit."""
    block = gapped(seed, holes)
    assert same(batch(block[:cut]), batch(block)[:cut])


@quick
@given(seed=seeds, holes=gaps, data=st.data())
def test_chunks_of_any_size_give_the_same_bits(seed, holes, data):
    """Live, catch-up and batch agree to the bit, with gaps and in whatever pieces candles arrive."""
    block = gapped(seed, holes)
    engine, parts, at = FeatureEngine(Timeframe.M5), [], 0
    while at < len(block):
        size = data.draw(st.sampled_from([1, 1, 1, 2, 63, 64, 65, 255, 256, 257]))
        parts.append(engine.advance(block[at : at + size]))
        at += size
    whole = FeatureEngine(Timeframe.M5)
    assert same(np.concatenate(parts), whole.advance(block))
    for name, array in whole.state.arrays().items():
        assert same(array, engine.state.arrays()[name]), name


@quick
@given(seed=seeds, data=st.data())
def test_late_and_repeated_candles_change_nothing(seed, data):
    """Whatever arrives again or too late is ignored and counted; the features are those of the candles in order."""
    block = market(300, seed=seed)
    engine, parts, repeated = FeatureEngine(Timeframe.M5), [], 0
    for row in range(len(block)):
        parts.append(engine.advance(block[row : row + 1]))
        if data.draw(st.integers(0, 9)) == 0:
            again = data.draw(st.integers(0, row))
            assert len(engine.advance(block[again : row + 1])) == 0
            repeated += row + 1 - again
    assert same(np.concatenate(parts), batch(block))
    assert engine.continuity.ignored == repeated


@quick
@given(seed=seeds, flat=st.sampled_from([0.0, 0.1, 0.9, 1.0]))
def test_features_are_defined_exactly_after_their_warm_up(seed, flat):
    """The documented warm-up is the real one, for any market, and every later value is finite."""
    features = batch(market(400, seed=seed, flat=flat))
    for column, feature in enumerate(FEATURES):
        defined = np.isfinite(features[:, column])
        assert not defined[: feature.warm_up].any(), feature.name
        assert defined[feature.warm_up :].all(), feature.name


@quick
@given(seed=seeds, holes=gaps)
def test_finite_lookback_is_what_it_says(seed, holes):
    """A feature with a stated lookback depends on no older candle."""
    block = gapped(seed, holes)
    late = block[-TAIL - 130 :]
    if (np.diff(late.open_time_ms) > (TAIL + 1) * STEP).any():
        return
    whole, part = batch(block), batch(late)
    for column, feature in enumerate(FEATURES):
        if feature.lookback is not None:
            assert same(whole[-1, column], part[-1, column]), feature.name


def scaled(block: CandleBlock, price_factor: float, volume_factor: float) -> CandleBlock:
    """The same market quoted in another unit; rounding may not turn a candle inside out."""
    values = block.values * np.array([price_factor] * 4 + [volume_factor])
    values[:, 1] = np.maximum(values[:, 1], values[:, [0, 3]].max(axis=1))
    values[:, 2] = np.minimum(values[:, 2], values[:, [0, 3]].min(axis=1))
    return CandleBlock(block.open_time_ms, values)


@quick
@given(seed=seeds, price_power=st.integers(-40, 40), volume_power=st.integers(-40, 40))
def test_model_inputs_have_no_unit(seed, price_power, volume_power):
    """One model serves every symbol: where scaling itself is exact, it changes no bit of any input."""
    block = market(300, seed=seed)
    other = scaled(block, 2.0**price_power, 2.0**volume_power)
    assert same(model_inputs(batch(other)), model_inputs(batch(block)))


@quick
@given(seed=seeds, price_factor=st.floats(1e-6, 1e6), volume_factor=st.floats(1e-6, 1e6))
def test_any_unit_gives_the_same_inputs(seed, price_factor, volume_factor):
    """
    Any factor changes inputs by rounding only.

    Prices off the tick grid: on it, Wilder compares moves that are equal but for rounding, and TA-Lib likewise.
    """
    block = market(300, seed=seed, tick=1e-9)
    left, right = model_inputs(batch(block)), model_inputs(batch(scaled(block, price_factor, volume_factor)))
    close = np.isclose(left, right, rtol=1e-4, atol=1e-5, equal_nan=True)
    assert close.all(), [MODEL_INPUT_NAMES[column] for column in np.flatnonzero(~close.all(axis=0))]


@quick
@given(seed=seeds, flat=st.sampled_from([0.0, 0.5, 1.0]), factor=st.sampled_from([1.0, 1e-8, 1e8]))
def test_model_inputs_are_finite_bounded_and_row_by_row(seed, flat, factor):
    """After warm-up every input is finite and bounded, and a row's inputs depend on that row alone."""
    block = market(300, seed=seed, flat=flat, price=100 * factor, tick=0.01 * factor)
    features = batch(block)
    inputs = model_inputs(features)
    ready = inputs[max(WARM_UP) :]
    assert inputs.dtype == np.float32
    assert np.isfinite(ready).all()
    assert np.abs(ready).max() <= 20
    assert same(np.concatenate([model_inputs(features[row : row + 1]) for row in range(300)]), inputs)


@quick
@given(seed=seeds)
def test_support_and_resistance_come_from_past_pivots(seed):
    """Each level is the low or high of a candle at least five candles old, or the extreme of the last eleven."""
    block = market(200, seed=seed)
    features = batch(block)
    for row in range(10, 200):
        lows, highs = block.values[: row + 1, 2], block.values[: row + 1, 1]
        support, resistance = features[row, INDEX["support_level"]], features[row, INDEX["resistance_level"]]
        assert support in lows[: row - 4] or support == lows[-11:].min()
        assert resistance in highs[: row - 4] or resistance == highs[-11:].max()


@quick
@given(seed=seeds, holes=gaps, together=st.booleans())
def test_live_windows_equal_batch(seed, holes, together):
    """The windows that models read live are the last 64 rows of what training reads."""
    block = gapped(seed, holes)
    live = LiveFeatures(["BTC/USDT:USDT", "ETH/USDT:USDT"])
    for start in [0] if together else range(0, len(block), 100):
        live.advance("ETH/USDT:USDT", block[start : len(block) if together else start + 100])
    latest = live.latest()
    features = batch(block)
    assert latest.open_time_ms.tolist() == [-1, block.open_time_ms[-1]]
    assert same(latest.windows[1], model_inputs(features[-WINDOW:])) or live.continuity("ETH/USDT:USDT").restarts
    assert same(latest.model_inputs[1], model_inputs(features[-1:])[0])
    seen = live.continuity("ETH/USDT:USDT")
    assert latest.ready.tolist() == [False, seen.candles >= READY_AFTER and seen.candles_since_gap >= UNBROKEN]


@settings(max_examples=15, deadline=None)
@given(seed=seeds, holes=gaps)
def test_live_is_ready_exactly_where_training_reads(seed, holes):
    """A worker decides on those candles that training would learn from, and on none behind whose window is a gap."""
    block = gapped(seed, holes)
    live, features = LiveFeatures(["ETH/USDT:USDT"]), batch(block)
    frame = TrainingFrame(
        "ETH/USDT:USDT", block.open_time_ms, model_inputs(features), features[:, INDEX["log_return_1"]], block.close
    )
    frames = FrameSet((frame,), MODEL_INPUT_NAMES, "", STEP)
    ready = []
    for row in range(len(block)):
        live.advance("ETH/USDT:USDT", block[row : row + 1])
        ready.append(bool(live.latest().ready[0]))
    assert ready == Dataset(frames, horizon=1, window=WINDOW).complete.tolist()
