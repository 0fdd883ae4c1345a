"""One trade on a venue of its own while that venue misbehaves: what happened, and whether all is well in the end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from feature_store.clock import monotonic
from feature_store.venue.errors import VenueError
from inference.domain.events import TradeClosed
from inference.domain.order import Purpose
from inference.domain.trade import ExitReason, TradeResult
from inference.execution.book import Trade
from infra.prove.desk import Desk, open_desk
from infra.prove.own_venue import OwnVenue
from infra.prove.record import events_in

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
DISTANCE = Decimal("0.05")
_SETTLES_S = 6.0
_LEAVES_S = 3.0
_RECOVERS_S = 60.0
_STARTS = 300
_LATE_S = 3.0

Act = Callable[["Story"], Awaitable[None]]
Expect = Callable[["Story"], list[str]]


@dataclass(frozen=True, slots=True)
class Row:
    """
    One fault of VENUE.md 11 in one of its forms: what is wrong from the start, and what is done while a trade is open.

    `expect` says what of the stated reaction is missing; it is asked where the fault is alone.
    """

    number: int
    name: str
    begin: tuple[dict[str, Any], ...] = ()
    act: Act | None = None
    expect: Expect = lambda _: []


@dataclass(slots=True)
class Story:
    """A trade's life from the entry to the end, and what was seen on the way."""

    venue: OwnVenue
    journal: Path
    desk: Desk
    life: AsyncExitStack
    entered: bool = False
    notes: dict[str, Any] = field(default_factory=dict)
    recovered_s: float = 0.0
    wrong: list[str] = field(default_factory=list)

    @property
    def trades(self) -> list[Trade]:
        """All trades of the first symbol, oldest first."""
        return [one for one in self.desk.executor.book.trades.values() if one.symbol == BTC]

    @property
    def first(self) -> Trade | None:
        """The trade that was asked for."""
        return next((one for one in self.trades if one.plan.trace_id == "entry"), None)

    @property
    def result(self) -> TradeResult | None:
        """How that trade ended."""
        return None if self.first is None else self.first.result

    async def enter(self, symbol: str, trace_id: str) -> bool:
        """Ask for a trade at the present price; a venue that gives no price gives no trade."""
        try:
            approval = await self.desk.approval(symbol, notional=Decimal(2_000), distance=DISTANCE, trace_id=trace_id)
        except VenueError:
            return False
        return await self.desk.executor.enter(approval, candle_close_ms=self.desk.now_ms())

    def is_protected(self) -> bool:
        """Whether what is open rests on a stop, by our own books."""
        trade = self.first
        if trade is None or not trade.open_quantity:
            return False
        covered = sum(one.remaining for one in trade.of(Purpose.STOP) if one.is_live)
        return covered >= trade.open_quantity


async def until(holds: Callable[[], bool], seconds: float) -> float | None:
    """Wait until something holds; return how long that took, None where it never did."""
    began = monotonic()
    while not holds():
        if monotonic() - began > seconds:
            return None
        await asyncio.sleep(0.02)
    return monotonic() - began


async def live(rows: tuple[Row, ...], venue: OwnVenue, journal: Path) -> Story:
    """Enter, be disturbed, leave, and be well again; `wrong` says what is not as it must be."""
    life = AsyncExitStack()
    desk = await life.enter_async_context(open_desk(venue.url, journal))
    story = Story(venue, journal, desk, life)
    try:
        await until(lambda: desk.stream is not None and desk.stream.is_connected, 5.0)
        for row in rows:
            for operation in row.begin:
                await venue.do(**operation)
        asked = monotonic()
        story.entered = await story.enter(BTC, "entry")
        await until(lambda: story.is_protected() or not desk.executor.book.active_in(BTC), _SETTLES_S)
        for row in rows:
            if row.act is not None:
                await row.act(story)
        await _leave(story, _LEAVES_S)
        if any(one.get("action") in {"late_exec", "exec_then_hang"} for row in rows for one in row.begin):
            # What is executed late must have been, before all is counted.
            await asyncio.sleep(max(0.0, _LATE_S - (monotonic() - asked)))
        await venue.do(op="clear")
        began = monotonic()
        recovered = await _recover(story)
        story.recovered_s = monotonic() - began
        if not recovered:
            story.wrong.append(f"not well {_RECOVERS_S:g} s after the fault had ended")
        await _compare(story)
        if len(rows) == 1:
            story.wrong += rows[0].expect(story)
    finally:
        await story.life.aclose()
    return story


async def restart(story: Story) -> None:
    """End this life of the executor as it stands, and begin another from the journal as soon as the venue lets it."""
    await story.life.aclose()
    for attempt in range(_STARTS):
        life = AsyncExitStack()
        try:
            story.desk = await life.enter_async_context(open_desk(story.venue.url, story.journal))
        except VenueError:
            if attempt == _STARTS - 1:
                raise
            await asyncio.sleep(0.1)
            continue
        story.life = life
        return


async def _leave(story: Story, seconds: float) -> None:
    executor, began = story.desk.executor, monotonic()
    while executor.book.active_in(BTC) and monotonic() - began < seconds:
        try:
            async with asyncio.timeout(seconds):
                await executor.request_exit(BTC, ExitReason.TIME_BARRIER)
        except TimeoutError:
            return
        await asyncio.sleep(0.2)


async def _recover(story: Story) -> bool:
    executor, stream, began = story.desk.executor, story.desk.stream, monotonic()
    while monotonic() - began < _RECOVERS_S:
        flat = not any(executor.book.active())
        if flat and await executor.reconcile() and (stream is None or stream.is_connected):
            return True
        for trade in list(executor.book.active()):
            await executor.request_exit(trade.symbol, ExitReason.OPERATOR)
        await asyncio.sleep(0.1)
    return False


async def _compare(story: Story) -> None:
    """Hold what we believe against the venue: orders one by one, then positions, what rests, and the money."""
    audit, wrong = story.venue.audit(), story.wrong
    if audit["duplicate_client_ids"]:
        wrong.append(f"executed twice: {audit['duplicate_client_ids']}")
    for trade in story.desk.executor.book.trades.values():
        for order in trade.orders.values():
            report = await story.desk.gateway.query(order.intent)
            seen = Decimal(0) if report is None else report.filled
            if order.may_exist or order.executed != seen:
                wrong.append(
                    f"{order.intent.purpose} is {order.status} with {order.executed} with us, {seen} at the venue"
                )
    wrong += [f"{one['symbol']} is open at the venue" for one in audit["open_positions"]]
    wrong += [f"{audit[what]} {what} rest" for what in ("open_orders", "open_algo_orders") if audit[what]]
    events = events_in(story.journal)
    earned = sum({one.trade_id: one.result.pnl for one in events if isinstance(one, TradeClosed)}.values(), Decimal(0))
    # What a liquidation costs besides is an income of its own, and of no execution: the venue's figure alone.
    paid = Decimal(audit["wallet"]) - Decimal(audit["opening_balance"]) - Decimal(audit["clearance"])
    if earned != paid:
        wrong.append(f"the journal says {earned} was earned, the venue {paid}")
    story.notes["naked_s"] = audit["unprotected"]["max_wall_ms"] / 1000
