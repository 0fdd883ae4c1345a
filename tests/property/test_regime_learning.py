"""Regimes as they are learned: the same for a seed, from the window alone, and right where the truth is known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset, FrameSet
from flows.training.hidden_markov import fit_states
from flows.training.regime_model import learn_regime_model
from inference.models.manifest import TimeWindow
from inference.regime.detector import detector, start, walk_through
from inference.regime.states import Regime
from tests.regime_support import KINDS, KnownMarket, known_market
from tests.training_support import FIVE_MINUTES_MS, START_MS, make_frames

FITTED = 8000
WINDOW = TimeWindow(start_ms=START_MS, end_ms=START_MS + FITTED * FIVE_MINUTES_MS)


@pytest.fixture(scope="module")
def market() -> KnownMarket:
    """Return three series of four regimes; the last third is learned from by nobody."""
    return known_market(series=3, candles=12_000, seed=1)


def _dataset(frames: FrameSet) -> Dataset:
    return Dataset(frames, horizon=12, window=64)


@pytest.fixture(scope="module")
def learned(market):
    return learn_regime_model(_dataset(market.frames), WINDOW, seed=1)


@pytest.fixture(scope="module")
def labels(market, learned) -> np.ndarray:
    """Return what is said of each series [n, T], learned from the first two thirds and told candle by candle."""
    frames = market.frames
    found = detector(learned.model, frames.symbols, frames.input_names)
    inputs = np.stack([one.inputs for one in frames.frames], axis=1)
    return np.array([reading.label for _, reading in walk_through(found, start(found), inputs)]).T


def test_known_regimes_are_found_far_above_chance(market, labels):
    """
    On candles that nobody learned from, seven labels of ten and more are the truth.

    Always the commonest would be right four times of ten, a guess by the regimes' shares three times.
    """
    truth = np.array([str(one) for one in KINDS])[market.truth]
    later = slice(FITTED, None)
    right = float((labels[:, later] == truth[:, later]).mean())
    shares = np.array([(truth[:, later] == kind).mean() for kind in map(str, KINDS)])
    print(f"right {right:.3f}, by the commonest {shares.max():.3f}, by shares {np.square(shares).sum():.3f}")

    assert right > 0.7
    assert right > shares.max() + 0.25
    # What is wild is hardly ever called calm, nor the reverse, but where one gives way to the other.
    wild = np.isin(truth[:, later], [Regime.HIGH_VOLATILITY, Regime.CRASH])
    said_wild = np.isin(labels[:, later], [Regime.HIGH_VOLATILITY, Regime.CRASH])
    assert (said_wild == wild).mean() > 0.93


def test_unknown_is_as_rare_as_was_said(labels, learned):
    """In a market that has not changed, hardly more candles are unknown than the share that training states."""
    said = float((labels[:, FITTED:] == Regime.UNKNOWN).mean())
    print(f"unknown {said:.4f}, stated {learned.doubted:.4f}")

    assert learned.doubted < 0.01
    assert said < 0.03


def test_states_are_named_by_what_they_are(learned):
    """Wild states are called wild, calm ones are not, and each of the names is one that training may give."""
    wild = {Regime.HIGH_VOLATILITY, Regime.CRASH}
    levels = [row[1] for row in learned.model.hidden.means]
    calm = [level for level, name in zip(levels, learned.model.names, strict=True) if name not in wild]

    assert levels == sorted(levels)
    assert set(learned.model.names) >= {Regime.RANGE, Regime.HIGH_VOLATILITY}
    assert max(calm) < min(level for level, name in zip(levels, learned.model.names, strict=True) if name in wild)


def test_nothing_after_the_window_is_learned_from(market, learned):
    """A market that goes wild after the window changes no number of the model, and the same seed learns the same."""
    wild = tuple(
        dataclasses.replace(
            one, inputs=np.where((one.open_time_ms >= WINDOW.end_ms)[:, None], 9 * one.inputs, one.inputs)
        )
        for one in market.frames.frames
    )
    changed = learn_regime_model(_dataset(dataclasses.replace(market.frames, frames=wild)), WINDOW, seed=1)

    assert changed.model == learned.model


def test_a_market_without_wild_stretches_has_no_wild_state():
    """Where volatility is always the same, no state is called high volatility or crash."""
    quiet = known_market(series=2, candles=6000, seed=5, kinds=(Regime.RANGE,))
    window = TimeWindow(start_ms=START_MS, end_ms=START_MS + 6000 * FIVE_MINUTES_MS)
    names = learn_regime_model(_dataset(quiet.frames), window, seed=1, states=2).model.names

    assert set(names) <= {Regime.RANGE, Regime.TREND}


def test_inputs_that_regimes_need_are_asked_for():
    """Frames whose inputs are others are refused with the names of those that miss."""
    with pytest.raises(BadInputError, match="log_return_12"):
        learn_regime_model(_dataset(make_frames(series=2, candles=400)), WINDOW, seed=1)


def test_a_window_with_too_little_is_refused(market):
    """A window that is empty, or holds less than a stretch, is refused with what to do."""
    dataset = _dataset(market.frames)
    for candles in (1, 150, 300):
        short = TimeWindow(start_ms=START_MS, end_ms=START_MS + candles * FIVE_MINUTES_MS)
        with pytest.raises(BadInputError, match="load more days"):
            learn_regime_model(dataset, short, seed=1)


def _two_states(seed: int, stretches: int = 8, length: int = 128) -> np.ndarray:
    rng = np.random.default_rng(seed)
    moves = rng.random((stretches, length)) < 0.03
    state = (np.cumsum(moves, axis=1) + rng.integers(0, 2, (stretches, 1))) % 2
    found = rng.standard_normal((stretches, length, 2))
    found[..., 0] = found[..., 0] * (1 + 2 * state) - 0.5 * state
    found[..., 1] = 0.3 * found[..., 1] + 2 * state
    return found


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 10_000), states=st.integers(2, 3), stay=st.sampled_from([1.0, 12.0]), overlap=st.integers(1, 4)
)
def test_each_round_explains_the_candles_better(seed, states, stay, overlap):
    """Likelihood never falls, rows are distributions, states last as long as was asked and are in order."""
    try:
        found = fit_states(
            _two_states(seed), states=states, seed=seed, starts=2, ordered_by=1, least_stay=stay, overlap=overlap,
            rounds=20,
        )  # fmt: skip
    except BadInputError:
        return

    assert (np.diff(found.gains) > -1e-9).all()
    np.testing.assert_allclose(found.transitions.sum(axis=1), 1, rtol=0, atol=1e-12)
    assert (found.transitions.diagonal() >= 1 - 1 / stay - 1e-9).all()
    assert (found.variances > 0).all()
    assert (np.diff(found.means[:, 1]) >= 0).all()


def test_states_that_were_drawn_are_found():
    """Two states with known means and stays come back as they were drawn."""
    found = fit_states(_two_states(3, stretches=40), states=2, seed=1, ordered_by=1)

    np.testing.assert_allclose(found.means, [[0, 0], [-0.5, 2]], atol=0.15)
    np.testing.assert_allclose(np.sqrt(found.variances), [[1, 0.3], [3, 0.3]], rtol=0.06)
    np.testing.assert_allclose(found.transitions.diagonal(), 0.97, atol=0.01)
    assert found.converged


def test_an_answer_does_not_depend_on_units():
    """Numbers a thousand times as large have states a thousand times as far apart, and the same transitions."""
    small = fit_states(_two_states(3), states=2, seed=1, ordered_by=1)
    large = fit_states(1000 * _two_states(3), states=2, seed=1, ordered_by=1)

    np.testing.assert_allclose(large.means, 1000 * small.means, rtol=1e-6)
    np.testing.assert_allclose(large.transitions, small.transitions, rtol=1e-6)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        pytest.param(lambda one: one[:1, :100], "load more days", id="too-little"),
        pytest.param(lambda one: np.full_like(one, 0.1), "never changes", id="constant"),
        pytest.param(lambda one: np.where([True, False], one, 7.0), "never changes", id="one-number-constant"),
        pytest.param(lambda one: np.where(one > 3, np.nan, one), "finite numbers", id="missing"),
        pytest.param(lambda one: np.where(one > 3, np.inf, one), "finite numbers", id="infinite"),
        pytest.param(lambda one: one[0], "stretches", id="no-stretches"),
        pytest.param(lambda one: one[..., :0], "stretches", id="nothing-observed"),
    ],
)
def test_what_cannot_be_learned_from_is_refused(spoil, why):
    """Too little, constant, missing or shapeless: refused with a reason, and no state is made up."""
    with pytest.raises(BadInputError, match=why):
        fit_states(spoil(_two_states(1)), states=2, seed=1)
