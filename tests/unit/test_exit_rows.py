"""The exits of the specification, row by row, with their numbers: an entry at 100, a range of 1, so that R is 3."""

from __future__ import annotations

from decimal import Decimal

import pytest

from feature_store.errors import BadInputError
from inference.domain.exit_profile import CHALLENGE_100, DEFAULT, ExitProfile, Target, barriers_profile
from inference.domain.exit_state import (
    CandleClosed,
    CloseAll,
    DropTarget,
    EmergencyCalled,
    ExitCause,
    Held,
    HoldStop,
    HoldTarget,
    Priced,
)
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.exits.brain import break_even_price, levels, opened, standing, step
from inference.exits.intrabar import CLOSE, FAVOURABLE, Prices
from inference.exits.parts import parts_of
from tests.exit_support import START_MS, STEP_MS, candle, entered, facts, held, instrument, walked

D = Decimal
SHORT = Direction.SHORT


def closed(number: int, close: str | None) -> CandleClosed:
    """Return the close of the candle of a number, the first from the decision on being 0."""
    return CandleClosed(close_ms=START_MS + (number + 1) * STEP_MS, close=None if close is None else D(close))


@pytest.mark.parametrize(("direction", "stop", "target"), [(Direction.LONG, "97", "104.5"), (SHORT, "103", "95.5")])
def test_default_takes_profit_at_one_and_a_half_r_and_stops_at_one(direction, stop, target):
    """EX-019 and EX-020: the stop lies three ranges away, which is R, and all of it is taken at 1.5 R."""
    wanted = standing(DEFAULT, entered(DEFAULT, facts(direction=direction)))

    assert wanted.stop == HoldStop(price=D(stop), quantity=D(1), cause=ExitCause.STOP)
    assert wanted.targets == (HoldTarget(number=1, price=D(target), quantity=D(1)),)
    assert wanted.close is None


def test_default_trails_by_two_ranges():
    """EX-021 and EX-033: once a close gained 1 R, the stop follows the best close by two ranges; never back."""
    state = entered(DEFAULT, facts())
    state, nothing = step(DEFAULT, state, closed(0, "102.99"))
    state, first = step(DEFAULT, state, closed(1, "103"))
    state, second = step(DEFAULT, state, closed(2, "103.5"))
    state, back = step(DEFAULT, state, closed(3, "102"))

    assert nothing == back == ()
    assert first == (HoldStop(price=D("101.00"), quantity=D(1), cause=ExitCause.TRAILING_STOP),)
    assert second == (HoldStop(price=D("101.50"), quantity=D(1), cause=ExitCause.TRAILING_STOP),)
    assert state.stop_price == D("101.5")


def test_default_leaves_at_the_horizon():
    """U32: the time stop is the horizon, here of seven candles, and not a figure of its own."""
    state = entered(DEFAULT, facts(horizon=7))
    for number in range(6):
        state, actions = step(DEFAULT, state, closed(number, "100"))
        assert actions == ()
    _, actions = step(DEFAULT, state, closed(6, "100"))

    assert actions == (CloseAll(cause=ExitCause.TIME_STOP), DropTarget(number=1))


def test_challenge_takes_thirty_at_one_r_and_seventy_at_two():
    """EX-022, EX-023 and C59: 30 % at 1 R, 70 % at 2 R, the planned stop at 1 R."""
    wanted = standing(CHALLENGE_100, entered(CHALLENGE_100, facts(), "10"))

    assert wanted.targets == (
        HoldTarget(number=1, price=D(103), quantity=D(3)),
        HoldTarget(number=2, price=D(106), quantity=D(7)),
    )
    assert wanted.stop == HoldStop(price=D(97), quantity=D(10), cause=ExitCause.STOP)


@pytest.mark.parametrize(("direction", "even"), [(Direction.LONG, "100.16"), (SHORT, "99.85")])
def test_profit_past_the_first_target_moves_the_stop_to_break_even_after_costs(direction, even):
    """EX-027 and U32: 0.05 % a side and a margin of 0.05 % are 100.1501 of an entry at 100, up to the next tick."""
    state = entered(CHALLENGE_100, facts(direction=direction), "10")
    filled = Held(entered=D(10), cost=D(1000), exited=D(3), taken=(D(3),))
    state, actions = step(CHALLENGE_100, state, filled)

    assert actions == (HoldStop(price=D(even), quantity=D(7), cause=ExitCause.BREAK_EVEN), DropTarget(number=1))
    assert [one.number for one in standing(CHALLENGE_100, state).targets] == [2]
    # The first target lies at 103, or 97: the trail begins where the best close was by then, the entry.
    _, actions = step(CHALLENGE_100, state, closed(0, "102.5" if direction is Direction.LONG else "97.5"))
    assert actions[0].cause is ExitCause.TRAILING_STOP


def test_the_rest_ends_at_the_second_target_or_at_the_trail_whichever_is_first():
    """C59: after the first target, one path reaches the second; another turns back and ends at the trail, at 102.5."""
    upward = [candle(0, "100", "103.2", "99.5", "103.2"), candle(1, "103.2", "106.1", "103", "106")]
    turning = [candle(0, "100", "103.2", "99.5", "103.2"), candle(1, "103.2", "104.6", "103", "104.5"),
               candle(2, "104.5", "104.6", "102", "102.2")]  # fmt: skip
    state = entered(CHALLENGE_100, facts(), "10")
    _, up = walked(CHALLENGE_100, state, upward)
    _, turned = walked(CHALLENGE_100, state, turning)

    assert [(n, one.cause, one.price, one.quantity) for n, one in up] == [
        (0, ExitCause.TARGET, D(103), D(3)),
        (1, ExitCause.TARGET, D(106), D(7)),
    ]
    # The stop rested at 102.5; a backtest takes the worst that the candle showed.
    assert [(n, one.cause, one.price, one.quantity) for n, one in turned] == [
        (0, ExitCause.TARGET, D(103), D(3)),
        (2, ExitCause.TRAILING_STOP, D(102), D(7)),
    ]


def test_after_the_first_target_the_same_candle_may_end_at_break_even():
    """The stop that the first target moved is met by the close of its candle already."""
    state = entered(CHALLENGE_100, facts(), "10")
    _, fills = walked(CHALLENGE_100, state, [candle(0, "100", "103.2", "99.5", "100.1")])

    assert [(one.cause, one.price, one.quantity, one.moment) for _, one in fills] == [
        (ExitCause.TARGET, D(103), D(3), FAVOURABLE),
        (ExitCause.BREAK_EVEN, D("100.1"), D(7), CLOSE),
    ]


def test_no_stop_of_challenge_lies_beyond_one_and_a_half_r_of_its_entry():
    """EX-024 and C59: an entry that slipped by 2 ranges has its stop at 1.5 R of what it cost, 97.5, not at 97."""
    slipped = entered(CHALLENGE_100, facts(), "1", "102")
    usual = entered(CHALLENGE_100, facts(), "1", "100.4")

    assert slipped.stop_price == D("97.5")
    assert usual.stop_price == D(97)


@pytest.mark.parametrize(("price", "leaves"), [("95.50", False), ("95.49", True)])
def test_a_price_beyond_the_outer_stop_is_an_emergency(price, leaves):
    """EX-024 and EX-034: where the stop did not do it, 1.5 R against the position is left at market."""
    state = entered(CHALLENGE_100, facts())
    _, actions = step(CHALLENGE_100, state, Priced(at_ms=START_MS, price=D(price)))

    assert (CloseAll(cause=ExitCause.EMERGENCY) in actions) == leaves


def test_challenge_ends_after_two_hours():
    """EX-025 and EX-029: 24 candles of five minutes after the decision it is closed at market, for its time."""
    state = entered(CHALLENGE_100, facts())
    for number in range(23):
        state, actions = step(CHALLENGE_100, state, closed(number, "100"))
        assert actions == ()
    state, actions = step(CHALLENGE_100, state, closed(23, "100"))

    assert state.until_ms - START_MS == 2 * 3_600_000
    assert actions[0] == CloseAll(cause=ExitCause.TIME_STOP)


def test_a_candle_that_is_missing_ends_nothing_but_the_time():
    """Time passes without candles too; a feed that has fallen silent ends it one candle later."""
    state = entered(DEFAULT, facts(horizon=1))
    _, actions = step(DEFAULT, state, closed(0, None))
    early = Priced(at_ms=START_MS + 2 * STEP_MS - 1, price=D(100))
    late = Priced(at_ms=START_MS + 2 * STEP_MS, price=D(100))

    assert actions[0] == CloseAll(cause=ExitCause.TIME_STOP)
    assert step(DEFAULT, state, early)[1] == ()
    assert step(DEFAULT, state, late)[1][0] == CloseAll(cause=ExitCause.TIME_STOP)


@pytest.mark.parametrize(
    ("liquidation", "price", "leaves"),
    [("90", "91.01", False), ("90", "91", True), ("97", "98", True), (None, "98", False)],
)
def test_a_price_near_liquidation_is_left_with_an_alarm(liquidation, price, leaves):
    """EX-026, EX-030, U32 and C85: within one range, more here than 1 % of the price, of what the venue now states."""
    state = entered(DEFAULT, facts())
    seen = Priced(at_ms=START_MS, price=D(price), liquidation_price=None if liquidation is None else D(liquidation))
    _, actions = step(DEFAULT, state, seen)

    assert (CloseAll(cause=ExitCause.LIQUIDATION_BUFFER) in actions) == leaves
    assert ExitCause.LIQUIDATION_BUFFER.is_alarming


@pytest.mark.parametrize(
    ("atr", "stop", "cause"),
    [
        pytest.param("1", "98", ExitCause.LIQUIDATION_BUFFER, id="one-range-is-more"),
        pytest.param("0.9", "97.97", ExitCause.LIQUIDATION_BUFFER, id="one-percent-is-more"),
        pytest.param("0.1", "99.7", ExitCause.STOP, id="the-planned-stop-is-far-from-it"),
    ],
)
def test_the_venue_holds_the_buffer_where_liquidation_is_known(atr, stop, cause):
    """A stop is never nearer to liquidation, at 97 here, than 1 % of it or a range; where all is near there is none."""
    given = levels(DEFAULT, facts(atr=atr, liquidation="97"))

    assert (given.stop_price, given.stop_cause) == (D(stop), cause)
    assert levels(DEFAULT, facts(atr="3", liquidation="97")) is None


def test_the_emergency_stop_closes_whatever_the_profile_says():
    """EX-034: it is called, all leaves at market, the stop stays; a second call changes nothing."""
    state = entered(CHALLENGE_100, facts())
    state, actions = step(CHALLENGE_100, state, EmergencyCalled(at_ms=START_MS))
    again, nothing = step(CHALLENGE_100, state, EmergencyCalled(at_ms=START_MS + 1))

    assert actions[0] == CloseAll(cause=ExitCause.EMERGENCY)
    assert ExitCause.EMERGENCY.is_alarming
    assert standing(CHALLENGE_100, state).stop.quantity == D(1)
    assert nothing == ()
    assert again == state


def test_the_first_cause_stays():
    """EX-032: a position that leaves for its time is not said to have left for an emergency later."""
    state = entered(DEFAULT, facts(horizon=1))
    state, _ = step(DEFAULT, state, closed(0, "100"))
    state, _ = step(DEFAULT, state, EmergencyCalled(at_ms=START_MS + STEP_MS))

    assert state.closing is ExitCause.TIME_STOP


def test_a_trail_that_the_price_is_beyond_closes_at_market():
    """EX-028: no venue takes a stop beyond the price; where the trail begins there, the position leaves for it."""
    profile = ExitProfile(
        name="LATE",
        targets=(Target(r=D(1), share=D("0.5")), Target(r=D(9), share=D("0.5"))),
        trail_atr=D(2),
        trail_after_target=1,
    )
    state = entered(profile, facts())
    state, _ = step(profile, state, closed(0, "102.9"))
    state, _ = step(profile, state, Held(entered=D(1), cost=D(100), exited=D("0.5"), taken=(D("0.5"),)))
    state, actions = step(profile, state, closed(1, "100.9"))

    assert state.stop_price == D("100.9")
    assert actions[0] == CloseAll(cause=ExitCause.TRAILING_STOP)


def test_the_stop_waits_for_costs_that_reach_beyond_the_target():
    """A first target nearer than the costs moves no stop, which would be beyond the price, until a close is."""
    profile = ExitProfile(
        name="NEAR", targets=(Target(atr=D("0.1"), share=D("0.5")), Target(r=D(2), share=D("0.5"))), break_even_after=1
    )
    state = entered(profile, facts())
    state, _ = step(profile, state, Held(entered=D(1), cost=D(100), exited=D("0.5"), taken=(D("0.5"),)))
    before = state.stop_price
    state, _ = step(profile, state, closed(0, "100.16"))
    still = state.stop_price
    state, _ = step(profile, state, closed(1, "100.17"))

    assert break_even_price(profile, state) == D("100.16")
    assert before == still == D(97)
    assert state.stop_price == D("100.16")


@pytest.mark.parametrize(
    ("quantity", "least", "expected"),
    [
        pytest.param("10", "5", ("3", "7"), id="both-stand"),
        pytest.param("0.017", "0", ("0.005", "0.012"), id="steps-round-down-and-the-rest-goes-last"),
        pytest.param("1", "50", ("0", "1"), id="the-first-is-too-small-and-merged-into-the-next"),
        pytest.param("0.01", "5", ("0", "0.01"), id="all-is-too-small-and-leaves-at-once"),
        pytest.param("0.001", "0", ("0", "0.001"), id="one-step-cannot-be-divided"),
        pytest.param("0", "5", ("0", "0"), id="nothing-has-no-parts"),
    ],
)
def test_parts_leave_no_dust(quantity, least, expected):
    """Thirty and seventy percent on steps of 0.001, with a least notional, at 103 and 106."""
    parts = parts_of(CHALLENGE_100, D(quantity), prices=[D(103), D(106)], instrument=instrument(min_notional=least))

    assert parts == tuple(D(one) for one in expected)


def test_a_last_part_that_is_too_small_goes_with_the_one_before():
    """Ninety-five and five percent of one: the five would be 5.3, below 10, and leaves at the first target."""
    profile = ExitProfile(name="LONELY", targets=(Target(r=D(1), share=D("0.95")), Target(r=D(2), share=D("0.05"))))
    parts = parts_of(profile, D(1), prices=[D(103), D(106)], instrument=instrument(min_notional="10"))

    assert parts == (D(1), D(0))


def test_a_target_without_a_part_is_reached_by_a_close():
    """Where 30 % is too little to take, a close past the first target still moves the stop to break-even."""
    small = facts(of=instrument(min_notional="100"))
    state = entered(CHALLENGE_100, small)
    state, below = step(CHALLENGE_100, state, closed(0, "102.99"))
    state, beyond = step(CHALLENGE_100, state, closed(1, "103"))

    assert below == ()
    assert beyond == (HoldStop(price=D("101.00"), quantity=D(1), cause=ExitCause.TRAILING_STOP),)
    assert state.reached == 1


def test_an_entry_in_parts_has_its_stop_and_targets_follow():
    """Each part that executes is protected at once, and the targets share what has executed by then."""
    state = opened(CHALLENGE_100, facts())
    state, first = step(CHALLENGE_100, state, held("4"))
    state, second = step(CHALLENGE_100, state, held("10"))

    assert first == (
        HoldStop(price=D(97), quantity=D(4), cause=ExitCause.STOP),
        HoldTarget(number=1, price=D(103), quantity=D("1.2")),
        HoldTarget(number=2, price=D(106), quantity=D("2.8")),
    )
    assert second == (
        HoldStop(price=D(97), quantity=D(10), cause=ExitCause.STOP),
        HoldTarget(number=1, price=D(103), quantity=D(3)),
        HoldTarget(number=2, price=D(106), quantity=D(7)),
    )


def test_what_somebody_else_closed_shrinks_stop_and_targets():
    """Of ten, eight are gone: the stop is for two, the first target for those, and the second is dropped."""
    state = entered(CHALLENGE_100, facts(), "10")
    _, actions = step(CHALLENGE_100, state, Held(entered=D(10), cost=D(1000), exited=D(8)))

    assert actions == (
        HoldStop(price=D(97), quantity=D(2), cause=ExitCause.STOP),
        HoldTarget(number=1, price=D(103), quantity=D(2)),
        DropTarget(number=2),
    )


def test_closes_before_the_entry_and_old_ones_say_nothing():
    """The close that decided, one before it, and one that is told late or again change nothing."""
    state = entered(DEFAULT, facts())
    state, _ = step(DEFAULT, state, closed(2, "103"))
    for number in (-2, -1, 0, 2):
        again, actions = step(DEFAULT, state, closed(number, "104"))
        assert actions == ()
        assert again == state


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: CandleClosed(close_ms=1, close=D("NaN")),
        lambda: CandleClosed(close_ms=1, close=D(0)),
        lambda: Priced(at_ms=1, price=D(-1)),
        lambda: Priced(at_ms=1, price=D("Infinity")),
        lambda: Priced(at_ms=1, price=D(1), liquidation_price=D("NaN")),
        lambda: Held(entered=D(-1), cost=D(1)),
        lambda: Held(entered=D(1), cost=D(0)),
        lambda: Held(entered=D(1), cost=D(1), taken=(D("NaN"),)),
        lambda: facts(atr="0"),
        lambda: facts(reference="NaN"),
        lambda: facts(fee="0.5"),
        lambda: facts(horizon=0),
        lambda: facts(liquidation="-1"),
        lambda: facts(direction=Direction.FLAT),
        lambda: Prices(open=D(1), high=D(1), low=D(2), close=D(1), close_ms=1),
        lambda: Prices(open=D(1), high=D("NaN"), low=D(1), close=D(1), close_ms=1),
        lambda: candle(0, "5", "4", "3", "3"),
        lambda: step(DEFAULT, opened(DEFAULT, facts()), Held(entered=D(1), cost=D(1), taken=(D(0), D(1)))),
        lambda: opened(DEFAULT, facts(atr="40")),
    ],
)
def test_what_cannot_be_is_refused(wrong):
    """Prices, ranges and quantities that are none are refused where they come in, with what was expected."""
    with pytest.raises(BadInputError, match=r"must|needs?|has|no usable|Exits|gives"):
        wrong()


@pytest.mark.parametrize(
    ("profile", "atr"),
    [
        pytest.param(DEFAULT, "0.001", id="the-stop-is-the-reference"),
        pytest.param(DEFAULT, "34", id="the-stop-is-below-zero"),
        pytest.param(
            ExitProfile(name="TIGHT", targets=(Target(atr=D(1), share=D(1)),), trail_atr=D("0.01")),
            "0.9",
            id="the-trail-is-below-a-tick",
        ),
        pytest.param(
            ExitProfile(
                name="CLOSE", targets=(Target(atr=D(1), share=D("0.5")), Target(atr=D("1.01"), share=D("0.5")))
            ),
            "0.3",
            id="two-targets-are-one-tick",
        ),
    ],
)
def test_a_trade_without_usable_exits_is_not_approved(profile, atr):
    """There are no levels where ticks are too coarse for the profile, or the range too large for the price."""
    assert levels(profile, facts(atr=atr)) is None


def test_todays_rule_is_a_profile():
    """The default policy as a profile: three ranges to the stop, four to the target, twelve candles; nothing else."""
    profile = barriers_profile(Policy())
    state = entered(profile, facts())
    wanted = standing(profile, state)

    assert (wanted.stop.price, wanted.targets[0].price) == (D(97), D(104))
    assert state.until_ms == START_MS + 12 * STEP_MS
    for number, close in enumerate(("103.9", "97.1", "103.9")):
        state, actions = step(profile, state, closed(number, close))
        assert actions == ()


def test_an_entry_that_goes_on_after_its_first_target_asks_for_the_rest_at_the_last():
    """A late fill of the entry brings no target back and takes no break-even away; the last target takes all of it."""
    state = entered(CHALLENGE_100, facts(), "10")
    # What the targets took counts as gone, whoever tells it first.
    state, _ = step(CHALLENGE_100, state, Held(entered=D(10), cost=D(1000), taken=(D(3),)))
    assert state.open_quantity == D(7)
    state, _ = step(CHALLENGE_100, state, Held(entered=D(20), cost=D(2000), taken=(D(3),)))
    wanted = standing(CHALLENGE_100, state)

    assert state.reached == 1
    assert wanted.stop == HoldStop(price=D("100.16"), quantity=D(17), cause=ExitCause.BREAK_EVEN)
    assert wanted.targets == (HoldTarget(number=2, price=D(106), quantity=D(17)),)


@pytest.mark.parametrize(
    ("shares", "least", "expected"),
    [
        pytest.param(("0.3",), "5", ("0.3",), id="a-runner-stays-without-a-target"),
        pytest.param(("0.95",), "10", ("1",), id="a-runner-too-small-leaves-with-the-last-target"),
        pytest.param(("0.02",), "10", ("0",), id="a-part-too-small-stays-with-the-runner"),
        pytest.param(("0.1", "0.2", "0.7"), "15", ("0", "0.3", "0.7"), id="merged-into-the-next-not-the-last"),
    ],
)
def test_parts_beside_a_runner_and_before_others(shares, least, expected):
    """One unit at prices from 103: what is too little by itself goes on to what comes next."""
    targets = tuple(Target(r=D(number), share=D(share)) for number, share in enumerate(shares, 1))
    prices = [D(103) + number for number in range(len(shares))]
    profile = ExitProfile(name="PARTED", targets=targets)
    parts = parts_of(profile, D(1), prices=prices, instrument=instrument(min_notional=least))

    assert parts == tuple(D(one) for one in expected)


def test_a_target_at_the_open_comes_before_what_the_close_decided():
    """Its time is over at a close, and the next candle opens beyond the target, which the venue still holds."""
    state = entered(DEFAULT, facts(horizon=1))
    rising = [candle(0, "100", "101", "99", "101"), candle(1, "105", "106", "104", "105")]
    falling = [candle(0, "100", "101", "99", "101"), candle(1, "100", "106", "90", "95")]
    _, above = walked(DEFAULT, state, rising)
    _, below = walked(DEFAULT, state, falling)

    assert [(one.cause, one.price) for _, one in above] == [(ExitCause.TARGET, D("104.5"))]
    assert [(one.cause, one.price) for _, one in below] == [(ExitCause.TIME_STOP, D(100))]


def test_of_what_is_not_held_nothing_is_decided():
    """Before the entry and after the end, closes, prices and alarms change nothing."""
    before = opened(CHALLENGE_100, facts())
    after, _ = step(CHALLENGE_100, entered(CHALLENGE_100, facts()), Held(entered=D(1), cost=D(100), exited=D(1)))
    for state in (before, after):
        for seen in (closed(30, "110"), Priced(at_ms=START_MS, price=D(1)), EmergencyCalled(at_ms=START_MS)):
            assert step(CHALLENGE_100, state, seen) == (state, ())
