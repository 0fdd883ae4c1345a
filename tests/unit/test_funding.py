"""Funding is journaled and counted once for each payment, whatever is read again, late or after a restart."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.errors import RetryableError
from inference.bootstrap.past import Past
from inference.domain.errors import JournalError
from inference.domain.events import Noted
from inference.exchange.ccxt_mapping import MalformedReportError, is_of_funding
from inference.exchange.paging import PAGE, all_funding
from inference.execution.book import Book
from inference.execution.funding import (
    FUNDING_PAID,
    OVERLAP_MS,
    FundingAccount,
    FundingPayment,
    funding_event,
    funding_payment,
)
from inference.journal.codec import line_of
from inference.supervision.funding_watch import FundingWatch
from inference.telemetry.audit_commands import trades
from infra.stack.overview import result_told
from tests.unit.test_soak_proof import EVENTS, SYMBOL
from tests.worker_support import FakeClock, MemoryJournal

D = Decimal
HOUR_MS = 3_600_000
BEGAN_MS = 1_000 * HOUR_MS
QUARTER = D("-0.25")

amounts = st.decimals(min_value=-(10**6), max_value=10**6, places=8)


def payment(number: int, amount: Decimal = QUARTER, time_ms: int | None = None) -> FundingPayment:
    """Return a payment of an hour after the one before."""
    at = BEGAN_MS + number * HOUR_MS if time_ms is None else time_ms
    return FundingPayment(transaction_id=str(number), symbol=SYMBOL, amount=amount, event_time_ms=at)


class Desk:
    """A worker's journal and its watch over a venue's list of payments, through any number of lives."""

    def __init__(self) -> None:
        self.journal = MemoryJournal()
        self.listed: list[FundingPayment] = []
        self.asked: list[int] = []
        self.fails = False
        self.begin()

    def begin(self) -> None:
        """Begin another life: what it knows is in the journal."""
        past = Past(Book())
        for entry in self.journal.entries:
            past.visit(entry)
        self.account = past.funding
        began = BEGAN_MS if past.began_ms is None else past.began_ms
        self.watch = FundingWatch(past.funding, read=self.read, note=self.note, began_ms=began)

    async def read(self, since_ms: int) -> list[FundingPayment]:
        """Return what the venue lists, or fail."""
        self.asked.append(since_ms)
        if self.fails:
            raise RetryableError("no answer")
        return [one for one in self.listed if one.event_time_ms >= since_ms]

    def note(self, event_type: str, detail: object) -> None:
        """Write an entry."""
        self.journal.record(Noted(event_type=event_type, detail=detail), timestamp_ms=BEGAN_MS)

    def journaled(self) -> list[FundingPayment]:
        """Return what the journal holds."""
        return [one for one in map(funding_payment, self.journal.events()) if one is not None]


@given(st.integers(0, 10**12), amounts, st.integers(0, 10**13))
def test_the_journal_gives_back_what_was_paid(number, amount, time_ms):
    """To the last digit, whatever its size."""
    paid = payment(number, amount, time_ms)

    assert funding_payment(funding_event(paid)) == paid


@pytest.mark.parametrize(
    "changes",
    [{"amount": "much"}, {"amount": ""}, {"event_time_ms": "now"}, {"transaction_id": None}, {"symbol": None}],
)
def test_an_entry_that_is_none_is_refused(changes):
    """It names what was found; other events hold no payment."""
    detail = {**funding_event(payment(1)).detail, **changes}
    event = Noted(event_type=FUNDING_PAID, detail={name: value for name, value in detail.items() if value is not None})

    with pytest.raises(JournalError, match="funding payment"):
        funding_payment(event)
    assert funding_payment(Noted(event_type="health.started", detail={})) is None
    assert funding_payment(EVENTS[0]) is None


@given(
    st.lists(amounts, max_size=60),
    st.lists(st.tuples(st.sampled_from(["list", "look", "restart", "fail"]), st.integers(0, 30)), max_size=40),
)
def test_every_payment_is_counted_once(paid, steps):
    """Listed late and out of order by hours, read again, through failures and restarts: the sum is exact."""
    desk, waiting = Desk(), [payment(number, amount) for number, amount in enumerate(paid)]

    async def live() -> None:
        for what, which in [*steps, *[("list", 0)] * len(waiting), ("look", 0)]:
            desk.fails = what == "fail"
            if what == "list" and waiting:
                # Not always the oldest: by up to half a day later than its successors.
                desk.listed.append(waiting.pop(min(which, 11, len(waiting) - 1)))
                await desk.watch.look()
            elif what == "restart":
                desk.begin()
            else:
                with pytest.raises(RetryableError) if desk.fails else nullcontext():
                    await desk.watch.look()

    asyncio.run(live())
    assert sorted(desk.journaled(), key=lambda one: int(one.transaction_id)) == [
        payment(number, amount) for number, amount in enumerate(paid)
    ]
    assert desk.account.total == sum(paid, D(0))
    desk.begin()
    assert (desk.account.total, desk.account.payments) == (sum(paid, D(0)), len(paid))


async def test_what_was_paid_before_this_account_was_traded_is_none_of_ours():
    """The first life reads from its own beginning, a later one from a day before the newest payment."""
    desk = Desk()
    desk.listed = [payment(0, D(7), BEGAN_MS - 1), payment(1), payment(100)]
    assert await desk.watch.look() == 2
    desk.begin()
    assert await desk.watch.look() == 0

    assert desk.asked == [BEGAN_MS, BEGAN_MS + 100 * HOUR_MS - OVERLAP_MS]
    assert desk.watch.total == D("-0.50")


@pytest.mark.parametrize(
    ("place", "at_ms"),
    [(("binanceusdm", "live"), BEGAN_MS + 2 * HOUR_MS), (("sandbox", "sandbox"), BEGAN_MS - 96 * HOUR_MS)],
    ids=["another venue", "time set back"],
)
async def test_another_venue_or_time_has_payments_of_its_own(place, at_ms):
    """The numbers and dates of earlier lives elsewhere keep none of them out, and what was received stays counted."""
    past = Past(Book())
    journal = MemoryJournal()
    journal.record(started("sandbox", "sandbox"), timestamp_ms=BEGAN_MS)
    journal.record(funding_event(payment(1)), timestamp_ms=BEGAN_MS + HOUR_MS)
    for entry in journal.entries:
        past.visit(entry)
    fresh = payment(1, D("0.5"), at_ms + HOUR_MS)

    async def read(since_ms: int) -> list[FundingPayment]:
        assert since_ms <= fresh.event_time_ms
        return [fresh]

    began_ms = past.funding_since(place, at_ms)
    watch = FundingWatch(past.funding, read=read, note=lambda *_: None, began_ms=began_ms)
    assert began_ms == at_ms
    assert await watch.look() == 1
    assert watch.total == QUARTER + fresh.amount


def test_the_same_place_goes_on():
    """A restart of the same worker keeps what it has counted."""
    past = Past(Book())
    journal = MemoryJournal()
    journal.record(started("sandbox", "sandbox"), timestamp_ms=BEGAN_MS)
    journal.record(funding_event(payment(1)), timestamp_ms=BEGAN_MS + HOUR_MS)
    for entry in journal.entries:
        past.visit(entry)
    assert past.funding_since(("sandbox", "sandbox"), BEGAN_MS + HOUR_MS) == BEGAN_MS
    assert not past.funding.count(payment(1))


async def test_a_watch_that_is_told_to_end_ends():
    """Whenever the cancellation comes after it was woken: one that it swallowed would keep the worker from ending."""
    for turns in range(8):
        watch = FundingWatch(FundingAccount(), read=nothing, note=lambda *_: None, began_ms=0, sleep=forever)
        running = asyncio.create_task(watch.run())
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        watch.wake()
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        async with asyncio.timeout(1):
            await asyncio.gather(running, return_exceptions=True)
        assert running.cancelled()


async def test_a_page_of_other_assets_hides_none_of_ours():
    """What an account holds beside is read past: the page after it is asked for."""
    others = [row(number, BEGAN_MS + number, asset="USDC") for number in range(PAGE)]
    ours = [row(PAGE + number, BEGAN_MS + PAGE + number) for number in range(5)]

    async def read(query: dict) -> list[dict]:
        found = [one for one in others + ours if query["startTime"] <= one["time"] <= query["endTime"]]
        return found[:PAGE]

    found = await all_funding(read, lambda _: SYMBOL, asset="USDT", since_ms=BEGAN_MS, now_ms=BEGAN_MS + HOUR_MS)
    assert [one.transaction_id for one in found] == [one["tranId"] for one in ours]


def started(venue: str, mode: str) -> Noted:
    """Return what a worker writes when it starts."""
    return Noted(event_type="health.started", detail={"venue": venue, "mode": mode})


def row(number: int, time_ms: int, *, asset: str = "USDT") -> dict[str, object]:
    """Return a row of the venue's list."""
    return {"tranId": str(number), "symbol": "BTCUSDT", "income": "0.1", "asset": asset, "time": time_ms}


async def nothing(_since_ms: int) -> list[FundingPayment]:
    """Read an empty list."""
    return []


async def forever(_seconds: float) -> None:
    """Sleep until cancelled."""
    await asyncio.Event().wait()


def test_what_is_remembered_is_bounded():
    """A year of hourly payments leaves the numbers of two days."""
    account = FundingAccount()
    for number in range(24 * 365):
        assert account.count(payment(number))
    assert not account.count(payment(24 * 365 - 30))

    assert account.payments == 24 * 365
    assert len(account._counted) <= 50


async def test_it_reads_when_told_and_tries_again_where_nothing_came():
    """Told of a payment it reads a second later, after a failure again within seconds, and else every five minutes."""
    desk, clock = Desk(), FakeClock()
    desk.watch = FundingWatch(desk.account, read=desk.read, note=desk.note, began_ms=BEGAN_MS, sleep=clock.sleep)
    running = asyncio.ensure_future(desk.watch.run())
    await clock.drive(clock.sleep(1_000), limit_seconds=2_000)
    assert len(desk.asked) == 4
    desk.watch.wake()
    began = clock.seconds
    while len(desk.asked) == 4:
        await clock.drive(clock.sleep(0.1))
    assert clock.seconds - began <= 1.5
    # The list did not show it yet.
    desk.listed, desk.fails = [payment(1)], True
    while len(desk.asked) == 5:
        await clock.drive(clock.sleep(0.1))
    desk.fails = False
    await clock.drive(clock.sleep(20))
    running.cancel()

    assert desk.watch.total == D("-0.25")
    assert clock.seconds - began <= 60


@given(st.lists(st.integers(0, 20 * 86_400_000), max_size=12), st.integers(1, 3))
def test_pages_and_windows_leave_no_payment_out(times, crowd):
    """However payments lie in time, and where more than a page lies in one window, each is found once."""
    rows = [
        {"tranId": place, "time": BEGAN_MS + at, "symbol": "BTCUSDT", "asset": "USDT", "income": "0.1"}
        for place, at in enumerate(sorted(one + n for one in times for n in range(crowd * 300)))
    ]
    strange = {"tranId": -1, "time": BEGAN_MS, "symbol": "BTCUSDC", "asset": "USDC", "income": "5"}

    async def read(query: dict) -> list[dict]:
        assert query["endTime"] - query["startTime"] < 7 * 86_400_000
        found = [one for one in (strange, *rows) if query["startTime"] <= one["time"] <= query["endTime"]]
        return found[: query["limit"]]

    now_ms = BEGAN_MS + 21 * 86_400_000
    found = asyncio.run(all_funding(read, lambda _: SYMBOL, asset="USDT", since_ms=BEGAN_MS, now_ms=now_ms))

    assert [int(one.transaction_id) for one in sorted(found, key=lambda one: int(one.transaction_id))] == list(
        range(len(rows))
    )
    assert PAGE == 1000


@pytest.mark.parametrize(
    "answer",
    ["<html>", {"code": -1}, [7], [{"asset": "USDT", "tranId": 1, "time": 1}], [{"asset": "USDT", "income": 0.1}]],
)
async def test_an_answer_that_is_none_is_no_payment(answer):
    """What cannot be read is said to be so; a float has lost the venue's digits."""

    async def read(query: dict) -> object:
        return answer

    with pytest.raises(MalformedReportError):
        await all_funding(read, str, asset="USDT", since_ms=0, now_ms=1)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ({"a": {"m": "FUNDING_FEE", "B": []}}, True),
        ({"a": {"m": "ORDER"}}, False),
        ({"a": None}, False),
        ({}, False),
    ],
)
def test_the_stream_tells_of_funding(message, told):
    """Only an account event that says so is one."""
    assert is_of_funding(message) is told


def test_the_sum_is_told_where_profit_and_loss_is(tmp_path, capsys):
    """`qtctl status` and `qtctl audit trades` count it in, and say nothing before any money moved."""
    desk = Desk()
    for event in EVENTS:
        desk.journal.record(event, timestamp_ms=BEGAN_MS)
    (tmp_path / "journal.jsonl").write_bytes(b"".join(map(line_of, desk.journal.entries)))

    assert trades(tmp_path / "journal.jsonl", as_json=False) == 0
    assert "Funding -1.5000, so 18.3000 in all" in capsys.readouterr().out
    assert trades(tmp_path / "journal.jsonl", as_json=True) == 0
    assert '"funding": "-1.5"' in capsys.readouterr().out
    told = result_told({"closed_trades": 1, "realized_pnl": "19.8", "fees": "0.2", "funding": "-1.5"})
    assert told == "result: 18.3000 = 1 trades, profit and loss 19.8000 after fees of 0.2000, and funding -1.5000"
    assert result_told({"closed_trades": 0, "realized_pnl": "0", "fees": "0"}) == ""
