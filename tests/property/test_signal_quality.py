"""Quality flags: each by itself, with the numbers compared, as rarely wrong as is stated, and never silent."""

from __future__ import annotations

import math
from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_store.errors import BadInputError
from flows.training.input_ranges import LearnedInputs, learn_inputs, used_inputs
from inference.domain.quality import QualityCode
from inference.models.manifest import FileEntry, HeadEntry, MemberEntry
from inference.signals.quality import MarketState, QualityLimits, quality
from inference.signals.trained_inputs import MOST_INPUTS, TrainedInputs, distances, prepare_inputs, used_rows

NOW_MS = 1_750_000_000_000
INPUTS = 12
NAMES = tuple(f"input_{number:02d}" for number in range(INPUTS))
LIMITS = QualityLimits(stale_ms=300_000, widest_spread=0.002, thinnest_volume=10_000.0)


def _rows(count: int, seed: int) -> np.ndarray:
    """Return rows with heavy tails of which some inputs are nearly copies of others."""
    rng = np.random.default_rng(seed)
    loadings = np.random.default_rng(0).standard_normal((4, INPUTS))
    tails = np.sqrt(5 / rng.chisquare(5, (count, 1)))
    return (rng.standard_normal((count, 4)) @ loadings + 0.1 * rng.standard_normal((count, INPUTS))) * tails


@pytest.fixture(scope="module")
def learned() -> LearnedInputs:
    return learn_inputs(_rows(20_000, 1), _rows(20_000, 2), NAMES, NAMES)


def _sound(count: int) -> MarketState:
    return MarketState(
        feature_time_ms=np.full(count, NOW_MS - 1000),
        quote_time_ms=np.full(count, NOW_MS - 500),
        bid=np.full(count, 99.95),
        ask=np.full(count, 100.05),
        quote_volume=np.full(count, 1e6),
    )


def _codes(market: MarketState, *, limits: QualityLimits = LIMITS) -> list[list[QualityCode]]:
    found = quality(market, np.zeros((len(market.bid), INPUTS)), None, limits, now_ms=NOW_MS)
    return [[one.code for one in flags] for flags in found.flags]


@pytest.mark.parametrize(
    ("changed", "code", "context"),
    [
        pytest.param(
            {"quote_time_ms": NOW_MS - 300_001},
            QualityCode.STALE_DATA,
            {"data": "quote", "age_ms": "300001", "maximum_ms": "300000"},
            id="old-quote",
        ),
        pytest.param(
            {"feature_time_ms": NOW_MS - 900_000},
            QualityCode.STALE_DATA,
            {"data": "features", "age_ms": "900000", "maximum_ms": "300000"},
            id="old-features",
        ),
        pytest.param(
            {"quote_time_ms": NOW_MS + 5000},
            QualityCode.STALE_DATA,
            {"data": "quote", "age_ms": "-5000", "maximum_ms": "300000"},
            id="from-the-future",
        ),
        pytest.param(
            {"ask": 101.05},
            QualityCode.WIDE_SPREAD,
            {"spread": str(2 * (1 - 99.95 / 101.05) / (1 + 99.95 / 101.05)), "maximum": "0.002"},
            id="wide",
        ),
        pytest.param(
            {"bid": -1.0},
            QualityCode.NO_QUOTE,
            {"bid": "-1.0", "ask": "100.05", "required": "0 < bid <= ask"},
            id="negative",
        ),
        pytest.param(
            {"bid": 101.0},
            QualityCode.NO_QUOTE,
            {"bid": "101.0", "ask": "100.05", "required": "0 < bid <= ask"},
            id="crossed",
        ),
        pytest.param(
            {"ask": math.inf},
            QualityCode.NO_QUOTE,
            {"bid": "99.95", "ask": "inf", "required": "0 < bid <= ask"},
            id="infinite",
        ),
        pytest.param(
            {"quote_volume": 9999.0},
            QualityCode.THIN_VOLUME,
            {"quote_volume": "9999.0", "minimum": "10000.0"},
            id="thin",
        ),
        pytest.param(
            {"quote_volume": math.nan},
            QualityCode.THIN_VOLUME,
            {"quote_volume": "nan", "minimum": "10000.0"},
            id="volume-not-known",
        ),
    ],
)
def test_a_market_is_flagged_with_the_numbers_compared(changed, code, context):
    """One thing wrong with one market gives one flag, of that market alone, with what was found and what is allowed."""
    market = _sound(3)
    for name, value in changed.items():
        getattr(market, name)[1] = value
    found = quality(market, np.zeros((3, INPUTS)), None, LIMITS, now_ms=NOW_MS).flags

    assert found[0] == found[2] == ()
    assert [(one.code, one.context) for one in found[1]] == [(code, context)]


def test_what_is_not_limited_is_not_flagged():
    """Without limits of spread and volume, any of them will do; the edge itself is still allowed."""
    market = replace(_sound(1), ask=np.array([150.0]), quote_volume=np.array([np.nan]))
    edge = replace(_sound(1), quote_time_ms=np.array([NOW_MS - 300_000]), quote_volume=np.array([10_000.0]))

    assert _codes(market, limits=QualityLimits(stale_ms=300_000)) == [[]]
    assert _codes(edge) == [[]]


@pytest.mark.parametrize("volume", [np.nan, np.inf, -np.inf])
def test_a_volume_that_is_no_number_is_thin(volume):
    """Endless trade is no trade that anybody measured."""
    assert _codes(replace(_sound(1), quote_volume=np.array([volume]))) == [[QualityCode.THIN_VOLUME]]


@given(
    numbers=arrays.arrays(np.float64, (4, 3), elements=st.floats(allow_nan=True, allow_infinity=True)),
    times=arrays.arrays(np.int64, (4, 2), elements=st.integers(-(2**40), 2**42)),
    inputs=arrays.arrays(np.float32, (4, INPUTS), elements=st.floats(width=32, allow_nan=True, allow_infinity=True)),
)
def test_whatever_comes_is_answered(learned, numbers, times, inputs):
    """Numbers no market has break nothing, and no row whose numbers are none goes by without a flag."""
    market = MarketState(times[:, 0], times[:, 1], numbers[:, 0], numbers[:, 1], numbers[:, 2])
    trained = prepare_inputs(learned.trained, NAMES)
    found = quality(market, inputs, trained, LIMITS, now_ms=NOW_MS)

    for row, flags in enumerate(found.flags):
        codes = {one.code for one in flags}
        assert (QualityCode.INPUT_MISSING in codes) == (not np.isfinite(inputs[row]).all())
        if not np.isfinite(numbers[row]).all():
            assert codes & {QualityCode.NO_QUOTE, QualityCode.THIN_VOLUME}
        assert all(isinstance(text, str) for one in flags for text in one.context.values())


@settings(max_examples=50, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), order=st.permutations(range(6)), alone=st.integers(0, 5))
def test_a_market_is_judged_by_itself(learned, seed, order, alone):
    """In any order, and alone, a market's flags are the same and its distance the same to the bit."""
    rng = np.random.default_rng(seed)
    inputs = (_rows(6, seed) * rng.choice([1, 20], (6, 1))).astype(np.float32)
    market = replace(_sound(6), ask=100 + rng.random(6), quote_volume=2e4 * rng.random(6))
    trained = prepare_inputs(learned.trained, NAMES)

    def of(rows: list[int]) -> tuple[tuple, np.ndarray]:
        some = MarketState(
            market.feature_time_ms[rows],
            market.quote_time_ms[rows],
            market.bid[rows],
            market.ask[rows],
            market.quote_volume[rows],
        )
        found = quality(some, inputs[rows], trained, LIMITS, now_ms=NOW_MS)
        return found.flags, found.distance

    flags, apart = of(list(range(6)))
    shuffled, moved = of(list(order))
    single, its = of([alone])

    assert shuffled == tuple(flags[place] for place in order)
    assert (moved == apart[list(order)]).all()
    assert single == (flags[alone],)
    assert its[0] == apart[alone]


@pytest.mark.parametrize("count", [1, 2, 3, 7, 100, 333])
def test_a_distance_is_the_same_in_any_company(learned, count):
    """Among however many rows, each of the first is as far as it is alone, to the bit."""
    trained = prepare_inputs(learned.trained, NAMES)
    rows = _rows(count, 5)
    together = distances(trained, used_rows(trained, rows))
    alone = [distances(trained, used_rows(trained, rows[place : place + 1]))[0] for place in range(count)]

    assert together.tolist() == alone


def test_an_input_out_of_range_is_named_with_its_range(learned):
    """The worst come first, five at the most, and each says how many there are."""
    inputs = np.zeros((2, INPUTS))
    inputs[1, :7] = np.array(learned.trained.highest[:7]) * [2, 3, 4, 5, 6, 7, 8]
    found = quality(_sound(2), inputs, prepare_inputs(learned.trained, NAMES), LIMITS, now_ms=NOW_MS)
    outside = [one for one in found.flags[1] if one.code is QualityCode.INPUT_OUT_OF_RANGE]

    assert found.flags[0] == ()
    assert len(outside) == 5
    assert {one.context["outside"] for one in outside} == {"7"}
    first = outside[0].context
    place = NAMES.index(first["input"])
    assert float(first["value"]) == inputs[1, place]
    assert float(first["maximum"]) == learned.trained.highest[place]


def test_a_combination_that_no_market_has_is_far(learned):
    """Of inputs that move together one moves the other way: each is in range, and the row is far from training."""
    row = _rows(4000, 9)
    trained = prepare_inputs(learned.trained, NAMES)
    usual = row[np.argsort(np.abs(row).max(axis=1))[2000]]
    broken = usual.copy()
    place = int(np.argmax(np.abs(usual)))
    broken[place] = -broken[place]
    found = quality(_sound(2), np.stack([usual, broken]), trained, LIMITS, now_ms=NOW_MS)

    assert found.flags[0] == ()
    assert [one.code for one in found.flags[1]] == [QualityCode.FAR_FROM_TRAINING]


def test_false_alarms_are_as_rare_as_is_stated(learned):
    """On a hundred thousand new rows of the same market, distance alarms as often as it says, ranges no more often."""
    fresh = _rows(100_000, 3)
    trained = prepare_inputs(learned.trained, NAMES)
    apart = distances(trained, used_rows(trained, fresh))
    far = float((apart > learned.trained.far).mean())
    outside = float(((fresh < trained.lowest) | (fresh > trained.highest)).any(axis=1).mean())
    print(f"far {far:.5f}, stated {learned.trained.distance_alarm}; outside {outside:.5f}, stated 0.01 at the most")

    # The threshold itself is an estimate from 20,000 rows: of 20 beyond it, the spread is 4.5.
    assert far == pytest.approx(learned.trained.distance_alarm, abs=0.0007)
    assert outside <= learned.trained.range_alarm * 1.1
    assert learned.later < 0.003


def test_a_bad_tick_in_training_does_not_make_a_range():
    """Three rows of thirty thousand that are a thousand times too large leave ranges and distance where they were."""
    rows = _rows(30_000, 1)
    spoilt = rows.copy()
    spoilt[[5, 6000, 20_000]] *= 1000
    clean = learn_inputs(rows, _rows(2000, 2), NAMES, NAMES, range_alarm=0.05).trained
    dirty = learn_inputs(spoilt, _rows(2000, 2), NAMES, NAMES, range_alarm=0.05).trained

    assert max(dirty.highest) < 2 * max(clean.highest)
    assert dirty.far == pytest.approx(clean.far, rel=0.05)


def test_inputs_that_no_member_reads_are_left_out():
    """What members without a vote read, and the returns, count for nothing; whatever an unused input is, no flag."""
    entry = FileEntry(name="a.ubj", sha256="0" * 64, size=1)
    voting = MemberEntry(
        name="a", kind="xgboost", file=entry, weight=1.0, scale=1.0, inputs=("input_03", "input_01/mean_16", "returns")
    )
    silent = MemberEntry(name="b", kind="xgboost", file=entry, weight=0.0, scale=1.0, inputs=("input_05",))
    head = HeadEntry(kind="direction", file=entry, scale=1.0, inputs=("input_07",))
    used = used_inputs((voting, silent, head), NAMES)
    trained = learn_inputs(_rows(2000, 1), _rows(2000, 2), NAMES, used).trained
    inputs = np.full((1, INPUTS), np.nan)
    inputs[0, [1, 3, 7]] = 0.0

    assert used == ("input_01", "input_03", "input_07")
    assert trained.names == used
    assert quality(_sound(1), inputs, prepare_inputs(trained, NAMES), LIMITS, now_ms=NOW_MS).flags == ((),)


@pytest.mark.parametrize(
    ("fit", "held_out", "used", "why"),
    [
        pytest.param(100, 2000, NAMES, "need 200 rows", id="too-few-to-fit"),
        pytest.param(2000, 900, NAMES, "1000 more", id="too-few-to-calibrate"),
        pytest.param(2000, 2000, (), "an input that is read", id="nothing-used"),
        pytest.param(2000, 2000, ("nobody",), "do not exist", id="unknown-input"),
    ],
)
def test_too_little_to_learn_from_is_refused(fit, held_out, used, why):
    """A rate that the rows cannot show is not stated."""
    with pytest.raises(BadInputError, match=why):
        learn_inputs(_rows(fit, 1), _rows(held_out, 2), NAMES, used)


def test_more_inputs_than_a_bundle_tells_of_are_not_learned_from():
    """An expansion that adds hundreds of columns ends no training at its last step: there are no ranges then."""
    names = tuple(f"input_{number:03d}" for number in range(MOST_INPUTS + 1))
    fit, held_out = np.zeros((300, len(names))), np.zeros((2000, len(names)))
    with pytest.raises(BadInputError, match="at most 512 inputs, and the members read 513"):
        learn_inputs(fit, held_out, names, names)


def test_rows_that_are_no_numbers_are_not_learned_from():
    """One missing input in one row is refused: it would become a range of nothing."""
    rows = _rows(2000, 1)
    rows[7, 3] = np.nan
    with pytest.raises(BadInputError, match="finite inputs alone"):
        learn_inputs(rows, _rows(2000, 2), NAMES, NAMES)
    with pytest.raises(BadInputError, match="finite inputs alone"):
        learn_inputs(_rows(2000, 1), rows, NAMES, NAMES)


def test_an_input_that_never_changed_breaks_nothing():
    """A constant input has a range of one value, and any other value is outside."""
    rows, later = _rows(2000, 1), _rows(2000, 2)
    rows[:, 4] = later[:, 4] = 3.0
    trained = prepare_inputs(learn_inputs(rows, later, NAMES, NAMES).trained, NAMES)
    same = quality(_sound(1), later[:1], trained, LIMITS, now_ms=NOW_MS).flags[0]
    changed = later[:1].copy()
    changed[0, 4] = 3.5
    other = quality(_sound(1), changed, trained, LIMITS, now_ms=NOW_MS).flags[0]

    assert same == ()
    assert [one.context.get("input") for one in other if one.code is QualityCode.INPUT_OUT_OF_RANGE] == ["input_04"]


NAN = math.nan
SMALL = {
    "names": ["a", "b"],
    "lowest": [0.0, 0.0],
    "highest": [1.0, 1.0],
    "centre": [0.5, 0.5],
    "spread": [1.0, 1.0],
    "whitening": [[1.0, 0.0], [0.5, 1.0]],
    "far": 3.0,
    "range_alarm": 0.01,
    "distance_alarm": 0.001,
}


@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"names": []}, id="no-inputs"),
        pytest.param({"names": ["a", "a"]}, id="an-input-twice"),
        pytest.param({"names": ["a", "b" * 1000]}, id="a-name-without-end"),
        pytest.param({"names": [str(n) for n in range(5000)]}, id="too-many-inputs"),
        pytest.param({"lowest": [0.0]}, id="another-shape"),
        pytest.param({"lowest": [2.0, 0.0]}, id="a-range-that-falls"),
        pytest.param({"highest": [NAN, 1.0]}, id="a-range-that-is-none"),
        pytest.param({"centre": [math.inf, 0.0]}, id="a-centre-without-end"),
        pytest.param({"spread": [0.0, 1.0]}, id="no-spread"),
        pytest.param({"whitening": [[1.0, 0.0]]}, id="whitening-of-another-shape"),
        pytest.param({"whitening": [[1.0, 0.1], [0.5, 1.0]]}, id="whitening-that-is-no-triangle"),
        pytest.param({"whitening": [[0.0, 0.0], [0.5, 1.0]]}, id="whitening-without-a-diagonal"),
        pytest.param({"whitening": [[1e300, 0.0], [0.5, 1.0]]}, id="whitening-too-large"),
        pytest.param({"far": 0.0}, id="all-is-far"),
        pytest.param({"far": NAN}, id="nothing-is-far"),
        pytest.param({"distance_alarm": 0.0}, id="never-an-alarm"),
        pytest.param({"range_alarm": 0.9}, id="always-an-alarm"),
        pytest.param({"extra": 1}, id="a-field-nobody-knows"),
    ],
)
def test_arrays_that_training_cannot_have_exported_are_refused(changed):
    """Shapes that differ, ranges that fall, no numbers, hostile sizes: refused when read."""
    assert msgspec.convert(SMALL, TrainedInputs).far == 3.0

    with pytest.raises((msgspec.ValidationError, ValueError)):
        msgspec.convert({**SMALL, **changed}, TrainedInputs)


def test_inputs_that_are_not_there_are_named(learned):
    """A bundle that reads an input nobody computes is refused by that name."""
    with pytest.raises(ValueError, match="input_02 are not among"):
        prepare_inputs(learned.trained, [one for one in NAMES if one != "input_02"])


@pytest.mark.parametrize("changed", [{"stale_ms": -1}, {"widest_spread": NAN}, {"thinnest_volume": -1.0}])
def test_limits_that_are_none_are_refused(changed):
    """Limits below zero, or that are no numbers, compare with nothing."""
    with pytest.raises(ValueError, match="must"):
        QualityLimits(**{"stale_ms": 1, **changed})
