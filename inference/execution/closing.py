"""The end of a trade: every execution booked, what somebody else did adopted, the money counted."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from decimal import Decimal

from feature_store.venue.errors import RequestRefusedError, VenueError
from inference.domain.events import PositionFoundChanged, TradeClosed
from inference.domain.order import Fill, Purpose, Side
from inference.domain.trade import TradeResult
from inference.execution.book import Book, Trade
from inference.execution.ledger import Ledger
from inference.execution.patience import ExecutionSettings
from inference.execution.ports import Gateway
from inference.execution.result import explained, trade_result
from inference.execution.submission import Submission

_FILLS_SLACK_MS = 60_000
# The newest results; the book counts them all.
_RESULTS_KEPT = 100


class Closing:
    """Finishes flat trades, and believes the venue where it holds another quantity than ours."""

    def __init__(
        self,
        *,
        gateway: Gateway,
        ledger: Ledger,
        submission: Submission,
        settings: ExecutionSettings,
        now_ms: Callable[[], int],
        sleep: Callable[[float], Awaitable[None]],
        taker_fee: Decimal,
    ) -> None:
        self.closed: deque[TradeResult] = deque(maxlen=_RESULTS_KEPT)
        self._gateway = gateway
        self._ledger = ledger
        self._submission = submission
        self._settings = settings
        self._now_ms = now_ms
        self._sleep = sleep
        self.taker_fee = taker_fee
        self._fills_asked: defaultdict[str, int] = defaultdict(int)

    @property
    def _book(self) -> Book:
        return self._ledger.book

    async def finish(self, trade: Trade) -> bool:
        """Count a flat trade; return False where its executions are not all known and the venue must be waited for."""
        key = trade.plan.trade_id
        if trade.entered > 0 or trade.exited > 0:
            self._fills_asked[key] += 1
            try:
                await self._book_fills(trade)
            except VenueError as error:
                # A refusal stays one: the money is then counted from the order reports.
                if not isinstance(error, RequestRefusedError) or self._fills_asked[key] < self._settings.fills_attempts:
                    return False
            current = self._book.trades[key]
            if not explained(current) and self._fills_asked[key] < self._settings.fills_attempts:
                await self._sleep(self._settings.poll_seconds)
                return True
        current = self._book.trades[key]
        if current.open_quantity > 0:
            return True
        result = trade_result(current, closed_at_ms=self._now_ms(), taker_fee=self.taker_fee)
        self._ledger.note(TradeClosed(trade_id=key, result=result), trace_id=trade.plan.trace_id, durable=True)
        self.closed.append(result)
        self._fills_asked.pop(key, None)
        self._submission.forget_closed()
        return True

    async def believe_venue(self, trade_id: str) -> bool:
        """Take over what the venue holds of a trade; return False where that is not known, or ours is not."""
        # Every order first: what the venue closed for us explains more than what somebody else may have done.
        trade = self._book.trades[trade_id]
        for order in trade.orders.values():
            if not order.status.is_terminal:
                await self._submission.ask(order.intent)
        if any(order.may_exist for order in self._book.trades[trade_id].orders.values() if order.intent.reduce_only):
            # What is missing may be what an order in doubt took: nobody else's doing before that is known.
            return False
        try:
            await self._book_fills(trade)
            positions = {one.symbol: one for one in await self._gateway.positions()}
        except VenueError:
            return False
        trade = self._book.trades[trade_id]
        position = positions.get(trade.symbol)
        held = position.signed_quantity if position else Decimal(0)
        if held != trade.signed_quantity:
            own = abs(held) if held * trade.signed_quantity > 0 else Decimal(0)
            price = position.mark_price if position else trade.plan.reference_price
            self._adopt(trade, own, price, reason="an exit was refused: the venue holds another quantity than we do")
        return True

    async def _book_fills(self, trade: Trade) -> None:
        fills = await self._gateway.fills(trade.symbol, trade.plan.planned_at_ms - _FILLS_SLACK_MS)
        for fill in fills:
            self._ledger.note_fill(fill)
        current = self._book.trades[trade.plan.trade_id]
        strange = [one for one in fills if self._is_strange(one, current)]
        taken = sum((one.quantity for one in strange), Decimal(0))
        if current.external > 0 and taken == current.external:
            # Somebody else's executions say at what price they closed our position.
            price = sum((one.quantity * one.price for one in strange), Decimal(0)) / taken
            fees = sum((one.fee for one in strange), Decimal(0))
            # The price that was guessed may be the right one; what it cost is known only now.
            if (price, fees) != (current.external_price, current.external_fees):
                reason = "the executions of somebody else say at what price they traded"
                self._adopt(current, current.open_quantity, price, fees, reason=reason)

    def _is_strange(self, fill: Fill, trade: Trade) -> bool:
        ours = self._book.order(fill.client_order_id) or self._book.client_order_id_of(fill.venue_order_id)
        closing = fill.side is not Side.opening(trade.plan.direction)
        # By the venue's own clock, where it can be: ours may run ahead of it.
        entered = [one.event_time_ms for order in trade.of(Purpose.ENTRY) for one in order.fills.values()]
        return not ours and closing and fill.event_time_ms >= min(entered, default=trade.plan.planned_at_ms)

    def _adopt(
        self, trade: Trade, open_quantity: Decimal, price: Decimal, fees: Decimal = Decimal(0), *, reason: str
    ) -> None:
        event = PositionFoundChanged(
            trade_id=trade.plan.trade_id,
            symbol=trade.symbol,
            open_quantity=open_quantity,
            price=price,
            fees=fees,
            reason=reason,
        )
        self._ledger.note(event, trace_id=trade.plan.trace_id, durable=True)
