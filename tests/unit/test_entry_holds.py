"""What a venue says that holds entries back, for how long, and where."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.errors import AccountError
from feature_store.venue.reactions import _BY_CODE, Failure, Family, Reaction, reaction_to
from inference.bootstrap.reporting import hold_statuses
from inference.domain.events import Noted
from inference.domain.order import Purpose
from inference.execution.entry_holds import ACCOUNT, BEGUN, ENDED, REDUCE_ONLY, SYMBOL, EntryHolds
from inference.risk.errors import error_class
from infra.stack.overview import hold_told
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"


@pytest.mark.parametrize(
    ("refusal", "kind", "elsewhere", "seconds"),
    [
        ("AccountError", ACCOUNT, True, 300),
        ("-2015", ACCOUNT, True, 300),
        ("10112", ACCOUNT, True, 300),
        ("-4400", REDUCE_ONLY, True, 600),
        ("-4403", REDUCE_ONLY, True, 600),
        ("-4048", SYMBOL, False, 60),
        ("-4108", SYMBOL, False, 60),
    ],
)
def test_a_refusal_holds_entries_for_its_time(refusal, kind, elsewhere, seconds):
    """The account everywhere, a symbol only itself; and each ends by itself."""
    holds = EntryHolds()

    assert holds.note(BTC, refusal, 100.0) == kind
    assert holds.blocks(BTC, 100.0 + seconds - 1)
    assert holds.blocks(ETH, 100.0 + seconds - 1) is elsewhere
    assert not holds.blocks(BTC, 100.0 + seconds)
    assert holds.standing(100.0 + seconds) == {}


def test_every_code_of_the_account_holds_the_account():
    """Whatever the venue's number: where the reaction is to stop and tell a person, entries stop."""
    holding = {code for code in _BY_CODE if reaction_to(Failure(family=Family.REFUSAL, code=code)) is Reaction.ACCOUNT}
    held = {code: EntryHolds().note(BTC, str(code), 0.0) for code in holding}

    assert {-1005, -1011, -1099, -2015, -2017, -4056, -4057, -4109, -4192, 10_100, 10_112} <= holding
    assert set(held.values()) == {ACCOUNT}
    assert all(error_class(str(code)) is None for code in holding)
    assert {EntryHolds().note(BTC, str(code), 0.0) for code in range(-4403, -4399)} == {REDUCE_ONLY}


@pytest.mark.parametrize(
    ("code", "because", "what"),
    [
        (-4192, "-4192", ACCOUNT),
        (10_100, "10100", ACCOUNT),
        # Of much else too; of a firewall, without a number; of an authentication that no table knows.
        (10_001, "AccountError", ACCOUNT),
        (None, "AccountError", ACCOUNT),
        (-77, "AccountError", ACCOUNT),
        (-4401, "-4401", REDUCE_ONLY),
    ],
)
async def test_an_account_that_is_refused_is_held_whatever_the_number(code, because, what):
    """One entry is refused, in one symbol: no other is sent, in any."""
    clock = FakeClock()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    executor = make_executor(gateway, MemoryJournal())
    await clock.drive(executor.start())
    asked = []

    async def refuse(intent):
        asked.append(intent.symbol)
        raise AccountError("the venue refuses this key", code=code)

    gateway.submit = refuse
    for symbol in (BTC, ETH, BTC):
        assert not await clock.drive(executor.enter(make_approved(symbol), candle_close_ms=clock.now_ms()))

    assert asked == [BTC]
    assert [(one.what, one.because) for one in executor.entries_held] == [(what, because)]


@pytest.mark.parametrize(
    "refusal", ["-2019", "-4131", "-1111", "10001", "NOTHING_HAPPENED", "NOT_SENT", "ABSENT", "", "nonsense"]
)
def test_a_refusal_of_one_order_holds_nothing(refusal):
    """What was wrong with the order or only happened once leaves the next entry free."""
    holds = EntryHolds()

    assert holds.note(BTC, refusal, 100.0) is None
    assert not holds.blocks(BTC, 100.0)


@given(st.lists(st.tuples(st.sampled_from([BTC, ETH]), st.sampled_from(["-2015", "-4400", "-4108", "-1"]),
                          st.floats(0, 1_000)), max_size=20))  # fmt: skip
def test_a_later_refusal_never_shortens_a_hold(refusals):
    """Whatever comes in whatever order, what was held at a time is still held after one more refusal."""
    holds = EntryHolds()
    for symbol, refusal, now in refusals:
        held = [one for one in (BTC, ETH) if holds.blocks(one, now)]
        holds.note(symbol, refusal, now)
        assert all(holds.blocks(one, now) for one in held)


@given(st.lists(st.tuples(st.sampled_from([BTC, ETH]), st.sampled_from(["-2015", "-4400", "-4108", "-1"]),
                          st.floats(0, 400), st.booleans()), max_size=30))  # fmt: skip
def test_each_hold_begins_and_ends_once_in_the_journal(refusals):
    """However seldom the journal is brought up to date, it alternates for each hold, and agrees with what stands."""
    holds, now, open_now = EntryHolds(), 0.0, set()
    for symbol, refusal, pause, looks in [*refusals, (BTC, "-1", 1_000.0, True)]:
        holds.note(symbol, refusal, now)
        now += pause
        for event in holds.news(now) if looks else ():
            what = event.detail["what"]
            assert (what in open_now) is (event.event_type == ENDED)
            open_now ^= {what}
        if looks:
            assert open_now == set(holds.standing(now))
            assert holds.news(now) == []

    assert open_now == set()


async def test_a_hold_is_journaled_and_shown_and_ends():
    """The journal holds its beginning and its end, the status what stands, and protection is none of its business."""
    clock, journal = FakeClock(), MemoryJournal()
    gateway = FakeGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    assert await clock.drive(executor.enter(make_approved(BTC), candle_close_ms=clock.now_ms()))
    gateway.refusals[Purpose.ENTRY] = [-2015]
    assert not await clock.drive(executor.enter(make_approved(ETH), candle_close_ms=clock.now_ms()))
    shown = hold_statuses(executor)
    running = asyncio.ensure_future(executor.run())
    await clock.drive(clock.sleep(250))
    assert [one.what for one in hold_statuses(executor)] == [ACCOUNT]
    await clock.drive(clock.sleep(60))

    told = [one for one in journal.events() if isinstance(one, Noted)]
    assert [one.event_type for one in told] == [BEGUN, ENDED]
    assert told[0].detail == {"what": ACCOUNT, "because": "-2015", "seconds": "300"}
    assert told[1].detail == {"what": ACCOUNT, "held_seconds": "300"}
    assert [(one.what, one.because) for one in shown] == [(ACCOUNT, "-2015")]
    assert 299 < shown[0].seconds_left <= 300
    assert hold_statuses(executor) == ()
    assert gateway.unprotected() == []
    await clock.drive(executor.stop())
    await clock.drive(running)


@pytest.mark.parametrize(
    ("what", "where"),
    [
        (ACCOUNT, "in all symbols for 280 s"),
        (REDUCE_ONLY, "in all symbols, the account may only reduce for 280 s"),
        (BTC, f"in {BTC} for 280 s"),
    ],
)
def test_what_is_held_is_said_where_a_person_looks(what, where):
    """`qtctl status` says where nothing is entered, for how long, and what the venue said."""
    told = hold_told({"what": what, "because": "-2015", "seconds_left": 279.6})

    assert told == f"entries: HELD {where} more, the venue said -2015"
