from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import UNSET

from inference.decision import decide
from inference.domain.decision import Approved, Denied, DenyCode, RecentTrades
from inference.domain.events import CandlesDecided, TradeClosed, TradePlanned
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution.book import Book
from inference.journal.codec import GENESIS, chained, event_data, event_of
from inference.journal.replay import replay_decisions
from inference.portfolio.exposure import portfolio_load
from inference.risk.constraints import DAY_MS, HOUR_MS, EntryCounts, constraint_refusal, symbol_refusal
from inference.telemetry.guards import guards_of
from tests.worker_values import T0, make_candidate, make_snapshot

NAMES = tuple(f"S{number}/USDT:USDT" for number in range(4))
limits = st.none() | st.integers(0, 4)


@st.composite
def policies(draw):
    hour, day = draw(limits), draw(limits)
    own_hour, own_day = draw(limits), draw(limits)
    if hour is not None and day is not None:
        hour, day = sorted((hour, day))
    if own_hour is not None and own_day is not None:
        own_hour, own_day = sorted((own_hour, own_day))
    return Policy(
        cooldown_seconds=draw(st.sampled_from([0, 120, 7200])),
        global_cooldown_seconds=draw(st.sampled_from([0, 600])),
        loss_cooldown_seconds=draw(st.sampled_from([0, 5400])),
        max_entries_per_hour=hour,
        max_entries_per_day=day,
        max_symbol_entries_per_hour=own_hour,
        max_symbol_entries_per_day=own_day,
        max_positions=draw(st.integers(1, 4)),
        trading_windows=draw(st.sampled_from([(), ("mon-sun 00:00-12:00",), ("fri-mon 20:00-04:00",)])),
        denied_symbols=draw(st.sampled_from([(), ("S1",), (NAMES[2],)])),
    )


def plan_of(symbol, now_ms, number=0):
    return TradePlan(
        trade_id=f"{symbol}-{now_ms}-{number}", trace_id="t", symbol=symbol, direction=Direction.LONG,
        quantity=Decimal(1), reference_price=Decimal(100), stop_price=Decimal(99), target_price=Decimal(101),
        risk=Decimal(1), confidence=0.9, model_version="1", candle_close_ms=now_ms, planned_at_ms=now_ms,
    )  # fmt: skip


def closed(plan, now_ms, pnl):
    result = TradeResult(
        symbol=plan.symbol, direction=plan.direction, reason=ExitReason.STOP, quantity=Decimal(0),
        entry_price=None, exit_price=None, pnl=Decimal(pnl), fees=Decimal(0), opened_at_ms=plan.planned_at_ms,
        closed_at_ms=now_ms, fills_complete=True,
    )  # fmt: skip
    return TradeClosed(trade_id=plan.trade_id, result=result)


@given(
    policies(), st.lists(st.tuples(st.integers(1, 400), st.sets(st.sampled_from(NAMES)), st.booleans()), max_size=40)
)
def test_no_sequence_of_candles_breaks_a_time_or_count_limit(policy, steps):
    """However candidates come, cooldowns, counts of any hour and any day, slots, windows and lists hold."""
    book, now_ms = Book(), T0
    entries: list[tuple[int, str]] = []
    losses: dict[str, int] = {}
    for minutes, symbols, loses in steps:
        now_ms += minutes * 60_000
        snapshot = make_snapshot(
            tuple(make_candidate(symbol, feature_time_ms=now_ms) for symbol in sorted(symbols)),
            candle_close_ms=now_ms,
            quotes={
                one: Quote(symbol=one, bid=Decimal(49_995), ask=Decimal(50_005), event_time_ms=now_ms) for one in NAMES
            },
            last_entry_ms=dict(book.last_entry_ms),
            recent=book.recent(now_ms) if policy.counts_trades else UNSET,
        )
        for one in decide(snapshot, policy, now_ms):
            if not isinstance(one, Approved):
                continue
            assert symbol_refusal(one.symbol, policy) is None
            own = [at for at, symbol in entries if symbol == one.symbol]
            assert all(now_ms - at >= policy.cooldown_seconds * 1000 for at in own)
            assert all(now_ms - at >= policy.global_cooldown_seconds * 1000 for at, _ in entries)
            assert now_ms - losses.get(one.symbol, 0) >= policy.loss_cooldown_seconds * 1000
            entries.append((now_ms, one.symbol))
            plan = plan_of(one.symbol, now_ms)
            book.apply(TradePlanned(plan=plan))
            if loses:
                book.apply(closed(plan, now_ms, -1))
                losses[one.symbol] = now_ms
        for period_ms, every, each in (
            (HOUR_MS, policy.max_entries_per_hour, policy.max_symbol_entries_per_hour),
            (DAY_MS, policy.max_entries_per_day, policy.max_symbol_entries_per_day),
        ):
            within = [symbol for at, symbol in entries if now_ms - at < period_ms]
            assert every is None or len(within) <= every
            assert each is None or all(within.count(symbol) <= each for symbol in NAMES)
        now = [symbol for at, symbol in entries if at == now_ms]
        assert len(now) <= policy.max_positions
        if policy.global_cooldown_seconds:
            assert len(now) <= 1


@given(policies(), st.sets(st.sampled_from(NAMES), min_size=1))
def test_a_limit_whose_numbers_are_unknown_refuses(policy, symbols):
    """Without the entries of the last day nothing that counts them is approved."""
    snapshot = make_snapshot(tuple(make_candidate(symbol) for symbol in sorted(symbols)))
    approved = [one for one in decide(snapshot, policy, T0) if isinstance(one, Approved)]

    assert not (policy.counts_trades and approved)


@pytest.mark.parametrize(
    ("policy", "changes", "code", "context"),
    [
        pytest.param(
            Policy(trading_windows=("mon 08:00-09:00",)), {}, DenyCode.OUTSIDE_TRADING_WINDOW,
            {"now": "sun 2025-06-15 15:10:00", "windows": "mon 08:00-09:00", "days_off": "none"}, id="window",
        ),
        pytest.param(
            Policy(denied_symbols=("BTC",)), {}, DenyCode.SYMBOL_NOT_ALLOWED,
            {"symbol": "BTC/USDT:USDT", "denied": "BTC"}, id="denied",
        ),
        pytest.param(
            Policy(allowed_symbols=("ETH", "SOL/USDT:USDT")), {}, DenyCode.SYMBOL_NOT_ALLOWED,
            {"symbol": "BTC/USDT:USDT", "allowed": "ETH,SOL/USDT:USDT"}, id="not-allowed",
        ),
        pytest.param(
            Policy(), {"last_entry_ms": {"BTC/USDT:USDT": T0 - 119_999}}, DenyCode.COOLDOWN,
            {"elapsed_ms": "119999", "cooldown_ms": "120000"}, id="cooldown",
        ),
        pytest.param(
            Policy(global_cooldown_seconds=60), {"last_entry_ms": {"ETH/USDT:USDT": T0 - 1}}, DenyCode.GLOBAL_COOLDOWN,
            {"elapsed_ms": "1", "cooldown_ms": "60000"}, id="global-cooldown",
        ),
        pytest.param(
            Policy(loss_cooldown_seconds=60), {"recent": RecentTrades(lost_ms={"BTC/USDT:USDT": T0 - 59_999})},
            DenyCode.LOSS_COOLDOWN, {"elapsed_ms": "59999", "cooldown_ms": "60000"}, id="loss-cooldown",
        ),
        pytest.param(
            Policy(max_entries_per_hour=2),
            {"recent": RecentTrades(entered_ms={"A": (T0 - HOUR_MS, T0 - HOUR_MS + 1), "B": (T0,)})},
            DenyCode.ENTRY_COUNT, {"entries": "2", "maximum": "2", "period_ms": "3600000"}, id="hour",
        ),
        pytest.param(
            Policy(max_symbol_entries_per_day=1), {"recent": RecentTrades(entered_ms={"BTC/USDT:USDT": (T0 - 5,)})},
            DenyCode.SYMBOL_ENTRY_COUNT, {"entries": "1", "maximum": "1", "period_ms": "86400000"}, id="symbol-day",
        ),
        pytest.param(
            Policy(max_entries_per_day=0), {"recent": RecentTrades()}, DenyCode.ENTRY_COUNT,
            {"entries": "0", "maximum": "0", "period_ms": "86400000"}, id="none-at-all",
        ),
        pytest.param(
            Policy(max_entries_per_day=1), {}, DenyCode.ENTRY_COUNT,
            {"entries": "unknown", "maximum": "1", "period_ms": "86400000"}, id="unknown",
        ),
        pytest.param(
            Policy(max_positions=1), {"in_flight": {"ETH/USDT:USDT": Decimal(5)}}, DenyCode.MAX_POSITIONS,
            {"positions": "1", "maximum": "1"}, id="slots",
        ),
    ],
)  # fmt: skip
def test_a_refusal_says_what_was_compared(policy, changes, code, context):
    """Each limit has a code of its own, with the numbers."""
    snapshot = make_snapshot(**changes)
    load = portfolio_load(positions={}, in_flight=snapshot.in_flight, heat={})
    counts = EntryCounts.of(snapshot, policy, T0)
    refusal = constraint_refusal("BTC/USDT:USDT", snapshot=snapshot, load=load, policy=policy, now_ms=T0, counts=counts)

    assert refusal is not None
    assert (refusal.code, refusal.context) == (code, context)


@pytest.mark.parametrize("back_ms", [1, DAY_MS, 10 * DAY_MS])
def test_a_clock_set_back_forgets_no_entry(back_ms):
    """Entries that lie ahead of the clock count: limits hold whatever the time does."""
    book = Book()
    book.apply(TradePlanned(plan=plan_of("BTC/USDT:USDT", T0)))
    earlier = T0 - back_ms
    snapshot = make_snapshot(recent=book.recent(earlier), last_entry_ms=dict(book.last_entry_ms))
    load = portfolio_load(positions={}, in_flight={}, heat={})

    for policy, code in (
        (Policy(max_entries_per_hour=1, cooldown_seconds=0), DenyCode.ENTRY_COUNT),
        (Policy(global_cooldown_seconds=1, cooldown_seconds=0), DenyCode.GLOBAL_COOLDOWN),
    ):
        counts = EntryCounts.of(snapshot, policy, earlier)
        refusal = constraint_refusal(
            "SOL/USDT:USDT", snapshot=snapshot, load=load, policy=policy, now_ms=earlier, counts=counts
        )
        assert refusal is not None
        assert refusal.code is code


def test_the_book_keeps_a_day_of_entries_and_the_last_loss():
    """What is older than a day is let go of, a profit is no loss, and a rebuild gives the same."""
    plans = [plan_of("BTC/USDT:USDT", T0 + step) for step in (0, DAY_MS - 1, DAY_MS + 5)]
    events = [event for plan in plans for event in (TradePlanned(plan=plan), closed(plan, plan.planned_at_ms + 1, 3))]
    events.append(closed(plans[1], T0 + DAY_MS, -3))
    book = Book.rebuilt(events)

    assert book.recent(T0 + DAY_MS + 5).entered_ms == {"BTC/USDT:USDT": (T0 + DAY_MS - 1, T0 + DAY_MS + 5)}
    assert book.recent(T0 + DAY_MS + 5).lost_ms == {"BTC/USDT:USDT": T0 + DAY_MS}
    assert book.recent(T0 + 3 * DAY_MS).entered_ms == {}


def test_what_was_counted_is_journaled_and_only_where_it_was():
    """A decision that counted entries is made again from its record; one that did not keeps the text of before."""
    policy = Policy(max_entries_per_hour=3, trading_windows=("mon-sun 00:00-24:00",))
    plain = make_snapshot()
    counted = replace(plain, recent=RecentTrades(entered_ms={"BTC/USDT:USDT": (T0 - 5_000_000,)}))
    events = [CandlesDecided.of(counted, policy, T0, decide(counted, policy, T0))]
    events.append(CandlesDecided.of(plain, Policy(), T0, decide(plain, Policy(), T0)))
    entries = [chained(one, seq=1, timestamp_ms=T0, trace_id="t", previous=GENESIS) for one in events]

    assert [event_of(one) for one in entries] == events
    assert replay_decisions(entries) == (2, [])
    assert b"recent" not in event_data(events[1])
    assert b"trading_windows" not in event_data(events[1])
    assert b"max_weekly_drawdown" not in event_data(events[1])


@given(policies(), st.sets(st.sampled_from(NAMES), min_size=1), st.integers(0, DAY_MS))
def test_a_story_names_every_constraint_up_to_the_one_that_refused(policy, symbols, ago_ms):
    """What is told of a decision ends with its refusal, and no guard stands there that the policy does not have."""
    snapshot = make_snapshot(
        tuple(make_candidate(symbol) for symbol in sorted(symbols)),
        recent=RecentTrades(entered_ms={NAMES[0]: (T0 - ago_ms,)}, lost_ms={NAMES[0]: T0 - ago_ms}),
        last_entry_ms={NAMES[0]: T0 - ago_ms},
    )
    event = CandlesDecided.of(snapshot, policy, T0, decide(snapshot, policy, T0))

    for one in (*event.approved, *event.denied):
        told = [guard.name for guard in guards_of(event, one)]
        assert ("OUTSIDE_TRADING_WINDOW" in told) is bool(policy.trading_windows)
        if isinstance(one, Denied):
            assert told[-1] == one.code.value
            assert "CONFIDENCE_BELOW_THRESHOLD" in told
        else:
            assert ("SYMBOL_NOT_ALLOWED" in told) is bool(policy.denied_symbols)
            assert ("LOSS_COOLDOWN" in told) is bool(policy.loss_cooldown_seconds)
