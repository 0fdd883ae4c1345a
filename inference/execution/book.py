"""All trades and their orders, as the journal's events tell them: live and after a restart by the same rules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal

from msgspec import UnsetType

from inference.domain.decision import RecentTrades
from inference.domain.events import (
    RESTORED,
    AccountMarked,
    Event,
    ExitObserved,
    ExitRequested,
    FillBooked,
    Noted,
    OrderFoundAbsent,
    OrderIntended,
    OrderRefused,
    OrderReported,
    PositionFoundChanged,
    TradeClosed,
    TradePlanned,
)
from inference.domain.exit_state import ExitState, Standing
from inference.domain.order import Purpose
from inference.domain.position import Position
from inference.domain.signal import Direction
from inference.domain.trade import ExitReason, TradePlan, TradeResult
from inference.execution import lifecycle
from inference.execution.exit_following import seen_by, state_of
from inference.execution.lifecycle import Order
from inference.exits.brain import standing

# Closed trades are kept so that a late report still finds its order; older ones live in the journal alone.
_CLOSED_KEPT = 500
_DAY_MS = 86_400_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Trade:
    """One trade: its plan, its orders by client order id, and why it must end, if it must."""

    plan: TradePlan
    orders: Mapping[str, Order] = field(default_factory=dict)
    exit_reason: ExitReason | None = None
    # Quantity that somebody else took away (negative: added), the price last seen with it, and what it cost.
    external: Decimal = Decimal(0)
    external_price: Decimal | None = None
    external_fees: Decimal = Decimal(0)
    result: TradeResult | None = None
    # What the exit brain knows; None where the policy's barriers end it.
    exit_state: ExitState | None = None

    @property
    def standing(self) -> Standing | None:
        """What the exit brain wants now; None where the policy's barriers end the trade."""
        plan, state = self.plan.exits, self.exit_state
        return None if isinstance(plan, UnsetType) or state is None else standing(plan.profile, state)

    @property
    def symbol(self) -> str:
        """The traded symbol."""
        return self.plan.symbol

    def of(self, purpose: Purpose) -> list[Order]:
        """Return the orders of one purpose, first attempt first."""
        return [order for order in self.orders.values() if order.intent.purpose is purpose]

    @property
    def entered(self) -> Decimal:
        """Quantity that the entry executed."""
        return sum((order.executed for order in self.of(Purpose.ENTRY)), Decimal(0))

    @property
    def exited(self) -> Decimal:
        """Quantity that our own exits executed."""
        return sum((order.executed for order in self.orders.values() if order.intent.reduce_only), Decimal(0))

    @property
    def open_quantity(self) -> Decimal:
        """What is still open; our own executions explain first, somebody else's only the rest."""
        return max(Decimal(0), self.entered - self.exited - self.external)

    @property
    def signed_quantity(self) -> Decimal:
        """The open quantity as the venue would state it."""
        return self.open_quantity if self.plan.direction is Direction.LONG else -self.open_quantity

    @property
    def entry_price(self) -> Decimal | None:
        """Average price of the entry, None before it executed; for a found position the price it was found at."""
        executed = [(order.executed, order.price) for order in self.of(Purpose.ENTRY) if order.executed > 0]
        known = [(quantity, price) for quantity, price in executed if price is not None]
        if known:
            return sum((q * p for q, p in known), Decimal(0)) / sum((q for q, _ in known), Decimal(0))
        if executed or self.external < 0:
            return self.external_price or self.plan.reference_price
        return None

    @property
    def is_counted(self) -> bool:
        """Whether the result covers everything that executed; a late execution makes it false again."""
        return self.result is not None and self.result.quantity >= self.entered

    @property
    def is_over(self) -> bool:
        """Whether the trade is flat and counted, with no order left anywhere."""
        left = any(order.may_exist or order.is_live for order in self.orders.values())
        return self.is_counted and self.open_quantity == 0 and not left

    @property
    def is_entering(self) -> bool:
        """Whether the entry may still add to the position."""
        return any(order.may_exist or order.is_live for order in self.of(Purpose.ENTRY))


class Book:
    """
    What execution knows. `apply` is the only way to change it, so that a rebuild from the journal is the same.

    Not for several threads; one event loop owns it.
    """

    def __init__(self, *, closed_kept: int | None = _CLOSED_KEPT) -> None:
        self.trades: dict[str, Trade] = {}
        self.last_entry_ms: dict[str, int] = {}
        self.last_loss_ms: dict[str, int] = {}
        self._entries_ms: dict[str, tuple[int, ...]] = {}
        self.account: AccountMarked | None = None
        self.closed_count = 0
        self.realized_pnl = Decimal(0)
        self.fees = Decimal(0)
        # Trades that were open when the journal was put back: of these, orders may exist that it does not tell of.
        self.older: set[str] = set()
        self._closed_kept = closed_kept
        self._active: dict[str, None] = {}
        self._owners: dict[str, str] = {}
        self._venue_ids: dict[str, str] = {}
        self._revisions: dict[str, int] = {}

    @classmethod
    def rebuilt(cls, events: Iterable[Event]) -> Book:
        """Return the book after all these events."""
        book = cls()
        for event in events:
            book.apply(event)
        return book

    def take_back(self, trade: Trade) -> None:
        """Take in a trade as an earlier book knew it, from where that one kept it."""
        self._put(trade)
        for order in trade.orders.values():
            self._put_order(order)

    def apply(self, event: Event) -> None:
        """Take in one event; one that names an unknown trade or order changes nothing."""
        match event:
            case TradePlanned(plan=plan):
                self._put(Trade(plan=plan))
                self.last_entry_ms[plan.symbol] = max(
                    plan.planned_at_ms, self.last_entry_ms.get(plan.symbol, plan.planned_at_ms)
                )
                earlier = self._entries_ms.get(plan.symbol, ())
                since_ms = plan.planned_at_ms - _DAY_MS
                self._entries_ms[plan.symbol] = (*(one for one in earlier if one > since_ms), plan.planned_at_ms)
            case OrderIntended(intent=intent):
                if intent.trade_id in self.trades:
                    known = self.order(intent.client_order_id) or Order(intent=intent)
                    self._put_order(lifecycle.sent(known, intent))
            case OrderReported() | OrderRefused() | OrderFoundAbsent() | FillBooked():
                self._apply_to_order(event)
            case AccountMarked():
                self.account = event
            case Noted(event_type=kind):
                if kind == RESTORED:
                    self.older |= self._active.keys()
            case _:
                self._apply_to_trade(event)

    def _apply_to_order(self, event: OrderReported | OrderRefused | OrderFoundAbsent | FillBooked) -> None:
        match event:
            case OrderReported(report=report):
                if order := self.order(report.client_order_id):
                    self._put_order(lifecycle.apply(order, report))
            case OrderRefused(client_order_id=key, code=code):
                if order := self.order(key):
                    self._put_order(lifecycle.refused(order, code))
            case OrderFoundAbsent(client_order_id=key):
                if order := self.order(key):
                    self._put_order(lifecycle.absent(order))
            case FillBooked(fill=fill):
                if order := self.order(fill.client_order_id):
                    self._put_order(lifecycle.book(order, fill))

    def _apply_to_trade(self, event: Event) -> None:
        match event:
            case ExitRequested(trade_id=key, reason=reason):
                if (trade := self.trades.get(key)) and trade.exit_reason is None:
                    self._put(replace(trade, exit_reason=reason))
            case ExitObserved(trade_id=key, seen=seen):
                if (trade := self.trades.get(key)) and (state := seen_by(trade, seen)):
                    self._put(replace(trade, exit_state=state))
            case PositionFoundChanged(trade_id=key, open_quantity=quantity, price=price, fees=fees):
                if trade := self.trades.get(key):
                    external = trade.entered - trade.exited - quantity
                    self._put(replace(trade, external=external, external_price=price, external_fees=fees))
            case TradeClosed(trade_id=key, result=result):
                if trade := self.trades.get(key):
                    self._count(trade.result, result)
                    if result.pnl < 0:
                        lost_ms = self.last_loss_ms.get(result.symbol, result.closed_at_ms)
                        self.last_loss_ms[result.symbol] = max(lost_ms, result.closed_at_ms)
                    self._put(replace(trade, result=result))
                    self._forget_oldest_closed()
            case _:
                pass

    def order(self, client_order_id: str) -> Order | None:
        """Return one order by our id."""
        trade = self.trades.get(self._owners.get(client_order_id, ""))
        return trade.orders.get(client_order_id) if trade else None

    def client_order_id_of(self, venue_order_id: str) -> str | None:
        """Return our id of an order, or of the conditional order that became it, by the venue's id."""
        return self._venue_ids.get(venue_order_id)

    def active(self) -> Iterator[Trade]:
        """Yield the trades that are not over; a late execution or order brings one back."""
        for key in list(self._active):
            yield self.trades[key]

    def active_in(self, symbol: str) -> list[Trade]:
        """Return a symbol's active trades, oldest first."""
        return [trade for trade in self.active() if trade.symbol == symbol]

    def positions(self) -> dict[str, Position]:
        """Return what is open, by symbol."""
        return {
            trade.symbol: Position(
                symbol=trade.symbol,
                direction=trade.plan.direction,
                quantity=trade.open_quantity,
                entry_price=trade.entry_price or trade.plan.reference_price,
                entry_time_ms=trade.plan.planned_at_ms,
                trade_id=trade.plan.trade_id,
            )
            for trade in self.active()
            if trade.open_quantity > 0
        }

    def timed(self) -> dict[str, Position]:
        """Return what is open and ends by the policy's time barrier: what has no exit profile of its own."""
        profiled = {trade.symbol for trade in self.active() if trade.exit_state is not None}
        return {symbol: one for symbol, one in self.positions().items() if symbol not in profiled}

    def in_flight(self) -> dict[str, Decimal]:
        """Return the notional that entries may still add, by symbol; zero where a flat trade is being tidied up."""
        waiting: dict[str, Decimal] = {}
        for trade in self.active():
            missing = max(Decimal(0), trade.plan.quantity - trade.entered) if trade.is_entering else Decimal(0)
            if trade.open_quantity == 0 or trade.is_entering:
                notional = missing * trade.plan.reference_price
                waiting[trade.symbol] = waiting.get(trade.symbol, Decimal(0)) + notional
        return waiting

    def heat(self) -> dict[str, Decimal]:
        """Return the money at risk at the stop of what is open or may still open, by symbol."""
        carried: dict[str, Decimal] = {}
        for trade in self.active():
            plan = trade.plan
            missing = max(Decimal(0), plan.quantity - trade.entered) if trade.is_entering else Decimal(0)
            share = (trade.open_quantity + missing) / plan.quantity
            carried[plan.symbol] = carried.get(plan.symbol, Decimal(0)) + plan.risk * share
        return {symbol: risk for symbol, risk in carried.items() if risk > 0}

    def recent(self, now_ms: int) -> RecentTrades:
        """Return the entries of the 24 hours before a moment, and each symbol's last loss; what lies ahead counts."""
        entered = {
            symbol: tuple(one for one in times if one > now_ms - _DAY_MS) for symbol, times in self._entries_ms.items()
        }
        return RecentTrades(
            entered_ms={symbol: times for symbol, times in entered.items() if times}, lost_ms=dict(self.last_loss_ms)
        )

    def revision(self, symbol: str) -> int:
        """Return a number that rises with every change in a symbol."""
        return self._revisions.get(symbol, 0)

    def revisions(self) -> dict[str, int]:
        """Return the revision of every symbol that ever changed, its trades forgotten or not."""
        return dict(self._revisions)

    def _count(self, earlier: TradeResult | None, result: TradeResult) -> None:
        # A late execution closes a trade again: what was counted then is taken back.
        self.closed_count += earlier is None
        self.realized_pnl += result.pnl - (earlier.pnl if earlier else 0)
        self.fees += result.fees - (earlier.fees if earlier else 0)

    def _put(self, trade: Trade) -> None:
        key = trade.plan.trade_id
        if not isinstance(trade.plan.exits, UnsetType):
            trade = replace(trade, exit_state=state_of(trade))
        self.trades[key] = trade
        if trade.is_over:
            self._active.pop(key, None)
        else:
            self._active[key] = None
        self._revisions[trade.symbol] = self._revisions.get(trade.symbol, 0) + 1

    def _put_order(self, order: Order) -> None:
        intent = order.intent
        trade = self.trades[intent.trade_id]
        self._put(replace(trade, orders={**trade.orders, intent.client_order_id: order}))
        self._owners[intent.client_order_id] = intent.trade_id
        if venue_id := _executing_id(order):
            self._venue_ids[venue_id] = intent.client_order_id

    def _forget_oldest_closed(self) -> None:
        if self._closed_kept is None:
            return
        closed = [key for key in self.trades if key not in self._active]
        for key in closed[: max(0, len(closed) - self._closed_kept)]:
            for client_order_id, order in self.trades.pop(key).orders.items():
                self._owners.pop(client_order_id, None)
                self._venue_ids.pop(_executing_id(order), None)


def _executing_id(order: Order) -> str:
    # The venue numbers conditional orders apart: only what one became can execute, and only that id is an order's.
    return (order.child_order_id or "") if order.intent.is_conditional else order.venue_order_id
