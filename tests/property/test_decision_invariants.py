from __future__ import annotations

import random
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.decision import decide, due_exits
from inference.domain.decision import Approved, Denied, DenyCode, Snapshot, TradingState
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.signal import Direction
from inference.risk.refusal import Refusal
from inference.risk.sizing import loss_per_unit, quantity_for_risk
from tests.worker_support import FIVE_MINUTES_MS
from tests.worker_values import T0, make_candidate, make_instrument, make_snapshot

NAMES = [f"S{number:02}/USDT:USDT" for number in range(30)]
directions = st.sampled_from(list(Direction))


@st.composite
def candidates(draw):
    symbols = draw(st.lists(st.sampled_from(NAMES), min_size=1, max_size=30))
    return tuple(
        make_candidate(
            symbol,
            atr=draw(st.floats(0, 5000)),
            direction=draw(directions),
            probability=draw(st.floats(0.5, 1.0)),
            expected_return=draw(st.floats(-0.05, 0.05)),
            trace_id=f"trace-{row}",
        )
        for row, symbol in enumerate(symbols)
    )


@st.composite
def snapshots(draw) -> Snapshot:
    given_candidates = draw(candidates())
    equity = Decimal(draw(st.integers(0, 30_000)))
    held = draw(st.sets(st.sampled_from(NAMES), max_size=8))
    quotes = {
        symbol: Quote(
            symbol=symbol,
            bid=(price := Decimal(draw(st.integers(1, 90_000_000))) / 1000),
            ask=price + Decimal(draw(st.integers(0, 100))) / 1000,
            event_time_ms=T0,
        )
        for symbol in {one.signal.symbol for one in given_candidates}
    }
    return make_snapshot(
        given_candidates,
        account=Account(equity=equity, day_start_equity=Decimal(10_000), peak_equity=Decimal(30_000)),
        quotes=quotes,
        instruments={
            symbol: make_instrument(symbol, quantity_step=draw(st.sampled_from([Decimal("0.001"), Decimal(1)])))
            for symbol in quotes
        },
        positions={
            symbol: Position(
                symbol=symbol,
                direction=Direction.LONG,
                quantity=Decimal(1),
                entry_price=Decimal(draw(st.integers(100, 2000))),
                entry_time_ms=T0,
                trade_id="x",
            )
            for symbol in held
        },
        in_flight={symbol: Decimal(500) for symbol in draw(st.sets(st.sampled_from(NAMES), max_size=3))},
        heat={symbol: Decimal(draw(st.integers(0, 60))) for symbol in held},
        last_entry_ms={symbol: T0 - draw(st.integers(0, 400_000)) for symbol in draw(st.sets(st.sampled_from(NAMES)))},
        trading_state=draw(st.sampled_from([TradingState.ACTIVE, TradingState.ACTIVE, TradingState.REDUCING])),
    )


policies = st.builds(
    Policy,
    confidence_threshold=st.sampled_from([None, 0.5, 0.7]),
    max_positions=st.integers(1, 20),
    max_exposure=st.sampled_from([Decimal("0.5"), Decimal(2)]),
    risk_per_trade=st.sampled_from([Decimal("0.005"), Decimal("0.01")]),
    max_portfolio_heat=st.sampled_from([Decimal("0.01"), Decimal("0.06")]),
)
NOW = T0 + 1000


@given(snapshots(), policies)
def test_no_batch_breaks_a_limit(snapshot, policy):
    """Whatever is proposed at once, notional, exposure, heat and slots hold for everything approved together."""
    approved = [one for one in decide(snapshot, policy, NOW) if isinstance(one, Approved)]
    notionals = [one.quantity * one.reference_price for one in approved]
    gross = sum((one.notional for one in snapshot.positions.values()), Decimal(0)) + sum(snapshot.in_flight.values())
    occupied = set(snapshot.positions) | set(snapshot.in_flight)

    assert all(policy.min_notional <= notional <= policy.max_notional for notional in notionals)
    if approved:
        assert gross + sum(notionals) <= policy.max_exposure * snapshot.account.equity
        heat = sum(snapshot.heat.values(), Decimal(0)) + sum(one.risk for one in approved)
        assert heat <= policy.max_portfolio_heat * snapshot.account.equity
        assert len(occupied | {one.symbol for one in approved}) <= policy.max_positions
    assert len({one.symbol for one in approved} | occupied) == len(approved) + len(occupied)


@given(snapshots(), policies)
def test_every_stop_lies_on_its_side_and_its_loss_within_the_risk_budget(snapshot, policy):
    """A stop is beyond the price that it protects from, on a tick, and the planned loss is no more than allowed."""
    for one in decide(snapshot, policy, NOW):
        if isinstance(one, Approved):
            quote = snapshot.quotes[one.symbol]
            low, high = sorted((one.stop_price, one.target_price))
            assert low < quote.bid <= quote.ask < high or low < quote.mid < high
            assert (one.stop_price < one.target_price) is (one.direction is Direction.LONG)
            assert one.stop_price % snapshot.instruments[one.symbol].price_tick == 0
            assert one.quantity % snapshot.instruments[one.symbol].quantity_step == 0
            assert one.risk <= snapshot.account.equity * policy.risk_per_trade


@given(snapshots(), policies, st.integers(0, 2**32))
def test_the_order_of_candidates_changes_nothing(snapshot, policy, seed):
    """Any permutation of the candidates gives the same decisions in the same order."""
    mixed = list(snapshot.candidates)
    random.Random(seed).shuffle(mixed)

    assert decide(replace(snapshot, candidates=tuple(mixed)), policy, NOW) == decide(snapshot, policy, NOW)


@given(snapshots(), policies)
def test_every_candidate_is_answered_once_and_every_refusal_has_numbers(snapshot, policy):
    """Nothing is dropped in silence: each candidate is approved or denied with what was compared."""
    decisions = decide(snapshot, policy, NOW)

    assert len(decisions) == len(snapshot.candidates)
    assert all(one.context and all(one.context.values()) for one in decisions if isinstance(one, Denied))


@given(
    equity=st.integers(1, 1_000_000).map(Decimal),
    entry=st.integers(1, 10_000_000).map(lambda value: Decimal(value) / 100),
    distance=st.integers(1, 5000).map(lambda value: Decimal(value) / 10_000),
    step=st.sampled_from([Decimal("0.001"), Decimal("0.1"), Decimal(1), Decimal(10)]),
)
def test_size_is_rounded_down_and_never_raised(equity, entry, distance, step):
    """A quantity loses at most the budget, is worth at most the cap, and one step more would break one of them."""
    policy, instrument = Policy(), make_instrument(quantity_step=step)
    stop = entry * (1 - distance)
    size = quantity_for_risk(equity=equity, entry_price=entry, stop_price=stop, policy=policy, instrument=instrument)
    unit_loss = loss_per_unit(entry_price=entry, stop_price=stop, policy=policy)
    if isinstance(size, Refusal):
        assert size.code in (DenyCode.QUANTITY_BELOW_STEP, DenyCode.NOTIONAL_BELOW_MINIMUM)
        return

    budget = equity * policy.risk_per_trade
    more = size.quantity + step
    assert size.quantity * unit_loss <= budget
    assert policy.min_notional <= size.notional <= policy.max_notional
    assert (
        more * unit_loss > budget * (1 - Decimal("1e-20"))
        or more * entry > policy.max_notional
        or more > instrument.max_quantity
    )


@pytest.mark.parametrize(
    ("changes", "policy", "code"),
    [
        pytest.param({"trading_state": TradingState.HALTED}, Policy(), DenyCode.TRADING_STATE, id="halted"),
        pytest.param(
            {"account": Account(equity=Decimal(9_700), day_start_equity=Decimal(10_000), peak_equity=Decimal(10_000))},
            Policy(),
            DenyCode.DAILY_DRAWDOWN,
            id="three-percent-down",
        ),
        pytest.param({"quotes": {}}, Policy(), DenyCode.NO_QUOTE, id="no-quote"),
        pytest.param({"candle_close_ms": T0 + FIVE_MINUTES_MS}, Policy(), DenyCode.STALE_DATA, id="older-candle"),
        pytest.param(
            {"candidates": (make_candidate(probability=0.59),)},
            Policy(),
            DenyCode.CONFIDENCE_BELOW_THRESHOLD,
            id="bundle-threshold",
        ),
        pytest.param(
            {},
            Policy(confidence_threshold=0.81),
            DenyCode.CONFIDENCE_BELOW_THRESHOLD,
            id="policy-threshold-wins",
        ),
        pytest.param(
            {"candidates": (make_candidate(expected_return=0.0015),)},
            Policy(),
            DenyCode.EDGE_BELOW_COSTS,
            id="costs-and-spread-eat-it",
        ),
        pytest.param(
            {"candidates": (make_candidate(expected_return=-0.01),)},
            Policy(),
            DenyCode.EDGE_BELOW_COSTS,
            id="direction-and-return-disagree",
        ),
        pytest.param({"last_entry_ms": {"BTC/USDT:USDT": T0 - 118_000}}, Policy(), DenyCode.COOLDOWN, id="119-seconds"),
        pytest.param(
            {"in_flight": {"BTC/USDT:USDT": Decimal(0)}}, Policy(), DenyCode.POSITION_OPEN, id="still-tidying-up"
        ),
        pytest.param(
            {"in_flight": {name: Decimal(10) for name in NAMES[:20]}},
            Policy(),
            DenyCode.MAX_POSITIONS,
            id="position-21",
        ),
        pytest.param(
            {"in_flight": {"A": Decimal(19_950)}}, Policy(), DenyCode.EXPOSURE_ABOVE_MAXIMUM, id="exposure-full"
        ),
        pytest.param({"heat": {"A": Decimal(595)}}, Policy(), DenyCode.HEAT_ABOVE_MAXIMUM, id="heat-full"),
        pytest.param(
            {"candidates": (make_candidate(atr=0.0),)}, Policy(), DenyCode.STOP_UNUSABLE, id="no-range-no-stop"
        ),
        pytest.param(
            {
                "candidates": (make_candidate(atr=16_600.0),),
                "account": Account(equity=Decimal(5000), day_start_equity=Decimal(5000), peak_equity=Decimal(5000)),
            },
            Policy(),
            DenyCode.NOTIONAL_BELOW_MINIMUM,
            id="skip-never-raise",
        ),
    ],
)
def test_each_refusal(changes, policy, code):
    """Each link of the chain refuses with its own code when its condition alone is broken."""
    (decision,) = decide(make_snapshot(**changes), policy, NOW)

    assert isinstance(decision, Denied)
    assert decision.code is code


def test_the_sample_trade_above_the_notional_cap_is_cut_to_it():
    """0.1 BTC at 43250.50 would be worth 4325.05: the guard allows 2000 of notional, not 2000 of margin."""
    size = quantity_for_risk(
        equity=Decimal(14_000),
        entry_price=Decimal("43250.50"),
        stop_price=Decimal(43_000),
        policy=Policy(),
        instrument=make_instrument(),
    )

    assert not isinstance(size, Refusal)
    assert size.quantity == Decimal("0.046")
    assert size.notional <= 2000


def test_approvals_use_up_what_the_next_candidate_needs():
    """Of many good candidates the best by expected net edge get the slots, the rest are told why not."""
    many = tuple(make_candidate(name, expected_return=0.01 + row / 1000) for row, name in enumerate(NAMES))
    decisions = decide(make_snapshot(many), Policy(max_positions=3), NOW)

    assert [one.symbol for one in decisions if isinstance(one, Approved)] == [NAMES[29], NAMES[28], NAMES[27]]
    assert {one.code for one in decisions if isinstance(one, Denied)} == {DenyCode.MAX_POSITIONS}


def test_the_time_barrier_matches_the_horizon():
    """A position decided at a candle's close is due twelve closes later, whenever within the candle it filled."""
    position = Position(
        symbol="A",
        direction=Direction.LONG,
        quantity=Decimal(1),
        entry_price=Decimal(1),
        entry_time_ms=T0 + 4321,
        trade_id="x",
    )
    last = T0 + 12 * FIVE_MINUTES_MS

    assert due_exits({"A": position}, candle_close_ms=last, policy=Policy()) == ("A",)
    assert due_exits({"A": position}, candle_close_ms=last - FIVE_MINUTES_MS, policy=Policy()) == ()
