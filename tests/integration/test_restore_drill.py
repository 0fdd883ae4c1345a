"""The drill: a worker is killed with open positions, its home is lost, and the backup of some time ago must do."""

from __future__ import annotations

import asyncio
import shutil
import signal
from contextlib import closing
from datetime import UTC, datetime
from decimal import Decimal

from inference.domain.events import RESTORED, Noted, TradeClosed
from inference.domain.trade import ExitReason
from inference.execution.book import Book
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.journal.verify import verify
from inference.storage.backup import make_backup
from inference.storage.database import open_database
from inference.storage.repositories import Performance
from inference.storage.restore import restore
from tests.integration.test_worker_process import bundle, ended_after, worker
from tests.sandbox_support import running_sandbox
from tests.storage_support import projected
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

__all__ = ["bundle"]
SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT")
NOW = datetime(2026, 11, 30, tzinfo=UTC)


def entered_since(before: dict, status: dict) -> set[str]:
    known = {one["trade_id"] for one in before["positions"]}
    return {one["symbol"] for one in status["positions"] if one["trade_id"] not in known}


async def test_what_happened_since_the_backup_is_found_at_the_venue():
    """
    A trade of the backup goes on, one that closed since has its result, one entered since is ended under its stop.

    At no moment is a position without a stop, no order is sent twice, and none of it halts entries: all of it is ours.
    """
    clock = FakeClock()
    gateway = FakeGateway(clock, marks=dict.fromkeys(SYMBOLS, Decimal(50_000)))
    journal = MemoryJournal()
    executor = make_executor(gateway, journal)
    await clock.drive(executor.start())
    for symbol in SYMBOLS[:2]:
        await clock.drive(executor.enter(make_approved(symbol), candle_close_ms=clock.now_ms()))
    restored = MemoryJournal(entries=list(journal.entries))
    await clock.drive(executor.enter(make_approved(SYMBOLS[2]), candle_close_ms=clock.now_ms()))
    assert set(executor.book.positions()) == set(SYMBOLS)
    gateway.stream = None
    gateway.move(SYMBOLS[1], Decimal(50_500))
    bare: list[list[str]] = []
    gateway.on_moment = lambda: bare.append(gateway.unprotected())

    again = make_executor(gateway, restored, book=Book.rebuilt(restored.events()))
    running = asyncio.ensure_future(again.run())
    await clock.drive(again.start())
    await clock.drive(clock.sleep(5))
    corrected = [event.detail for event in restored.events() if getattr(event, "event_type", "") == "risk.corrected"]
    closed = {event.result.symbol: event.result for event in restored.events() if isinstance(event, TradeClosed)}
    running.cancel()

    assert {symbol: quantity for symbol, quantity in gateway.held.items() if quantity} == {
        SYMBOLS[0]: again.book.positions()[SYMBOLS[0]].quantity
    }
    assert closed[SYMBOLS[1]].reason is ExitReason.TARGET
    assert closed[SYMBOLS[1]].pnl > 0
    assert closed[SYMBOLS[2]].reason is ExitReason.EXTERNAL
    flattened = [one for one in corrected if one["action"] == "position_flattened"]
    assert [one["symbol"] for one in flattened] == [SYMBOLS[2]]
    assert "another journal of ours" in flattened[0]["reason"]
    assert bare
    assert not any(bare)
    assert gateway.duplicates() == []
    assert gateway.unprotected() == []
    assert again.trouble == ""
    assert again.is_reconciled


async def test_what_was_left_and_entered_again_since_is_told_apart():
    """
    The symbol's position is another trade's now: no id is used twice, and each trade has its own result.

    The journal that was put back holds the first trade as open; its exit is in no record, and the venue has it.
    """
    clock = FakeClock()
    gateway = FakeGateway(clock, marks=dict.fromkeys(SYMBOLS, Decimal(50_000)))
    journal = MemoryJournal()
    executor = make_executor(gateway, journal)
    running = asyncio.ensure_future(executor.run())
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(SYMBOLS[0]), candle_close_ms=clock.now_ms()))
    restored = MemoryJournal(entries=list(journal.entries))
    (first,) = executor.book.trades
    await clock.drive(executor.request_exit(SYMBOLS[0], ExitReason.TIME_BARRIER))
    await clock.drive(clock.sleep(3))
    assert executor.book.positions() == {}
    again = make_approved(SYMBOLS[0], trace_id="another")
    await clock.drive(executor.enter(again, candle_close_ms=clock.now_ms()))
    assert gateway.held[SYMBOLS[0]] != 0
    running.cancel()
    gateway.stream = None

    book = Book.rebuilt(restored.events())
    event = Noted(event_type=RESTORED, detail={"backup": "b"})
    book.apply(event)
    after = make_executor(gateway, restored, book=book)
    running = asyncio.ensure_future(after.run())
    await clock.drive(after.start())
    await clock.drive(after.request_exit(SYMBOLS[0], ExitReason.TIME_BARRIER))
    await clock.drive(clock.sleep(20))
    closed = {event.trade_id: event.result for event in restored.events() if isinstance(event, TradeClosed)}
    running.cancel()

    assert gateway.duplicates() == []
    # What it came to is known, and why it was left stands in the journal that was lost.
    assert (closed[first].reason, closed[first].exit_price) == (ExitReason.EXTERNAL, 50_000)
    assert closed[first].fills_complete
    assert gateway.unprotected() == []
    assert not any(gateway.held.values())
    assert (after.trouble, after.is_reconciled) == ("", True)


async def test_a_lost_home_comes_back_from_an_older_backup(tmp_path, bundle):
    """
    Nothing is doubled, left without a stop, or lost, and trading goes on.

    What was open at the backup is found again, or found closed with its result. What was entered since is held by no
    journal: it is ended under the stop that it has, and is in the journal with that reason.
    """
    home = tmp_path / "home"
    async with running_sandbox(symbols=5, speed=60, seed=11, state=tmp_path / "s") as sandbox:
        async with worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
            before = await running.until(lambda one: len(one["positions"]) >= 2)
            made = await asyncio.to_thread(make_backup, home, to=tmp_path / "backups", now=NOW, program="test")
            since = await running.until(lambda one: entered_since(before, one))
            await running.end(signal.SIGKILL)
        shutil.rmtree(home)
        await asyncio.to_thread(restore, made.folder, home)
        async with worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
            await running.until(lambda one: one["batches_processed"] >= 3 and one["state"] == "trading")
            status = running.status
            assert await running.end(signal.SIGTERM) == 0
            positions = running.status["positions"]
        audit = await sandbox.get("/sandbox/audit")

    new = entered_since(before, since)
    journal = home / "journal" / "journal.jsonl"
    events = [event_of(entry) for entry in read_entries(journal)]
    corrected = [event.detail for event in events if isinstance(event, Noted) and event.event_type == "risk.corrected"]
    ended = {one["symbol"] for one in corrected if one["action"] == "position_flattened"}
    later = ended_after(running, audit)
    held = later | {one["symbol"]: abs(float(one["quantity"])) for one in audit["open_positions"]}
    known = {one["symbol"].replace("/", "").removesuffix(":USDT"): float(one["quantity"]) for one in positions}

    assert audit["duplicate_client_ids"] == []
    assert all(one["protected"] for one in audit["open_positions"])
    assert held == known
    assert status["trading_state"] == "ACTIVE"
    # By the time it looked, an exit of the life before may have ended some of them.
    assert ended <= new
    flattened = [one for one in corrected if one["action"] == "position_flattened"]
    assert all("another journal of ours" in one["reason"] for one in flattened)
    assert (
        verify(journal, journal.with_suffix(".head")).entries > made.manifest.journals["journal/journal.jsonl"].entries
    )
    with closing(open_database(None, tmp_path / "tables")) as database:
        projected(database, journal)
        with database.reading() as connection:
            sums = Performance(connection).sums()
    assert sums.trades >= len(ended)
