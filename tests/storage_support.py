"""Journals that were really traded, in virtual time, and what databases hold of them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import psycopg
from sqlalchemy import select

from inference.decision import decide
from inference.domain.events import AccountMarked, CandlesDecided, Noted
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason
from inference.execution.funding import FundingPayment, funding_event
from inference.journal.codec import Entry, line_of
from inference.storage import schema
from inference.storage.database import Database
from inference.storage.projector import Projector
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, abandon_everything, make_executor
from tests.worker_values import make_approved, make_candidate, make_snapshot

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT")
FAULTS = ["", "", "", "drop", "exec_then_drop", "late", "down", "partial"]
HOURS_MS = 3_600_000
POLICIES = {leverage: Policy(leverage=leverage) for leverage in (2, 3)}


@cache
def traded(seed: int, steps: int = 12) -> tuple[Entry, ...]:
    """Return the journal of a worker that traded two symbols while its venue misbehaved, hours apart each time."""
    return tuple(asyncio.run(_Trading(seed).run(steps)))


class _Trading:
    """One worker's life; what happens is drawn."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.clock = FakeClock()
        self.gateway = FakeGateway(self.clock, marks=dict.fromkeys(SYMBOLS, Decimal(50_000)))
        self.journal = MemoryJournal()
        self.executor = make_executor(self.gateway, self.journal)
        self.marks: AccountMarked | None = None

    async def run(self, steps: int) -> Sequence[Entry]:
        self.note("health.started", {"mode": "sandbox", "venue": "sandbox"})
        self.note("model.verdict", {"version": "1", "digest": "d" * 64, "verdict": "passed", "mode": "sandbox"})
        self.note("model.loaded", {"version": "1", "digest": "d" * 64, "horizon": "12", "source": "registry"})
        seed = {"version": "1", "fingerprint": POLICIES[2].fingerprint, "author": "ada", "reason": "first"}
        self.note("policy.loaded", seed)
        running = asyncio.ensure_future(self.executor.run())
        await self.clock.drive(self.executor.start())
        for number in range(steps):
            await self.step(number)
        trained = {"trained_at": "2026-01-02T03:04:05+00:00", "params": '{"mode": "voting"}'}
        self.note("model.loaded", {"version": "2", "digest": "e" * 64, "horizon": "12", "source": "registry"} | trained)
        await self.clock.drive(self.executor.reconcile())
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
        await abandon_everything()
        return self.journal.entries

    async def step(self, number: int) -> None:
        self.learn(number)
        symbol = self.chance.choice(SYMBOLS)
        self.decide(symbol)
        self.gateway.faults = [self.chance.choice(FAULTS) for _ in range(3)]
        mark = self.gateway.marks[symbol]
        direction = self.chance.choice([Direction.LONG, Direction.SHORT])
        sign = 1 if direction is Direction.LONG else -1
        approved = make_approved(
            symbol,
            direction=direction,
            trace_id=f"trace-{number}",
            reference_price=mark,
            stop_price=mark - sign * 300,
            target_price=mark + sign * 400,
        )
        await self.clock.drive(self.executor.enter(approved, candle_close_ms=self.clock.now_ms()))
        self.gateway.faults = []
        self.gateway.move(symbol, mark + 100 * self.chance.randint(-5, 5))
        await self.clock.drive(self.clock.sleep(1))
        if self.chance.random() < 0.2:
            self.gateway.trade_by_hand(symbol, Decimal("0.01") * self.chance.choice([1, -1]))
        if self.chance.random() < 0.6:
            await self.clock.drive(self.executor.request_exit(symbol, ExitReason.TIME_BARRIER), limit_seconds=3000)
        payment = FundingPayment(
            transaction_id=str(number // 2),
            symbol=symbol,
            amount=Decimal(self.chance.randint(-999, 999)) / 10_000_000,
            event_time_ms=self.clock.now_ms(),
        )
        self.record(funding_event(payment))
        # Hours pass, so that trades fall on several days.
        self.clock._start_ms += self.chance.randint(1, 9) * HOURS_MS

    def learn(self, number: int) -> None:
        """Note what flows and persons say beside the trading: a job, a check of drift, a version, a stop's end."""
        statuses = ("queued", "running", "failed", "resumed", "succeeded")
        job = f"retrain_20260101_00000{number // len(statuses)}"
        at = datetime.fromtimestamp(self.clock.now_ms() / 1000, tz=UTC).isoformat(timespec="milliseconds")
        self.note(
            "model.retraining_changed",
            {"job_id": job, "type": "full", "status": statuses[number % 5], "trigger": "drift", "told_at": at,
             "models": "xgboost,nhits", "metrics": '{"cpu_seconds":1.5}', "queued_at": at, "resumes": "0"},
        )  # fmt: skip
        if number % 4 == 1:
            figures = '[["inputs","","score",1.5,2.25,"judged"],["inputs","rsi_14","psi",0.1,null,"judged"]]'
            self.note(
                "model.drift_checked",
                {"version": "1", "role": "champion", "verdict": "stable", "hours": "24", "window_ended_at": at,
                 "figures": figures},
            )  # fmt: skip
        if number % 5 == 2:
            made = {"version": str(number), "fingerprint": POLICIES[3].fingerprint, "author": "bob", "reason": "more"}
            self.note("policy.updated", made | ({"superseded_by": "9"} if number > 5 else {}))
        if number % 6 == 3:
            self.note("risk.emergency_reset", {"stops": f"k{number}", "reason": "over", "by": "ada"})

    def decide(self, symbol: str) -> None:
        now_ms = self.clock.now_ms()
        equity = Decimal(10_000) + Decimal(self.chance.randint(-5000, 5000)) / 7
        peak = max(equity, self.marks.peak_equity if self.marks else equity)
        self.marks = AccountMarked(equity=equity, day_start_equity=Decimal(10_000), peak_equity=peak)
        self.record(self.marks)
        book = self.executor.book
        snapshot = make_snapshot(
            (make_candidate(symbol, probability=self.chance.choice([0.55, 0.8])),),
            positions=book.positions(),
            in_flight=book.in_flight(),
            heat=book.heat(),
        )
        policy = POLICIES[self.chance.choice([2, 3])]
        self.record(CandlesDecided.of(snapshot, policy, now_ms, decide(snapshot, policy, now_ms)))

    def note(self, kind: str, detail: dict[str, str]) -> None:
        self.record(Noted(event_type=kind, detail=detail))

    def record(self, event: Any) -> None:
        self.journal.record(event, timestamp_ms=self.clock.now_ms())


def write_journal(path: Path, entries: Iterable[Entry]) -> Path:
    """Write entries as a journal's file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"".join(line_of(one) for one in entries))
    return path


def projected(database: Database, journal: Path, *, at_once: int = 2000) -> Database:
    """Bring a database up to a journal."""
    projector = Projector(database, journal, at_once=at_once)
    projector.prepare()
    projector.catch_up()
    return database


def dump(database: Database) -> dict[str, list[dict[str, Any]]]:
    """Return every row of every table, in the order of their keys."""
    with database.reading() as connection:
        return {
            table.name: [
                dict(row) for row in connection.execute(select(table).order_by(*table.primary_key.columns)).mappings()
            ]
            for table in schema.metadata.sorted_tables
        }


def fresh_database(server: str, name: str) -> str:
    """Make an empty database on a PostgreSQL server; return its address."""
    with psycopg.connect(server, autocommit=True) as connection:
        connection.execute(f'DROP DATABASE IF EXISTS "{name}"')
        connection.execute(f'CREATE DATABASE "{name}"')
    return server.rpartition("/")[0] + f"/{name}"
