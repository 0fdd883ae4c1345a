"""The constraints of the chain: at and beside each boundary, in their order, with the numbers they compared."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest
from msgspec import UNSET

from inference.domain.decision import DenyCode, RecentTrades
from inference.domain.policy import Policy
from inference.domain.position import Position
from inference.domain.risk import RiskView
from inference.domain.signal import Direction
from inference.portfolio.exposure import PortfolioLoad, portfolio_load
from inference.risk.constraints import EntryCounts, constraint_refusal, count_refusal
from tests.worker_values import T0, make_snapshot

BTC, ETH, SOL = (f"{name}/USDT:USDT" for name in ("BTC", "ETH", "SOL"))
LONG, SHORT, FLAT = Direction
STEP = 300_000
VIEW = RiskView(clusters={BTC: BTC, ETH: ETH, SOL: SOL}, betas={BTC: 1.0, ETH: 1.0, SOL: 1.0})
D = Decimal


def constrained(policy, *, positions=None, in_flight=None, **changes):
    snapshot = make_snapshot(positions=positions or {}, in_flight=in_flight or {}, **changes)
    load = portfolio_load(positions=snapshot.positions, in_flight=snapshot.in_flight, heat={})
    found = constraint_refusal(
        BTC, snapshot=snapshot, load=load, policy=policy, now_ms=T0, counts=EntryCounts.of(snapshot, policy, T0)
    )
    return found and (found.code, found.context)


def position(symbol, *, at=T0, quantity="2"):
    return Position(
        symbol=symbol, direction=LONG, quantity=D(quantity), entry_price=D(1), entry_time_ms=at, trade_id="t"
    )


def test_a_symbol_that_is_held_or_in_flight_is_not_entered_again():
    """With how much of it is held, and whether more is on its way."""
    code = DenyCode.POSITION_OPEN

    assert constrained(Policy(), positions={BTC: position(BTC)}) == (code, {"quantity": "2", "in_flight": "False"})
    assert constrained(Policy(), in_flight={BTC: D(5)}) == (code, {"quantity": "0", "in_flight": "True"})
    assert constrained(Policy(), positions={ETH: position(ETH)}) is None


def test_days_off_are_told_with_the_hours():
    """Where there are none of either, that is said."""
    code = DenyCode.OUTSIDE_TRADING_WINDOW
    now = "sun 2025-06-15 15:10:00"

    assert constrained(Policy(days_off=("2025-06-15",))) == (
        code, {"now": now, "windows": "any", "days_off": "2025-06-15"}
    )  # fmt: skip
    both = Policy(days_off=("2025-12-25", "2025-12-26"), trading_windows=("mon 08:00-09:00", "tue 08:00-09:00"))
    assert constrained(both) == (
        code, {"now": now, "windows": "mon 08:00-09:00,tue 08:00-09:00", "days_off": "2025-12-25,2025-12-26"}
    )  # fmt: skip


def test_lists_name_symbols_or_their_assets():
    """A denial wins; who is on no list that allows is refused; several denials are told in order."""
    code = DenyCode.SYMBOL_NOT_ALLOWED

    assert constrained(Policy(allowed_symbols=("BTC",))) is None
    assert constrained(Policy(allowed_symbols=(BTC,))) is None
    assert constrained(Policy(denied_symbols=("ETH",))) is None
    assert constrained(Policy(denied_symbols=("ETH",), allowed_symbols=("BTC",))) is None
    assert constrained(Policy(denied_symbols=(BTC, "BTC"), allowed_symbols=("ETH",))) == (
        code, {"symbol": BTC, "denied": f"BTC,{BTC}"}
    )  # fmt: skip
    assert constrained(Policy(denied_symbols=("SOL",), allowed_symbols=("ETH",))) == (
        code, {"symbol": BTC, "allowed": "ETH"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("ago_ms", "policy", "code"),
    [
        (119_999, Policy(), DenyCode.COOLDOWN),
        (120_000, Policy(), None),
        (59_999, Policy(cooldown_seconds=0, global_cooldown_seconds=60), DenyCode.GLOBAL_COOLDOWN),
        (60_000, Policy(cooldown_seconds=0, global_cooldown_seconds=60), None),
        (0, Policy(cooldown_seconds=0), None),
    ],
)
def test_a_cooldown_is_over_to_the_millisecond(ago_ms, policy, code):
    """After just its seconds an entry passes."""
    found = constrained(policy, last_entry_ms={BTC: T0 - ago_ms, ETH: T0 - 10**9})

    assert (found and found[0]) is code


def test_the_last_of_all_entries_counts_for_all():
    """Not the first, nor only the symbol's own."""
    policy = Policy(cooldown_seconds=0, global_cooldown_seconds=60)
    found = constrained(policy, last_entry_ms={BTC: T0 - 10**9, ETH: T0 - 7, SOL: T0 - 10**8})

    assert found == (DenyCode.GLOBAL_COOLDOWN, {"elapsed_ms": "7", "cooldown_ms": "60000"})
    assert constrained(policy) is None


def test_a_loss_that_nobody_knows_of_is_taken_to_be_now():
    """Where losses count and are not known, nothing is entered; where they do not, nobody asks."""
    policy = Policy(loss_cooldown_seconds=60)

    assert constrained(policy) == (DenyCode.LOSS_COOLDOWN, {"elapsed_ms": "0", "cooldown_ms": "60000"})
    assert constrained(Policy(loss_cooldown_seconds=1))[1]["cooldown_ms"] == "1000"
    assert constrained(Policy(global_cooldown_seconds=1), last_entry_ms={ETH: T0 - 999})[1]["elapsed_ms"] == "999"
    assert constrained(Policy()) is None


def test_what_a_pass_approved_counts_at_once():
    """Of all together, not of what was in flight before; a symbol's own count is of what was entered."""
    snapshot = make_snapshot(in_flight={ETH: D(5)}, recent=UNSET)
    before = portfolio_load(positions={}, in_flight=snapshot.in_flight, heat={})
    after = before.with_entry(SOL, notional=D(1), risk=D(1))
    policy = Policy(global_cooldown_seconds=60, cooldown_seconds=0)

    def asked(load: PortfolioLoad):
        found = constraint_refusal(
            BTC, snapshot=snapshot, load=load, policy=policy, now_ms=T0, counts=EntryCounts.of(snapshot, policy, T0)
        )
        return found and (found.code, found.context)

    assert asked(before) is None
    assert asked(after) == (DenyCode.GLOBAL_COOLDOWN, {"elapsed_ms": "0", "cooldown_ms": "60000"})


@pytest.mark.parametrize("ago_ms", [3_600_000, 86_400_000])
def test_an_hour_and_a_day_are_over_to_the_millisecond(ago_ms):
    """An entry of just then counts no more, of a millisecond later it does; each limit says its own time."""
    hour = ago_ms == 3_600_000
    own = Policy(**{"max_symbol_entries_per_hour" if hour else "max_symbol_entries_per_day": 1})
    every = Policy(**{"max_entries_per_hour" if hour else "max_entries_per_day": 2})

    def counted(policy, times, load=None):
        snapshot = make_snapshot(recent=RecentTrades(entered_ms=times))
        load = load or portfolio_load(positions={}, in_flight={}, heat={})
        counts = EntryCounts.of(snapshot, policy, T0)
        found = count_refusal(BTC, snapshot=snapshot, load=load, policy=policy, now_ms=T0, counts=counts)
        return found and (found.code, found.context)

    told = {"entries": "1", "maximum": "1", "period_ms": str(ago_ms)}
    assert counted(own, {BTC: (T0 - ago_ms,)}) is None
    assert counted(own, {BTC: (T0 - ago_ms + 1,)}) == (DenyCode.SYMBOL_ENTRY_COUNT, told)
    assert counted(own, {ETH: (T0,)}) is None
    approved = portfolio_load(positions={}, in_flight={}, heat={}).with_entry(SOL, notional=D(1), risk=D(1))
    assert counted(own, {}, approved) is None
    assert counted(every, {ETH: (T0 - ago_ms,), BTC: (T0,)}) is None
    assert counted(every, {ETH: (T0 - ago_ms + 1,), BTC: (T0,)}) == (
        DenyCode.ENTRY_COUNT, {"entries": "2", "maximum": "2", "period_ms": str(ago_ms)}
    )  # fmt: skip
    assert counted(every, {BTC: (T0,)}, approved)[1]["entries"] == "2"


def test_every_slot_but_one_may_be_taken():
    """The last one is entered, the one beyond it is not."""
    two = {ETH: D(5), SOL: D(5)}

    assert constrained(Policy(max_positions=3), in_flight=two) is None
    assert constrained(Policy(max_positions=2), in_flight=two) == (
        DenyCode.MAX_POSITIONS, {"positions": "2", "maximum": "2"}
    )  # fmt: skip


def test_the_first_constraint_that_is_broken_is_told():
    """The hours before the lists, the lists before what is held, then pauses, counts and slots."""
    policy = Policy(
        days_off=("2025-06-15",), denied_symbols=("BTC",), max_entries_per_hour=0, max_positions=1,
    )  # fmt: skip
    state = {"positions": {BTC: position(BTC), ETH: position(ETH)}, "last_entry_ms": {BTC: T0}}
    heard = [constrained(policy, **state)[0]]
    policy = replace(policy, days_off=())
    heard.append(constrained(policy, **state)[0])
    policy = replace(policy, denied_symbols=())
    heard.append(constrained(policy, **state)[0])
    state["positions"] = {ETH: position(ETH)}
    heard.append(constrained(policy, **state)[0])
    state["last_entry_ms"] = {}
    heard.append(constrained(policy, **state)[0])
    policy = replace(policy, max_entries_per_hour=None)
    heard.append(constrained(policy, **state)[0])

    assert [one.value for one in heard] == [
        "OUTSIDE_TRADING_WINDOW", "SYMBOL_NOT_ALLOWED", "POSITION_OPEN", "COOLDOWN", "ENTRY_COUNT", "MAX_POSITIONS",
    ]  # fmt: skip
