"""The emergency stop at work on a venue in memory, with every input in reach."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path

from feature_store.venue.errors import VenueDownError
from inference.domain.events import AccountMarked, Noted
from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.risk.emergency import ACTIONS, Evaluator
from inference.risk.errors import ErrorCounts
from inference.supervision.account_marks import marked
from inference.supervision.emergency_latch import Latch, StopOrder
from inference.supervision.emergency_record import EmergencyRecord
from inference.supervision.emergency_watch import EmergencyParts, EmergencyWatch
from inference.supervision.standing import Standing
from inference.supervision.venue_answers import VenueAnswers
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import T0, make_approved

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
AT = "2026-11-30T09:00:00.000+00:00"


@dataclass
class Scene:
    """A venue in memory, an executor on it, and the emergency stop above both, with every input in reach."""

    home: Path
    record: EmergencyRecord = field(default_factory=EmergencyRecord)
    clock: FakeClock = field(default_factory=FakeClock)
    equity: Decimal | None = Decimal(10_000)
    quotes_fail: bool = False
    health: HealthLevel | None = HealthLevel.HEALTHY
    errors: ErrorCounts | None = field(default_factory=ErrorCounts)
    due_ms: int | None = T0 + 300_000
    noted: list[Noted] = field(default_factory=list)
    forgotten: int = 0
    kept: list[AccountMarked] = field(default_factory=list)
    traded: dict[str, Decimal] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Put everything together; nothing has been looked at yet."""
        self.gateway = FakeGateway(self.clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
        self.executor = make_executor(self.gateway, MemoryJournal())
        self.standing = Standing()
        self.latch = Latch(self.home)
        self.answers = VenueAnswers(
            equity=self._equity, quotes=self._quotes, know=dict, standing=self.standing, record=self.kept.append,
            now_ms=self.clock.now_ms, last_mark=(None, 0),
        )  # fmt: skip
        self.watch = self.watching()

    def watching(self) -> EmergencyWatch:
        """Return an emergency stop that knows what the record says."""
        return EmergencyWatch(
            self.latch,
            self.record,
            EmergencyParts(
                executor=self.executor, standing=self.standing, policy=Policy, equity=self._equity,
                marks=self.answers.seen, rebase=self.answers.rebase, quotes=self._quotes, traded=self.traded.get,
                health=lambda: self.health,
                errors=lambda: self.errors, forget_errors=self._forget, next_close_ms=lambda: self.due_ms,
                record=self._note, now_ms=self.clock.now_ms, monotonic=self.clock.monotonic, wall=lambda: AT,
            ),
        )  # fmt: skip

    def told(self, kind: str) -> list[Noted]:
        """Return what was journaled of one kind."""
        return [one for one in self.noted if one.event_type == kind]

    async def looks(self, times: int = 3) -> None:
        """Look several times, a moment apart, and let what was begun go on."""

        async def look() -> None:
            for _ in range(times):
                self.watch.look()
                await self.clock.sleep(0.2)

        await self.clock.drive(look())

    async def enters(self, symbol: str = BTC) -> bool:
        """Ask for a position."""
        wanted = make_approved(symbol, trace_id=f"{symbol}-{self.clock.seconds}")
        opened: bool = await self.clock.drive(self.executor.enter(wanted, candle_close_ms=self.clock.now_ms()))
        return opened

    def mark(self, equity: Decimal) -> None:
        """Let the last candle have seen so much, and day, week and peak begin with it."""
        now_ms = self.clock.now_ms()
        self.answers.account = marked(None, 0, equity=equity, now_ms=now_ms)
        self.answers._account_at_ms = now_ms

    async def _equity(self) -> Decimal:
        if self.equity is None:
            raise VenueDownError("no answer")
        return self.equity

    async def _quotes(self) -> dict[str, Quote]:
        if self.quotes_fail:
            raise VenueDownError("no answer")
        return {
            name: Quote(symbol=name, bid=mark, ask=mark, event_time_ms=T0) for name, mark in self.gateway.marks.items()
        }

    def _forget(self) -> None:
        self.forgotten += 1
        self.errors = ErrorCounts()

    def _note(self, event: Noted) -> None:
        self.noted.append(event)


def by_hand(actions=ACTIONS[Evaluator.MANUAL], key="1-stop"):
    return StopOrder(key=key, evaluator=Evaluator.MANUAL, reason="drill", actions=actions, at=AT, by="ada")
