"""The executing half of a worker in a proof's own process: the real executor and gateway on a real exchange."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any, cast

from feature_store.clock import monotonic
from feature_store.venue.budget import LIMITS, RateBudget
from feature_store.venue.errors import VenueError
from feature_store.venue.factory import create_exchange
from inference.domain.decision import Approved
from inference.domain.events import Event
from inference.domain.order import OrderIntent
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction, SignalScore
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.transport import govern
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.ports import Gateway, Recorder
from inference.execution.submission import ExecutionSettings
from inference.journal.codec import event_of
from inference.journal.writer import JournalWriter

API_KEY, API_SECRET = "sandbox-key", "sandbox-secret"
TAKER_FEE = Decimal("0.0005")
_CLOCK_S = 2.0


@dataclass(frozen=True, slots=True)
class Desk:
    """One life: what trades, and the clock of its venue."""

    executor: Executor
    gateway: CcxtGateway
    clock: VenueClock
    stream: UserStream | None = None
    # The one client of all of it.
    exchange: Any = None

    def now_ms(self) -> int:
        """Venue time in milliseconds since 1970 UTC."""
        return self.clock.now_ms(monotonic())

    async def approval(
        self, symbol: str, *, notional: Decimal, distance: Decimal, trace_id: str, direction: Direction = Direction.LONG
    ) -> Approved:
        """Return an approval at the present price, its stop and target so far away as a share of it."""
        instrument = self.gateway.instruments([symbol])[symbol]
        mid = (await self.gateway.quotes())[symbol].mid
        sign = 1 if direction is Direction.LONG else -1
        signal = SignalScore(
            symbol=symbol, direction=direction, probability=0.6, expected_return=0.001 * sign, members=(), consensus=1,
            model_version="proof", feature_time_ms=self.now_ms(), trace_id=trace_id,
        )  # fmt: skip
        quantity = instrument.round_quantity(notional / mid)
        return Approved(
            symbol=symbol,
            direction=direction,
            quantity=quantity,
            reference_price=mid,
            stop_price=instrument.round_price(mid * (1 - sign * distance)),
            target_price=instrument.round_price(mid * (1 + sign * distance)),
            risk=quantity * mid * distance,
            signal=signal,
        )


@asynccontextmanager
async def open_desk(
    url: str,
    journal_path: Path,
    *,
    settings: ExecutionSettings | None = None,
    streaming: bool = True,
    moment: Callable[[str], None] | None = None,
    entry_style: EntryStyle = EntryStyle.MARKET,
) -> AsyncIterator[Desk]:
    """
    Rebuild from the journal, reconcile with the venue, and go on trading until the block ends.

    With `streaming` fills and reports come over the account's stream too, as in the worker. `moment` is told of each
    point at which what is outside may have changed: before and after each request, each line of the journal, each wait.
    """
    clock = VenueClock(accelerated=True)
    exchange = create_exchange("sandbox", url=url, api_key=API_KEY, api_secret=API_SECRET)
    streams: list[UserStream] = []
    # As in the worker every request passes the transport, with its budget and its circuits.
    budget = RateBudget(journal_path.with_suffix(".budget.json"), LIMITS["sandbox"])
    transport = govern(exchange, budget=budget, monotonic=monotonic)
    gateway = CcxtGateway(
        exchange,
        clock=clock,
        monotonic=monotonic,
        leverage=3,
        on_accepted=lambda sent: streams[0].expect_event(sent) if streams else None,
    )
    past: list[Event] = []
    tasks: list[asyncio.Task[None]] = []
    try:
        with JournalWriter.open(journal_path, visit=lambda entry: past.append(event_of(entry))) as journal:
            await gateway.connect()
            executor = Executor(
                gateway=gateway if moment is None else cast("Gateway", _Watched(gateway, moment)),
                journal=journal if moment is None else cast("Recorder", _Watched(journal, moment)),
                book=Book.rebuilt(past),
                now_ms=lambda: clock.now_ms(monotonic()),
                monotonic=monotonic,
                sleep=asyncio.sleep if moment is None else partial(_watched_sleep, moment),
                taker_fee=TAKER_FEE,
                settings=settings,
                entry_style=entry_style,
                entry_patience_seconds=1,
                no_capacity=transport.no_room_for_entry,
            )
            stream = None
            if streaming:
                gap = asyncio.Event()
                stream = UserStream(
                    exchange,
                    on_report=executor.on_report,
                    on_fill=executor.on_fill,
                    on_gap=lambda _: gap.set(),
                    monotonic=monotonic,
                    look=gateway.wallet,
                    closed_seconds=lambda: gateway.closed_seconds,
                )
                streams.append(stream)
                tasks.append(asyncio.create_task(_reconcile_after(gap, executor)))
                tasks.append(asyncio.create_task(stream.run()))
            await executor.start()
            tasks.append(asyncio.create_task(executor.run()))
            tasks.append(asyncio.create_task(_keep_time(gateway)))
            yield Desk(executor, gateway, clock, stream, exchange)
            await executor.stop()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gateway.close()
        await transport.close()


async def _reconcile_after(gap: asyncio.Event, executor: Executor) -> None:
    """Look at the venue whenever the stream may have missed something, as the worker does."""
    while True:
        await gap.wait()
        gap.clear()
        await executor.reconcile()
        await asyncio.sleep(0.5)


async def _keep_time(gateway: CcxtGateway) -> None:
    """Follow the venue's clock, as the worker does."""
    while True:
        await asyncio.sleep(_CLOCK_S)
        with contextlib.suppress(VenueError):
            await gateway.sync_clock()


class _Watched:
    """Passes everything on, and tells before and after each call of a method."""

    def __init__(self, inner: object, moment: Callable[[str], None]) -> None:
        self._inner = inner
        self._moment = moment

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        if inspect.iscoroutinefunction(found):

            async def answered(*given: Any, **named: Any) -> Any:
                what = _told(name, given)
                self._moment(f"before {what}")
                answer = await found(*given, **named)
                self._moment(f"after {what}")
                return answer

            return answered
        if not callable(found):
            return found

        def done(*given: Any, **named: Any) -> Any:
            what = _told(name, given)
            self._moment(f"before {what}")
            answer = found(*given, **named)
            self._moment(f"after {what}")
            return answer

        return done


async def _watched_sleep(moment: Callable[[str], None], seconds: float) -> None:
    moment("before a wait")
    await asyncio.sleep(seconds)
    moment("after a wait")


def _told(name: str, given: tuple[Any, ...]) -> str:
    """Name a call by what it is about: the purpose of an order, the type of an event."""
    subject = given[0] if given else None
    if isinstance(subject, OrderIntent):
        return f"{name} {subject.purpose}"
    return f"{name} {type(subject).__name__}" if hasattr(subject, "event_type") else name
