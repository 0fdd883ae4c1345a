"""Regimes as a worker follows them: one candle after the other as all at once, anew after a gap, each by itself."""

from __future__ import annotations

import json

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.features.definition import MODEL_INPUT_NAMES, WINDOW
from feature_store.features.live import LatestFeatures
from inference.journal.codec import canonical
from inference.models.followed_regimes import FollowedRegimes
from inference.regime.detector import detector, start, walk_through
from inference.regime.states import REGIMES, Regime
from inference.signals.scoring import signals
from tests.regime_support import plausible_inputs, small_model

STEP_MS = 300_000
SYMBOLS = ("A", "B", "C")
MODEL = small_model(SYMBOLS)


def _latest(inputs: np.ndarray, last: int, symbols: tuple[str, ...] = SYMBOLS) -> LatestFeatures:
    """Return what models read once candle `last` of `inputs` [T, n, M] has closed."""
    windows = np.ascontiguousarray(np.swapaxes(inputs[last + 1 - WINDOW : last + 1], 0, 1))
    count = len(symbols)
    return LatestFeatures(
        symbols,
        np.full(count, last * STEP_MS, np.int64),
        windows[:, -1].copy(),
        windows,
        np.zeros((count, WINDOW)),
        np.ones(count, bool),
    )


def _reader(symbols: tuple[str, ...] = SYMBOLS) -> FollowedRegimes:
    return FollowedRegimes(small_model(symbols), MODEL_INPUT_NAMES, step_ms=STEP_MS)


def _market(seed: int, candles: int = WINDOW + 30) -> np.ndarray:
    return plausible_inputs(np.random.default_rng(seed), candles, len(SYMBOLS))


def _walked(inputs: np.ndarray) -> list:
    found = detector(MODEL, SYMBOLS, MODEL_INPUT_NAMES)
    return [reading for _, reading in walk_through(found, start(found), inputs)]


@given(seed=st.integers(0, 10_000), candles=st.integers(1, 20))
@settings(max_examples=25, deadline=None)
def test_followed_candle_by_candle_is_walked_through_at_once(seed, candles):
    """What a worker says from its first window on is, to the bit, what one walk over all candles says."""
    inputs, reader = _market(seed), _reader()
    whole = _walked(inputs)

    for last in range(WINDOW - 1, WINDOW - 1 + candles):
        said = reader.read(_latest(inputs, last), [0, 1, 2])

        assert said.probability.tobytes() == whole[last].probability.tobytes()
        assert said.label == whole[last].label


@given(seed=st.integers(0, 10_000), asked=st.lists(st.sets(st.sampled_from([0, 1, 2])), min_size=3, max_size=12))
@settings(max_examples=25, deadline=None)
def test_who_is_not_ready_disturbs_nobody_and_begins_anew(seed, asked):
    """A symbol that misses candles is read from its window when it is back; the others are as if it were not there."""
    inputs, reader = _market(seed), _reader()
    alone = {row: _reader() for row in range(3)}
    missed = dict.fromkeys(range(3), True)

    for place, rows in enumerate(asked):
        latest = _latest(inputs, WINDOW - 1 + place)
        said = reader.read(latest, sorted(rows))
        for where, row in enumerate(sorted(rows)):
            if missed[row]:
                alone[row] = _reader()
            own = alone[row].read(latest, [row])

            assert said.probability[where].tobytes() == own.probability[0].tobytes()
            assert said.label[where] == own.label[0]
        missed = {row: row not in rows for row in range(3)}


def test_the_same_candle_again_is_answered_as_before():
    """A candle is taken in once, however often it is asked for."""
    inputs, reader = _market(3), _reader()
    latest = _latest(inputs, WINDOW - 1)
    first = reader.read(latest, [0, 1, 2])
    again = reader.read(latest, [2, 0])

    assert again.label == (first.label[2], first.label[0])
    assert again.probability.tobytes() == first.probability[[2, 0]].tobytes()
    after = reader.read(_latest(inputs, WINDOW), [0, 1, 2])
    assert after.probability.tobytes() == _walked(inputs)[WINDOW].probability.tobytes()


def test_belief_goes_along_when_symbols_change():
    """Another set of symbols keeps what is believed of those that stay, and reads who is new from its window."""
    inputs, reader = _market(5), _reader()
    reader.read(_latest(inputs, WINDOW - 1), [0, 1, 2])
    kept = _latest(inputs[:, [2, 0]], WINDOW, ("C", "A"))

    said = reader.read(kept, [0, 1])

    whole = _walked(inputs)[WINDOW]
    assert said.probability.tobytes() == whole.probability[[2, 0]].tobytes()
    stranger = reader.read(_latest(inputs[:, [1, 0]], WINDOW, ("Z", "A")), [0, 1])
    assert stranger.label[0] is Regime.UNKNOWN
    assert stranger.probability[1].tobytes() == whole.probability[0].tobytes()


class _Scores:
    def __init__(self) -> None:
        self.expected_return = np.array([0.001])
        self.probability_up = np.array([0.6])
        self.consensus = np.array([1])
        self.members: dict[str, np.ndarray] = {}


@given(parts=st.lists(st.floats(0, 1), min_size=5, max_size=5).filter(lambda parts: sum(parts) > 0))
@settings(max_examples=50, deadline=None)
def test_probabilities_are_journaled_only_where_somebody_told_them(parts):
    """A signal names all five regimes; one of a bundle that tells none has the text that it always had."""
    asked = {
        "symbols": ["A"], "feature_times_ms": [1], "venue": "v", "model_version": "1:a", "weights": {},
        "regimes": ["trend"],
    }  # fmt: skip
    shares = np.array([parts]) / sum(parts)

    told = json.loads(canonical(signals(_Scores(), **asked, regime_probability=shares)[0]))
    untold = json.loads(canonical(signals(_Scores(), **asked)[0]))

    assert list(told.pop("regime_probability")) == sorted(one.value for one in REGIMES)
    assert told == untold
    assert {"regime_probability", "quality"}.isdisjoint(untold)
