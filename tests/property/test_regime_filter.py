"""Regimes as they are told live: shares that sum to one, by the past alone, of each series by itself."""

from __future__ import annotations

import math

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_store.features.definition import MODEL_INPUT_NAMES
from inference.regime.arrays import MOST_SYMBOLS
from inference.regime.detector import RegimeModel, carried, detector, read, start, walk_through
from inference.regime.hidden_markov import HiddenMarkov, advance, doubt, first_belief, prepare
from inference.regime.observing import INPUT_NAMES
from inference.regime.rules import RegimeRules
from inference.regime.states import REGIMES, Regime, no_reading
from tests.regime_support import plausible_inputs, small_hidden, small_model

SYMBOLS = ("A", "B", "C", "D")
WILD = st.floats(width=32, allow_nan=True, allow_infinity=True)
ANYTHING = arrays.arrays(np.float32, (3, 2, len(INPUT_NAMES)), elements=WILD)
PLACES = {name: place for place, name in enumerate(MODEL_INPUT_NAMES)}


def _told(model: RegimeModel, symbols: tuple[str, ...], inputs: np.ndarray) -> tuple[np.ndarray, list]:
    found = detector(model, symbols, MODEL_INPUT_NAMES)
    readings = [reading for _, reading in walk_through(found, start(found), inputs)]
    return np.stack([one.probability for one in readings]), [one.label for one in readings]


@given(ANYTHING)
def test_probabilities_are_shares_whatever_comes(inputs):
    """Numbers that no market has, infinite ones and none at all: what is said are five shares that sum to one."""
    found = detector(small_model(("A", "B")), ("A", "B"), INPUT_NAMES)
    for _, reading in walk_through(found, start(found), inputs):
        assert np.isfinite(reading.probability).all()
        assert ((reading.probability >= 0) & (reading.probability <= 1 + 1e-12)).all()
        np.testing.assert_allclose(reading.probability.sum(axis=1), 1, rtol=0, atol=1e-12)
        assert all(label in Regime for label in reading.label)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(0, 39), other=st.integers(0, 2**32 - 1))
def test_no_later_candle_changes_what_was_said(seed, cut, other):
    """Whatever comes after a candle, all that was said up to it is the same to the bit."""
    inputs = plausible_inputs(np.random.default_rng(seed), 40, len(SYMBOLS))
    changed = inputs.copy()
    changed[cut + 1 :] = 30 * plausible_inputs(np.random.default_rng(other), 40, len(SYMBOLS))[cut + 1 :]
    model = small_model(SYMBOLS)
    before, labels = _told(model, SYMBOLS, inputs)
    after, relabelled = _told(model, SYMBOLS, changed)

    assert (before[: cut + 1] == after[: cut + 1]).all()
    assert labels[: cut + 1] == relabelled[: cut + 1]


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), cut=st.integers(1, 29))
def test_many_candles_at_once_are_one_by_one(seed, cut):
    """A walk, two walks one after the other, and single steps give the same numbers to the bit."""
    inputs = plausible_inputs(np.random.default_rng(seed), 30, len(SYMBOLS))
    found = detector(small_model(SYMBOLS), SYMBOLS, MODEL_INPUT_NAMES)
    whole = list(walk_through(found, start(found), inputs))
    first = list(walk_through(found, start(found), inputs[:cut]))
    pieces = first + list(walk_through(found, first[-1][0], inputs[cut:]))
    belief, steps = start(found), []
    for row in inputs:
        belief, reading = read(found, belief, row)
        steps.append(reading)

    for (_, one), (_, two), three in zip(whole, pieces, steps, strict=True):
        assert (one.probability == two.probability).all()
        assert (one.probability == three.probability).all()
        assert one.label == two.label == three.label


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(len(SYMBOLS))), alone=st.integers(0, 3))
def test_a_series_is_told_by_itself(seed, order, alone):
    """In any order, and alone, a series' numbers are the same to the bit."""
    inputs = plausible_inputs(np.random.default_rng(seed), 25, len(SYMBOLS))
    model = small_model(SYMBOLS)
    together, labels = _told(model, SYMBOLS, inputs)
    shuffled, _ = _told(model, tuple(SYMBOLS[place] for place in order), inputs[:, order])
    single, its_labels = _told(model, (SYMBOLS[alone],), inputs[:, alone : alone + 1])

    assert (shuffled == together[:, order]).all()
    assert (single[:, 0] == together[:, alone]).all()
    assert [one[0] for one in its_labels] == [one[alone] for one in labels]


def _calm(candles: int, **changed: float) -> np.ndarray:
    """Return one series' inputs in a calm range, some of them changed."""
    inputs = np.zeros((candles, 1, len(MODEL_INPUT_NAMES)), np.float32)
    for name, value in {"volatility_20": 0.001, "adx": -0.7, "distance_ema_20": 1e-4, **changed}.items():
        inputs[..., PLACES[name]] = value
    return inputs


def test_regimes_say_what_prices_did():
    """A market that goes nowhere ranges, one with ADX and its averages in order trends, a fall that is deep crashes."""
    model = small_model(("A",))
    falling = {"distance_ema_20": -0.02, "distance_ema_50": -0.05}

    def last(**changed: float) -> Regime:
        return _told(model, ("A",), _calm(40, **changed))[1][-1][0]

    assert last() is Regime.RANGE
    assert last(adx=0.2, distance_ema_20=0.002, distance_ema_50=0.005, volatility_20=0.0012) is Regime.TREND
    assert last(volatility_20=0.0024) is Regime.HIGH_VOLATILITY
    assert last(volatility_20=0.0032, log_return_24=-0.05, log_return_12=-0.012, **falling) is Regime.CRASH


@pytest.mark.parametrize("name", INPUT_NAMES)
def test_what_is_missing_is_unknown(name):
    """One input that is no number makes its candle unknown, and the series until it is warm again."""
    inputs = _calm(40)
    inputs[20, 0, PLACES[name]] = np.nan
    _, labels = _told(small_model(("A",)), ("A",), inputs)
    warm_up = small_hidden().warm_up
    observed = name in ("log_return_12", "volatility_20")
    until = 20 + warm_up if observed else 21

    assert all(one[0] is Regime.UNKNOWN for one in labels[: warm_up - 1])
    assert all(one[0] is Regime.UNKNOWN for one in labels[20 : until - 1])
    assert labels[19][0] is labels[until + 1][0] is Regime.RANGE


def test_a_series_or_a_market_that_training_never_saw_is_unknown():
    """No scale, no model, or moves that no state explains: unknown, with certainty."""
    _, foreign = _told(small_model(("A",)), ("B",), _calm(40))
    # As still as no market of training's was, for longer than the memory.
    _, strange = _told(small_model(("A",)), ("A",), _calm(60, volatility_20=1e-5))
    nothing = no_reading(3)

    assert all(one[0] is Regime.UNKNOWN for one in foreign)
    assert strange[-1][0] is Regime.UNKNOWN
    assert nothing.label == (Regime.UNKNOWN,) * 3
    assert (nothing.probability == [0, 0, 0, 0, 1]).all()


def test_a_regime_without_a_hidden_state_is_left_to_the_rules():
    """Hidden states that know no trend do not vote against one."""
    model = msgspec.structs.replace(small_model(("A",)), names=(Regime.RANGE,) * 2 + (Regime.HIGH_VOLATILITY,) * 2)
    trending = _calm(40, adx=0.2, distance_ema_20=0.002, distance_ema_50=0.005)
    probability, labels = _told(model, ("A",), trending)

    assert labels[-1][0] is Regime.TREND
    assert probability[-1, 0, REGIMES.index(Regime.TREND)] == pytest.approx(1 - probability[-1, 0, -1])


def test_belief_goes_along_when_symbols_change():
    """A symbol that stays keeps what is believed of it, one that comes begins anew, one that leaves is forgotten."""
    inputs = plausible_inputs(np.random.default_rng(4), 30, 3)
    model = small_model(("A", "B", "C", "D"))
    old = detector(model, ("A", "B", "C"), MODEL_INPUT_NAMES)
    *_, (belief, _) = walk_through(old, start(old), inputs)
    new = detector(model, ("C", "D", "A"), MODEL_INPUT_NAMES)
    moved = carried(new, belief, old.symbols)

    assert (moved.probability[[0, 2]] == belief.probability[[2, 0]]).all()
    assert (moved.seen[[0, 2]] == belief.seen[[2, 0]]).all()
    assert (moved.probability[1] == start(new).probability[1]).all()
    assert moved.seen[1] < 0


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2))
def test_belief_stays_a_distribution_however_unlikely_what_comes(numbers):
    """The rarest candle there can be moves belief, and does not break it."""
    prepared = prepare(small_hidden())
    belief = first_belief(prepared, 1)
    for _ in range(8):
        belief = advance(prepared, belief, np.array([numbers]))

    assert belief.probability.sum() == pytest.approx(1, abs=1e-12)
    assert np.isfinite(belief.surprise).all()
    assert 0 <= doubt(prepared, belief)[0] <= 1


def _hidden(**changed: object) -> dict[str, object]:
    return {**msgspec.to_builtins(small_hidden()), **changed}


NAN, BIG = math.nan, 1e300
FORGED = [
    pytest.param(_hidden(start=[0.5, 0.5, 0.0]), id="start-of-another-shape"),
    pytest.param(_hidden(start=[0.5, 0.5, 0.1, 0.1]), id="start-above-one"),
    pytest.param(_hidden(start=[1.5, -0.5, 0.0, 0.0]), id="start-below-zero"),
    pytest.param(_hidden(start=[]), id="no-states"),
    pytest.param(_hidden(start=[1 / 9] * 9), id="too-many-states"),
    pytest.param(_hidden(transitions=[[1.0, 0.0, 0.0, 0.0]] * 3), id="transitions-of-another-shape"),
    pytest.param(_hidden(transitions=[[0.9, 0.0, 0.0, 0.0]] * 4), id="transitions-below-one"),
    pytest.param(_hidden(transitions=[[NAN, 1.0, 0.0, 0.0]] * 4), id="transitions-that-are-none"),
    pytest.param(_hidden(means=[[0.0, 0.0]] * 3), id="means-of-another-shape"),
    pytest.param(_hidden(means=[[0.0, math.inf]] * 4), id="means-without-end"),
    pytest.param(_hidden(means=[[0.0, BIG]] * 4), id="means-too-far"),
    pytest.param(_hidden(variances=[[1.0, 0.0]] * 4), id="no-variance"),
    pytest.param(_hidden(variances=[[1.0, -1.0]] * 4), id="variance-below-zero"),
    pytest.param(_hidden(variances=[[1.0, 1e-300]] * 4), id="variance-of-next-to-nothing"),
    pytest.param(_hidden(variances=[[1.0, NAN]] * 4), id="variance-that-is-none"),
    pytest.param(_hidden(lowest=[0.0]), id="one-number-observed-of-two"),
    pytest.param(_hidden(lowest=[0.0, 5.0], highest=[1.0, 4.0]), id="observations-that-fall"),
    pytest.param(_hidden(lowest=[0.0] * 20_000, highest=[1.0] * 20_000), id="observations-without-end"),
    pytest.param(_hidden(unseen=-1.0, rare=-2.0), id="levels-that-fall"),
    pytest.param(_hidden(rare=NAN), id="level-that-is-none"),
    pytest.param(_hidden(memory=0), id="no-memory"),
    pytest.param(_hidden(overlap=0), id="no-overlap"),
    pytest.param(_hidden(warm_up=10**9), id="warm-up-without-end"),
    pytest.param(_hidden(extra=1), id="a-field-nobody-knows"),
]


@pytest.mark.parametrize("content", FORGED)
def test_hidden_states_that_training_cannot_have_exported_are_refused(content):
    """Wrong shapes, rows that are no distributions, variances that are none, hostile sizes: refused when read."""
    # As JSON cannot say NaN, a struct built in code is held to the same.
    with pytest.raises((msgspec.ValidationError, ValueError)):
        msgspec.convert(content, HiddenMarkov)


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"names": ["range"] * 3}, id="a-state-without-a-name"),
        pytest.param({"names": ["unknown"] * 4}, id="a-state-of-nothing-known"),
        pytest.param({"names": ["boom"] * 4}, id="a-name-nobody-knows"),
        pytest.param({"scales": {"A": 0.0}}, id="no-scale"),
        pytest.param({"scales": {"A": NAN}}, id="a-scale-that-is-none"),
        pytest.param({"scales": {"A" * 1000: 1.0}}, id="a-name-without-end"),
        pytest.param({"scales": {f"S{n}": 1.0 for n in range(MOST_SYMBOLS + 1)}}, id="too-many-symbols"),
        pytest.param({"weight": 1.5}, id="a-weight-above-one"),
        pytest.param({"weight": NAN}, id="a-weight-that-is-none"),
        pytest.param({"least": 1.0}, id="a-label-that-never-comes"),
        pytest.param({"rules": {"adx": [25.0, 20.0]}}, id="a-ramp-that-falls"),
        pytest.param({"rules": {"crash_fall": [4.0, NAN]}}, id="a-ramp-that-is-none"),
    ],
)
def test_models_that_contradict_themselves_are_refused(changed):
    """A name for each state, a scale above nothing for each series, shares that are shares."""
    content = {**msgspec.to_builtins(small_model(("A",))), **changed}

    with pytest.raises((msgspec.ValidationError, ValueError)):
        msgspec.convert(content, RegimeModel)


def test_a_model_comes_back_from_text_as_it_was():
    """What training writes into a manifest is what the worker reads, to the last digit."""
    model = small_model(SYMBOLS)

    assert msgspec.json.decode(msgspec.json.encode(model), type=RegimeModel) == model
    assert RegimeRules() == model.rules


def test_inputs_that_are_not_there_are_named():
    """A bundle without the inputs that regimes are told from is refused by their names, before it trades."""
    with pytest.raises(ValueError, match="volatility_20 were not among"):
        detector(small_model(("A",)), ("A",), [one for one in MODEL_INPUT_NAMES if one != "volatility_20"])
