"""Where each line of the exit brain lies, to the digit: at it, one tick before it and one tick beyond it."""

from __future__ import annotations

from decimal import Decimal

import pytest
from msgspec.structs import replace

from feature_store.errors import BadInputError
from inference.domain.exit_profile import ExitProfile, Target
from inference.domain.exit_state import CandleClosed, CloseAll, ExitCause, Held, HoldStop, HoldTarget, Priced, Standing
from inference.domain.signal import Direction
from inference.exits.brain import Levels, break_even_price, levels, opened, standing, step
from tests.exit_support import START_MS, STEP_MS, D, entered, facts, held, instrument

LONG, SHORT = Direction.LONG, Direction.SHORT
BARE = ExitProfile(name="BARE", liquidation_buffer=D(0), liquidation_buffer_atr=D(0))


def profile(**changed) -> ExitProfile:
    """Return a profile of one stop three ranges away and nothing else, but for what is changed."""
    return replace(BARE, **changed)


def targets(*rows: tuple[str, str]) -> tuple[Target, ...]:
    """Return targets of distances in ranges and shares."""
    return tuple(Target(atr=D(away), share=D(share)) for away, share in rows)


def priced(price: str, *, candles: int = 1, late_ms: int = 0, liquidation: str | None = None) -> Priced:
    """Return a price so many candles after the plan."""
    return Priced(
        at_ms=START_MS + candles * STEP_MS + late_ms,
        price=D(price),
        liquidation_price=None if liquidation is None else D(liquidation),
    )


@pytest.mark.parametrize(
    ("direction", "reference", "atr", "exists"),
    [
        (LONG, "3", "1", False),
        (LONG, "3.01", "1", True),
        (LONG, "2.99", "1", False),
        (SHORT, "4", "1", False),
        (SHORT, "4.01", "1", True),
        (SHORT, "3.99", "1", False),
    ],
)
def test_a_price_of_zero_is_no_price(direction, reference, atr, exists):
    """A long's stop and a short's target have to be worth a tick."""
    given = levels(profile(targets=targets(("4", "1"))), facts(direction=direction, reference=reference, atr=atr))

    assert (given is not None) is exists


@pytest.mark.parametrize("direction", [LONG, SHORT])
@pytest.mark.parametrize(
    ("stop", "rows", "exists"),
    [
        ("0.4", (), False),
        ("1", (), True),
        ("1", (("0.4", "1"),), False),
        ("1", (("1", "1"),), True),
        ("1", (("1", "0.5"), ("1.4", "0.5")), False),
        ("1", (("1", "0.5"), ("2", "0.5")), True),
    ],
)
def test_each_step_of_the_ladder_is_a_tick_at_least(direction, stop, rows, exists):
    """Stop, reference and targets lie strictly beyond each other once they are rounded; a range is a tick here."""
    trade = facts(direction=direction, atr="0.01")

    assert (levels(profile(stop_atr=D(stop), targets=targets(*rows)), trade) is not None) is exists


@pytest.mark.parametrize(("trail", "exists"), [("0.99", False), ("1", True), ("1.01", True)])
def test_a_trail_is_a_tick_at_least(trail, exists):
    """A shorter one would lie where the price is."""
    assert (levels(profile(trail_atr=D(trail)), facts(atr="0.01")) is not None) is exists


@pytest.mark.parametrize(
    ("direction", "liquidation", "stop", "cause"),
    [
        (LONG, "94.99", "97.00", ExitCause.STOP),
        (LONG, "95.00", "97.00", ExitCause.STOP),
        (LONG, "95.01", "97.01", ExitCause.LIQUIDATION_BUFFER),
        (SHORT, "105.01", "103.00", ExitCause.STOP),
        (SHORT, "105.00", "103.00", ExitCause.STOP),
        (SHORT, "104.99", "102.99", ExitCause.LIQUIDATION_BUFFER),
    ],
)
def test_the_buffer_takes_the_place_of_a_stop_beyond_it_only(direction, liquidation, stop, cause):
    """Two ranges before liquidation, rounded as stops are; where both meet, it is the stop."""
    given = levels(profile(liquidation_buffer_atr=D(2)), facts(direction=direction, liquidation=liquidation))

    assert given == Levels(stop_price=D(stop), stop_cause=cause, target_prices=())


@pytest.mark.parametrize(
    ("share", "ranges", "stop"),
    [("0.01", "0", "98.98"), ("0", "0.5", "98.50"), ("0.01", "0.5", "98.98"), ("0.001", "0.5", "98.50")],
)
def test_the_buffer_is_the_larger_of_its_two(share, ranges, stop):
    """A share of the liquidation price, or ranges: 98 here, so that a hundredth of it is 0.98."""
    asked = profile(liquidation_buffer=D(share), liquidation_buffer_atr=D(ranges))
    given = levels(asked, facts(liquidation="98"))

    assert given == Levels(stop_price=D(stop), stop_cause=ExitCause.LIQUIDATION_BUFFER, target_prices=())


def test_without_a_buffer_liquidation_is_no_line():
    """Neither a share nor a range: stop and mark are left alone, beyond the liquidation price too."""
    state = entered(BARE, facts(liquidation="98"))

    after, actions = step(BARE, state, priced("97.5"))

    assert state.stop_price == D("97.00")
    assert (after, actions) == (state, ())


@pytest.mark.parametrize(
    ("direction", "liquidation", "price", "closes"),
    [
        (LONG, "90", "92.01", False),
        (LONG, "90", "92.00", True),
        (LONG, "90", "91.99", True),
        (SHORT, "110", "107.99", False),
        (SHORT, "110", "108.00", True),
        (SHORT, "110", "108.01", True),
    ],
)
@pytest.mark.parametrize("is_told", [False, True])
def test_a_mark_at_the_buffer_closes(direction, liquidation, price, closes, is_told):
    """The liquidation price is the one that came with the mark, or the one of the plan where none did."""
    asked = profile(liquidation_buffer_atr=D(2))
    planned = ("1" if direction is LONG else "900") if is_told else liquidation
    state = entered(asked, facts(direction=direction, liquidation=planned))

    after, actions = step(asked, state, priced(price, liquidation=liquidation if is_told else None))

    assert after.closing == (ExitCause.LIQUIDATION_BUFFER if closes else None)
    assert actions == ((CloseAll(cause=ExitCause.LIQUIDATION_BUFFER),) if closes else ())


@pytest.mark.parametrize(
    ("direction", "price", "closes"),
    [
        (LONG, "95.50", False),
        (LONG, "95.49", True),
        (SHORT, "104.50", False),
        (SHORT, "104.51", True),
    ],
)
def test_a_mark_beyond_the_cap_is_an_emergency(direction, price, closes):
    """One and a half times a stop of three ranges from the average entry price; at it the venue's stop has its turn."""
    asked = profile(stop_cap_r=D("1.5"))
    state = entered(asked, facts(direction=direction))

    after, _ = step(asked, state, priced(price))

    assert after.closing == (ExitCause.EMERGENCY if closes else None)


@pytest.mark.parametrize(("late_ms", "closes"), [(-1, False), (0, True), (1, True)])
def test_a_mark_one_candle_after_the_end_closes(late_ms, closes):
    """The close of the twelfth candle is waited for until the next would close."""
    state = entered(BARE, facts())

    after, _ = step(BARE, state, priced("100", candles=13, late_ms=late_ms))

    assert after.closing == (ExitCause.TIME_STOP if closes else None)


@pytest.mark.parametrize(
    ("direction", "price", "fee", "margin", "tick", "at"),
    [
        # 100 * 1.0005 / 0.9995 = 100.100050..., and with a margin of 0.0005 100.1500750...
        (LONG, "100", "0.0005", "0", "0.01", "100.11"),
        (LONG, "100", "0.0005", "0.0005", "0.01", "100.16"),
        # 100 * 0.9995 / 1.0005 = 99.900049..., and 99.850074...
        (SHORT, "100", "0.0005", "0", "0.01", "99.90"),
        (SHORT, "100", "0.0005", "0.0005", "0.01", "99.85"),
        # Exactly on a tick: nothing is added.
        (LONG, "100", "0", "0", "0.01", "100.00"),
        (SHORT, "100", "0", "0", "0.01", "100.00"),
        (LONG, "80", "0.2", "0", "0.1", "120.0"),
        (SHORT, "120", "0.2", "0", "0.1", "80.0"),
        (LONG, "100", "0", "0.05", "5", "105"),
        (SHORT, "100", "0", "0.05", "5", "95"),
        (SHORT, "100", "0", "0.04", "5", "95"),
        (LONG, "100", "0", "0.04", "5", "105"),
    ],
)
def test_break_even_pays_both_fees_and_the_margin(direction, price, fee, margin, tick, at):
    """To the next tick at which a close loses nothing, computed by hand."""
    asked = profile(break_even_margin=D(margin))
    trade = facts(direction=direction, fee=fee, atr="10", of=instrument(tick=tick))

    found = break_even_price(asked, entered(asked, trade, "2", price))

    assert found == D(at)
    assert isinstance(found, Decimal)


def test_more_targets_than_there_are_is_an_error_that_says_both_numbers():
    """A journal of another profile is not folded with this one."""
    asked = profile(targets=targets(("1", "0.5")))
    state = opened(asked, facts())

    with pytest.raises(BadInputError, match="Exit profile BARE has 1 targets, and 2 took something"):
        step(asked, state, Held(entered=D(1), cost=D(100), taken=(D(0), D(0))))
    assert step(asked, state, Held(entered=D(1), cost=D(100), taken=(D(0),)))[0].held.taken == (D(0),)


@pytest.mark.parametrize(
    ("exited", "taken", "left"), [("0", "0.3", "0.7"), ("0.3", "0.3", "0.7"), ("0.5", "0.3", "0.5")]
)
def test_what_targets_took_has_left_whoever_says_so(exited, taken, left):
    """The larger of what left by any hand and what left by targets; what targets are silent about took nothing."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.3")))
    state = opened(asked, facts())

    after, _ = step(asked, state, Held(entered=D(1), cost=D(100), exited=D(exited), taken=(D(taken),)))

    assert after.open_quantity == D(left)
    assert after.held.taken == (D(taken), D(0))


def test_before_anything_has_executed_nothing_is_wanted_and_no_cap_is_known():
    """An entry that is still on its way: no average price to measure from."""
    asked = profile(stop_cap_r=D(1))
    state = opened(asked, facts())

    after, actions = step(asked, state, Held(entered=D(0), cost=D(0)))

    assert (after, actions) == (state, ())
    assert standing(asked, after) == Standing()


@pytest.mark.parametrize(("price", "stop"), [("101", "98.00"), ("100", "97.00"), ("99", "97.00")])
def test_an_entry_worse_than_planned_pulls_the_stop_after_it(price, stop):
    """No stop lies more than the cap from the average entry price; a better entry loosens nothing."""
    asked = profile(stop_cap_r=D(1))

    assert entered(asked, facts(), price=price).stop_price == D(stop)


@pytest.mark.parametrize(("taken", "reached"), [("0.299", 0), ("0.3", 1), ("0.301", 1)])
def test_a_target_is_reached_when_all_of_its_part_is_taken(taken, reached):
    """One step less is not all of it."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.3")), break_even_after=1, break_even_margin=D(0))
    state = entered(asked, facts(fee="0"))

    after, _ = step(asked, state, replace(held(), taken=(D(taken), D(0))))

    assert after.reached == reached
    assert after.stop_price == (D("100.00") if reached else D("97.00"))
    assert after.stop_cause == (ExitCause.BREAK_EVEN if reached else ExitCause.STOP)


def test_the_second_target_reached_says_where_the_price_was():
    """Break-even is set by the price of the target that was reached, not by the first: costs here reach beyond that."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.3")), break_even_after=1, break_even_margin=D("0.015"))
    state = entered(asked, facts(fee="0"))

    first, _ = step(asked, state, replace(held(), taken=(D("0.3"), D(0))))
    second, _ = step(asked, first, replace(held(), taken=(D("0.3"), D("0.3"))))
    at_once, _ = step(asked, state, replace(held(), taken=(D("0.3"), D("0.3"))))

    assert (first.reached, first.stop_price) == (1, D("97.00"))
    assert (second.reached, second.stop_price) == (2, D("101.50"))
    assert at_once == second


def test_a_part_that_was_merged_away_is_not_reached_by_taking_nothing_of_it():
    """A first part below the venue's minimum has gone into the second; nothing taken of nothing is no target."""
    asked = profile(targets=targets(("1", "0.1"), ("2", "0.5")))
    state = entered(asked, facts(of=instrument(min_notional="20")))

    assert [one.number for one in standing(asked, state).targets] == [2]
    assert state.reached == 0


@pytest.mark.parametrize("direction", [LONG, SHORT])
@pytest.mark.parametrize(
    ("gained", "reached"),
    [("0.99", 0), ("1.00", 1), ("1.99", 1), ("2.00", 2), ("2.01", 2), ("3.00", 2)],
)
def test_parts_that_were_merged_away_are_reached_by_a_close_at_their_price(direction, gained, reached):
    """Two parts below the venue's minimum have gone into the third, which only its order's fill reaches."""
    asked = profile(targets=targets(("1", "0.1"), ("2", "0.1"), ("3", "0.5")))
    trade = facts(direction=direction, of=instrument(min_notional="25"))
    state = entered(asked, trade)

    close = D(100) + trade.sign * D(gained)
    after, _ = step(asked, state, CandleClosed(close_ms=START_MS + STEP_MS, close=close))

    assert [one.number for one in standing(asked, state).targets] == [3]
    assert after.reached == reached


def test_targets_are_wanted_up_to_what_is_left():
    """Of parts of 0.3 and 0.4 half has left by another hand; what is beyond a target is the runner's."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.4")))
    state, _ = step(asked, entered(asked, facts()), replace(held(), exited=D("0.5")))

    assert standing(asked, state) == Standing(
        stop=HoldStop(price=D("97.00"), quantity=D("0.5"), cause=ExitCause.STOP),
        targets=(
            HoldTarget(number=1, price=D("101.00"), quantity=D("0.3")),
            HoldTarget(number=2, price=D("102.00"), quantity=D("0.2")),
        ),
    )


def test_a_target_for_which_nothing_is_left_is_not_wanted():
    """The first takes all that is left."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.4")))
    state, _ = step(asked, entered(asked, facts()), replace(held(), exited=D("0.7")))

    assert [(one.number, one.quantity) for one in standing(asked, state).targets] == [(1, D("0.3"))]


def test_the_last_target_takes_the_rest_where_nothing_runs():
    """With shares of one in sum, what others have left is the last one's; what it took itself already is not asked."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.7")))
    state, _ = step(asked, entered(asked, facts()), replace(held(), exited=D("0.1"), taken=(D(0), D("0.1"))))

    assert [(one.number, one.quantity) for one in standing(asked, state).targets] == [(1, D("0.3")), (2, D("0.6"))]


def test_a_target_in_part_taken_wants_what_is_missing():
    """What a partial fill has taken is not asked for again."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.4")))
    state, _ = step(asked, entered(asked, facts()), replace(held(), exited=D("0.1"), taken=(D("0.1"), D(0))))

    assert [(one.number, one.quantity) for one in standing(asked, state).targets] == [(1, D("0.2")), (2, D("0.4"))]


def test_a_target_reached_is_not_asked_for_again_when_a_late_fill_makes_it_larger():
    """The entry grew after the first target was taken whole: its part is larger now, and what is missing runs on."""
    asked = profile(targets=targets(("1", "0.3"), ("2", "0.4")))
    state, _ = step(asked, entered(asked, facts()), replace(held(), exited=D("0.3"), taken=(D("0.3"), D(0))))
    grown, _ = step(asked, state, Held(entered=D(2), cost=D(200), exited=D("0.3"), taken=(D("0.3"), D(0))))

    assert [(one.number, one.quantity) for one in standing(asked, grown).targets] == [(2, D("0.8"))]


def test_who_closes_wants_a_stop_and_no_target():
    """While all of it leaves at market, protection stays and nothing else rests."""
    asked = profile(targets=targets(("1", "0.3")))
    state, actions = step(asked, entered(asked, facts()), priced("100", candles=13))

    assert standing(asked, state) == Standing(
        stop=HoldStop(price=D("97.00"), quantity=D(1), cause=ExitCause.STOP),
        close=CloseAll(cause=ExitCause.TIME_STOP),
    )
    assert actions[0] == CloseAll(cause=ExitCause.TIME_STOP)
