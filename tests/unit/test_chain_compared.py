"""The decision chain link by link: at and beside each boundary, in its order, with the numbers it compared."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from itertools import permutations

import pytest
from msgspec import UNSET

from inference.decision import (
    decide,
    due_exits,
    expected_net_edge,
    is_confident,
    round_trip_costs,
)
from inference.domain.bias import SignalBias
from inference.domain.decision import Approved, Denied, DenyCode, TradingState
from inference.domain.governance import Resolution, Stance
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.risk import BreakerState, BreakerView, RiskView
from inference.domain.signal import Direction
from tests.worker_values import T0, make_candidate, make_instrument, make_signal, make_snapshot

BTC, ETH, SOL = (f"{name}/USDT:USDT" for name in ("BTC", "ETH", "SOL"))
LONG, SHORT, FLAT = Direction
STEP = 300_000
VIEW = RiskView(clusters={BTC: BTC, ETH: ETH, SOL: SOL}, betas={BTC: 1.0, ETH: 1.0, SOL: 1.0})
D = Decimal


def quote(bid, ask, *, symbol=BTC, at=T0):
    return Quote(symbol=symbol, bid=D(bid), ask=D(ask), event_time_ms=at)


def answered(policy=Policy(), now_ms=T0, **changes):  # noqa: B008 - frozen
    (decision,) = decide(make_snapshot(**changes), policy, now_ms)
    return decision


def denied(policy=Policy(), now_ms=T0, **changes):  # noqa: B008 - frozen
    """Return code and context of a denial, None for an approval."""
    found = answered(policy, now_ms, **changes)
    return (found.code, dict(found.context)) if isinstance(found, Denied) else None


# -- edges and costs ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("bid", "ask", "costs"),
    [
        ("49995", "50005", "0.0016"),
        ("50000", "50000", "0.0014"),
        ("0.4", "0.6", "0.4014"),
        ("0", "0", "0.0014"),
        ("-1", "1", "0.0014"),
        ("-2", "1", "0.0014"),
    ],
)
def test_a_round_trip_costs_both_sides_and_the_spread_once(bid, ask, costs):
    """Where there is no price in the middle there is no spread either."""
    assert round_trip_costs(quote(bid, ask), Policy()) == D(costs)
    assert round_trip_costs(None, Policy()) == D("0.0014")
    assert round_trip_costs(None, Policy(taker_fee=D("0.0003"), slippage=D("0.0001"))) == D("0.0008")


@pytest.mark.parametrize(
    ("direction", "expected", "edge"),
    [(LONG, 0.01, "0.0084"), (SHORT, -0.01, "0.0084"), (LONG, -0.01, "-0.0116"), (FLAT, 0.01, "-0.0016")],
)
def test_an_edge_is_the_expected_return_on_its_side_less_costs(direction, expected, edge):
    """A signal without a side has costs alone."""
    candidate = make_candidate(direction=direction, expected_return=expected)

    assert expected_net_edge(candidate, quote("49995", "50005"), Policy()) == D(edge)


def test_an_edge_has_to_be_more_than_nothing():
    """Just the costs are not enough, the smallest bit more is."""
    at_cost = (make_candidate(expected_return=0.0016),)

    assert denied(candidates=at_cost) == (
        DenyCode.EDGE_BELOW_COSTS,
        {"direction": "LONG", "expected_return": "0.0016", "costs": "0.0016", "net_edge": "0.0000"},
    )
    assert denied(candidates=(make_candidate(expected_return=0.0016001),)) is None


@pytest.mark.parametrize(
    ("probability", "direction", "threshold", "confident"),
    [
        (0.6, LONG, None, True),
        (0.6, SHORT, None, True),
        (0.59, LONG, None, False),
        (0.99, FLAT, None, False),
        (0.7, LONG, 0.7, True),
        (0.69, LONG, 0.7, False),
        (0.55, LONG, 0.55, True),
    ],
)
def test_just_the_threshold_is_confident_and_no_side_never_is(probability, direction, threshold, confident):
    """The policy's threshold, where there is one, takes the place of the bundle's 0.6."""
    candidate = make_candidate(probability=probability, direction=direction)
    policy = Policy(confidence_threshold=threshold)

    assert is_confident(candidate, policy) is confident
    assert confident or denied(policy, candidates=(candidate,)) == (
        DenyCode.CONFIDENCE_BELOW_THRESHOLD,
        {"direction": direction.value, "confidence": str(probability), "threshold": str(threshold or 0.6)},
    )


# -- data --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("quotes", "found"),
    [
        ({}, "none"),
        ({BTC: quote(6, 5)}, "6/5"),
        ({BTC: quote(0, 5)}, "0/5"),
        ({BTC: quote(-1, 5)}, "-1/5"),
    ],
)
def test_a_quote_that_is_none_is_shown(quotes, found):
    """Missing, crossed, or without a price."""
    assert denied(quotes=quotes) == (DenyCode.NO_QUOTE, {"found": found, "required": "0 < bid <= ask"})


def test_bid_and_ask_may_be_equal_and_prices_may_be_small():
    """A tick of nothing is a price."""
    small = denied(quotes={BTC: quote("0.5", "0.6")})

    assert denied(quotes={BTC: quote(50_000, 50_000)}) is None
    assert small is not None
    assert small[0] is DenyCode.EDGE_BELOW_COSTS


def test_a_symbol_without_steps_is_not_sized():
    """What the venue has not told of an instrument is refused by name."""
    expected = {"found": "no instrument", "required": "steps and minimums of the venue"}

    assert denied(instruments={}) == (DenyCode.NO_QUOTE, expected)


def test_what_is_as_old_as_a_candle_is_fresh_still():
    """A millisecond more is stale, features and quote each by their own time."""
    old = {BTC: quote("49995", "50005", at=T0 - STEP)}
    older = {BTC: quote("49995", "50005", at=T0 - STEP - 1)}
    late = {"age_ms": "300001", "maximum_ms": "300000"}
    later = {BTC: quote("49995", "50005", at=T0 + STEP + 1)}

    assert denied(quotes=old) is None
    assert denied(quotes=older) == (DenyCode.STALE_DATA, {"data": "quote", **late})
    assert denied(now_ms=T0 + STEP, quotes=later) is None
    assert denied(now_ms=T0 + STEP + 1, quotes=later) == (DenyCode.STALE_DATA, {"data": "features", **late})
    assert denied(Policy(stale_after_candles=2), quotes=older) is None


@pytest.mark.parametrize("close_ms", [T0 - 1, T0 + 1])
def test_features_of_another_candle_are_not_decided_on(close_ms):
    """Neither of an older one nor of a newer one."""
    expected = {"data": "features", "feature_time_ms": str(T0), "candle_close_ms": str(close_ms)}

    assert denied(candle_close_ms=close_ms) == (DenyCode.STALE_DATA, expected)


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_a_long_is_planned_from_the_ask_with_slippage():
    """Exits are measured from the ask, sizes from what is expected to be paid."""
    found = answered()

    assert found == Approved(
        symbol=BTC, direction=LONG, quantity=D("0.039"), reference_price=D("50015.0010"), stop_price=D("49705.0"),
        target_price=D("50405.0"), risk=D("14.81239502730"), signal=make_signal(BTC),
    )  # fmt: skip


def test_a_short_is_planned_from_the_bid():
    """What is sold is sold at the bid; slippage is in its costs."""
    signal = make_signal(BTC, direction=SHORT, expected_return=-0.01)
    found = answered(candidates=(make_candidate(BTC, direction=SHORT, expected_return=-0.01),))
    unit = D(300) + (D(49_995) + D(50_295)) * D("0.0007")

    assert found == Approved(
        symbol=BTC, direction=SHORT, quantity=D("0.040"), reference_price=D(49_995), stop_price=D(50_295),
        target_price=D(49_595), risk=D("0.040") * unit, signal=signal,
    )  # fmt: skip


def test_a_stop_that_cannot_be_is_refused_with_its_range():
    """No range, no stop."""
    expected = {"price": "50005", "atr": "0.0", "tick": "0.1"}

    assert denied(candidates=(make_candidate(atr=0.0),)) == (DenyCode.STOP_UNUSABLE, expected)


@pytest.mark.parametrize(("ours", "venues", "asked"), [(100, 5, "100"), (100, 150, "150"), (200, 150, "200")])
def test_room_is_asked_for_with_the_smallest_position_first(ours, venues, asked):
    """The larger of both minimums; with no room for it nothing is sized."""
    policy = Policy(min_notional=D(ours))
    instruments = {BTC: make_instrument(min_notional=D(venues))}
    found = denied(policy, in_flight={ETH: D(20_000)}, instruments=instruments)

    assert found == (
        DenyCode.EXPOSURE_ABOVE_MAXIMUM, {"open_notional": "20000", "notional": asked, "maximum": "20000"}
    )  # fmt: skip


def test_heat_that_is_full_to_the_last_cent_is_seen_by_the_size():
    """The smallest position risks nothing yet: above the limit it is refused at once, at the limit by what it risks."""
    full = denied(heat={ETH: D(600)})
    above = denied(heat={ETH: D("600.5")})

    assert full == (
        DenyCode.HEAT_ABOVE_MAXIMUM, {"heat": "600", "risk": "14.81239502730", "maximum": "600.00"}
    )  # fmt: skip
    assert above == (DenyCode.HEAT_ABOVE_MAXIMUM, {"heat": "600.5", "risk": "0", "maximum": "600.00"})


# -- order -------------------------------------------------------------------------------------------------------------


def answers(candidates, policy=Policy(), **changes):  # noqa: B008 - frozen
    return decide(make_snapshot(tuple(candidates), **changes), policy, T0)


def test_the_best_edge_is_first_then_the_name_then_the_trace():
    """However they are given."""
    same = [make_candidate(SOL), make_candidate(ETH), make_candidate(BTC, expected_return=0.02)]
    twice = [make_candidate(ETH, trace_id="b"), make_candidate(ETH, trace_id="a")]

    for some in permutations(same):
        assert [one.symbol for one in answers(some)] == [BTC, ETH, SOL]
    for some in permutations(twice):
        assert [one.signal.trace_id for one in answers(some)] == ["a", "b"]


def test_two_candidates_of_one_signal_are_answered_the_same_in_any_order():
    """They differ by their range alone; beside them stands another, or none."""
    one, other = make_candidate(ETH, atr=100.0), make_candidate(ETH, atr=200.0)
    for rest in ([], [make_candidate(BTC)], [make_candidate(SOL)]):
        found = [answers(some) for some in permutations([one, other, *rest])]

        assert all(each == found[0] for each in found)
        first = next(each for each in found[0] if each.symbol == ETH)
        assert first.stop_price == D("49705.0")


def test_what_could_not_be_scored_is_named_last_and_in_order():
    """With the reason that was given."""
    found = answers([make_candidate()], incomplete={"Z": "no candles", "A": "warm-up"})

    assert [type(one) for one in found] == [Approved, Denied, Denied]
    assert [(one.symbol, one.code, one.context) for one in found[1:]] == [
        ("A", DenyCode.FEATURES_INCOMPLETE, {"found": "warm-up"}),
        ("Z", DenyCode.FEATURES_INCOMPLETE, {"found": "no candles"}),
    ]


def test_what_is_approved_is_carried_by_the_next():
    """Its notional, its risk and its side count before the second is looked at."""
    two = [make_candidate(BTC, expected_return=0.02), make_candidate(ETH)]
    first, exposed = answers(two, Policy(max_exposure=D("0.3")))
    _, heated = answers(two, Policy(max_portfolio_heat=D("0.01"), max_notional=D(20_000), max_exposure=D(9)))
    notional = first.quantity * first.reference_price

    assert exposed.code is DenyCode.EXPOSURE_ABOVE_MAXIMUM
    assert exposed.context["open_notional"] == str(notional)
    assert heated.code is DenyCode.HEAT_ABOVE_MAXIMUM
    assert D(heated.context["heat"]) > 90


@pytest.mark.parametrize(("direction", "expected", "passes"), [(LONG, 0.02, False), (SHORT, -0.02, True)])
def test_an_approved_short_makes_room_for_a_long(direction, expected, passes):
    """Net exposure to bitcoin is of both sides."""
    two = [make_candidate(BTC, direction=direction, expected_return=expected), make_candidate(ETH)]
    _, second = answers(two, Policy(max_btc_beta=D("0.3")), risk=VIEW)

    assert isinstance(second, Approved) is passes


def test_a_denial_keeps_the_signal_it_is_of():
    """So that what was not entered can be followed up."""
    found = answered(trading_state=TradingState.HALTED)

    assert isinstance(found, Denied)
    assert (found.symbol, found.signal) == (BTC, make_signal(BTC))


def test_the_first_refusal_of_the_chain_wins():
    """Everything is wrong at once; mended one by one, each link is heard in its turn."""
    broken = {
        "risk": replace(VIEW, emergency="drill", breaker=BreakerView(state=BreakerState.OPEN, until_ms=T0 + 1)),
        "trading_state": TradingState.HALTED,
        "account": Account(equity=D(9000), day_start_equity=D(10_000), peak_equity=D(10_000)),
        "quotes": {},
        "candidates": (make_candidate(probability=0.5, expected_return=0.0),),
        "bias": SignalBias(side=LONG, share=0.9, usual=0.5, limit=0.7, candles=20, window=20),
        "resolution": Resolution(stance=Stance.EXITS_ONLY, budget=D(1), caps={}, vetoes={}, votes=(), enforced=True),
        "last_entry_ms": {BTC: T0},
        "in_flight": {ETH: D(20_000)},
    }  # fmt: skip
    calm = Account(equity=D(10_000), day_start_equity=D(10_000), peak_equity=D(10_000))
    sure = (make_candidate(expected_return=0.0),)
    mended = [
        {},
        {"risk": replace(broken["risk"], emergency="")},
        {"trading_state": TradingState.ACTIVE},
        {"risk": VIEW},
        {"account": calm},
        {"quotes": {BTC: quote("49995", "50005")}},
        {"candidates": sure},
        {"candidates": (make_candidate(),)},
        {"bias": UNSET},
        {"resolution": UNSET},
        {"last_entry_ms": {}},
        {"in_flight": {}},
    ]
    heard = []
    for change in mended:
        broken |= change
        found = denied(**broken)
        heard.append(found and found[0].value)

    assert heard == [
        "EMERGENCY_STOP", "TRADING_STATE", "BREAKER_OPEN", "DAILY_DRAWDOWN", "NO_QUOTE", "CONFIDENCE_BELOW_THRESHOLD",
        "EDGE_BELOW_COSTS", "SIGNALS_BIASED", "COMMITTEE_VETO", "COOLDOWN", "EXPOSURE_ABOVE_MAXIMUM", None,
    ]  # fmt: skip


# -- exits -------------------------------------------------------------------------------------------------------------


def position(symbol, *, at=T0, quantity="2"):
    return Position(
        symbol=symbol, direction=LONG, quantity=D(quantity), entry_price=D(1), entry_time_ms=at, trade_id="t"
    )


def test_what_is_due_is_named_in_order_and_what_is_not_is_left():
    """By five-minute candles unless another timeframe is said."""
    held = {name: position(name, at=T0 + late) for name, late in (("C", 0), ("A", 1), ("B", STEP))}
    due = T0 + 12 * STEP

    assert due_exits(held, candle_close_ms=due, policy=Policy()) == ("A", "C")
    assert due_exits(held, candle_close_ms=due - 1, policy=Policy()) == ()
    assert due_exits(held, candle_close_ms=due + STEP, policy=Policy()) == ("A", "B", "C")
    assert due_exits(held, candle_close_ms=T0 + 12 * 60_000, policy=Policy(), timeframe_ms=60_000) == ("A", "C")
