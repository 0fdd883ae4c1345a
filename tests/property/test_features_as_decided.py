"""Each row of a training set holds the features that could be known when its candle was first decided on."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.decided import features_as_decided, given_up
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from tests.feature_support import BTC, STEP, market, same

CANDLES = 420
BLOCK = market(CANDLES, seed=3)
END_MS = int(BLOCK.open_time_ms[-1]) + STEP

# Where candles were corrected or held up, how many, how long after the last of them had closed, and by how much.
ARRIVALS = st.lists(
    st.tuples(
        st.integers(0, CANDLES - 1),
        st.integers(1, 40),
        st.integers(1, 90 * STEP),
        st.sampled_from((1.0, 1.002, 0.995)),
    ),
    max_size=7,
)


def _deliver(lake, arrivals, held):
    """Store the candles in the order in which they came: each at its close, but for those that were held up."""
    times = BLOCK.open_time_ms
    told = np.setdiff1d(np.arange(CANDLES), [place for place in held if place < CANDLES])
    lake.append(BTC, CandleBlock(times[told], BLOCK.values[told]), available_at_ms=times[told] + STEP + 1_000)
    moments = [
        (int(times[min(first + count, CANDLES) - 1]) + STEP + 1_000 + late_ms, first, count, factor)
        for first, count, late_ms, factor in arrivals
    ]
    for number, (moment_ms, first, count, factor) in enumerate(sorted(moments)):
        part = BLOCK[first : first + count]
        lake.append(BTC, CandleBlock(part.open_time_ms, part.values * factor), available_at_ms=moment_ms + number)


def _known_then(lake, open_ms, decided_ms):
    """Return what a look into the lake would have shown at a decision, up to its candle."""
    return lake.read(BTC, None, open_ms + 1, as_of_ms=decided_ms)


@given(ARRIVALS, st.sets(st.integers(0, CANDLES + 40), max_size=30), st.sampled_from((0, 150)))
@settings(max_examples=25, deadline=None)
def test_each_row_is_as_it_was_decided(arrivals, held, first):
    """With corrections, late candles, gaps and any start, a row equals what the candles known at its decision give."""
    start_ms = int(BLOCK.open_time_ms[first])
    with tempfile.TemporaryDirectory() as folder:
        lake, store = CandleLake(Path(folder) / "lake"), FeatureStore(Path(folder) / "features")
        _deliver(lake, arrivals, held)
        made = store.training_set(lake, [BTC], start_ms, END_MS, 12)[BTC]
        frame = store.training_frame(lake, [BTC], start_ms, END_MS, 12)[BTC]
        assert same(frame.features, made.frame.features)
        for row in {*np.linspace(0, len(made) - 1, 14).astype(int).tolist(), *np.flatnonzero(made.is_late).tolist()}:
            open_ms, decided_ms = int(made.frame.open_time_ms[row]), int(made.decided_at_ms[row])
            expected = FeatureEngine(Timeframe.M5).advance(_known_then(lake, open_ms, decided_ms))[-1:]
            assert same(made.frame.features[row], expected[0])
            assert same(made.frame.inputs[row], model_inputs(expected)[0])
            then = store.features_as_of(lake, [BTC], decided_ms)[BTC]
            if then.open_time_ms == open_ms:
                assert same(made.frame.features[row], then.features)
            else:
                assert then.open_time_ms > open_ms
                assert made.is_late[row]


def _correct(lake, place, late):
    """Correct one candle when `late` more had closed."""
    block = BLOCK[place : place + 1]
    corrected = CandleBlock(block.open_time_ms, block.values * 1.01)
    lake.append(BTC, corrected, available_at_ms=int(block.open_time_ms[0]) + (1 + late) * STEP + 2_000)


def test_a_correction_reaches_the_rows_after_its_arrival_only(tmp_path):
    """60 rows were decided on before a correction came: they hold the first revision, and all after it the second."""
    lake, store = CandleLake(tmp_path / "lake"), FeatureStore(tmp_path / "features")
    lake.append(BTC, BLOCK)
    _correct(lake, 200, 60)
    made = store.training_set(lake, [BTC], 0, END_MS, 12)[BTC].frame.features
    first, second = (FeatureEngine(Timeframe.M5).advance(block) for block in (BLOCK, lake.read(BTC)))
    changed = np.flatnonzero([not same(one, other) for one, other in zip(first, second, strict=True)])

    assert changed[0] == 200
    assert same(made[:261], first[:261])
    assert same(made[261:], second[261:])


def test_beyond_a_bound_rows_are_not_told(tmp_path):
    """Where computing the past again would cost too much, rows that changed are NaN, and the others stay exact."""
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, BLOCK)
    _correct(lake, 200, 60)
    _correct(lake, 10, 300)
    rows = lake.read_rows(BTC)
    exact, bounded = (
        features_as_decided(FeatureEngine(Timeframe.M5), rows.latest().block, rows, 0, most_replays=most)
        for most in (512, 0)
    )
    untold = np.isnan(bounded).all(axis=1)

    # The pass ends at the first correction; until the second comes, what was known is not what is known now.
    assert np.flatnonzero(untold).tolist() == list(range(261, 311))
    assert (given_up(bounded), given_up(exact)) == (50, 0)
    assert same(bounded[~untold], exact[~untold])
    assert not np.isnan(exact).all(axis=1).any()
