"""What is still wanted of the entries that this process decided on; another life wishes for none of them."""

from __future__ import annotations

from collections.abc import Callable

from inference.domain.order import OrderStatus, Purpose
from inference.domain.policy import EntryStyle
from inference.execution.book import Book, Trade
from inference.execution.entering import Wish, is_under_way
from inference.execution.lifecycle import Order
from inference.execution.patience import ExecutionSettings
from inference.execution.submission import Submission


class Wishes:
    """Remembers which trades may be entered, and which resting orders were taken away by ourselves."""

    def __init__(
        self, book: Book, *, submission: Submission, settings: ExecutionSettings, now_ms: Callable[[], int]
    ) -> None:
        self.are_over = False
        self._book = book
        self._submission = submission
        self._settings = settings
        self._now_ms = now_ms
        self._may_enter: set[str] = set()
        self._taken_away: set[str] = set()

    def begin(self, trade_id: str) -> None:
        """Wish for the entry of a trade."""
        self._may_enter.add(trade_id)

    def end(self, trade_id: str) -> None:
        """Wish for it no longer."""
        self._may_enter.discard(trade_id)

    def end_all(self) -> None:
        """Wish for no entry any more: what rests is taken away."""
        self._may_enter.clear()

    def end_where_done(self, trade_id: str) -> None:
        """Wish no longer for an entry to which nothing will be added."""
        trade = self._book.trades.get(trade_id)
        if trade is None or not is_under_way(trade, self.of(trade)):
            self.end(trade_id)

    def note_taken_away(self, client_order_id: str) -> None:
        """Take in that we cancel an order ourselves: it may have a successor."""
        self._taken_away.add(client_order_id)

    def forget_closed(self) -> None:
        """Let go of what was remembered of orders whose trade is over, also of one that came back for a moment."""
        active = {trade.plan.trade_id for trade in self._book.active()}
        self._taken_away = {key for key in self._taken_away if _trade_of(self._book, key) in active}

    def of(self, trade: Trade) -> Wish:
        """Return what is wanted of a trade's entry at present."""
        return Wish(may_enter=self.holds(trade), is_late=self._now_ms() >= trade.plan.entry_until_ms)

    def holds(self, trade: Trade) -> bool:
        """Whether an entry, or another one, is still wanted for a trade."""
        key = trade.plan.trade_id
        if key not in self._may_enter or self.are_over or self.is_outdated(trade.plan.candle_close_ms):
            return False
        # The price that was decided on will not wait for a ban to pass.
        if self._submission.quiet_seconds > self._settings.entry_resend_seconds:
            return False
        entries = trade.of(Purpose.ENTRY)
        if any(self._was_taken_from_us(order) for order in entries):
            return False
        last = entries[-1] if entries else None
        return last is None or not last.never_existed or self._submission.is_worth_resending(last.intent)

    def is_outdated(self, candle_close_ms: int) -> bool:
        """Whether an approval is of a candle whose next decision has been made."""
        return self._now_ms() - candle_close_ms > self._settings.approval_valid_ms

    def may_rest(self, trade: Trade) -> bool:
        """Whether an entry of a trade rests, or waits for a price to rest at."""
        return trade.plan.trade_id in self._may_enter and trade.plan.entry_style is not EntryStyle.MARKET

    def resting(self) -> set[str]:
        """Return the symbols in which an entry of ours may rest, or is about to."""
        return {
            trade.symbol
            for trade in self._book.active()
            if self.may_rest(trade)
            or any(order.intent.rests and not order.status.is_terminal for order in trade.of(Purpose.ENTRY))
        }

    def _was_taken_from_us(self, order: Order) -> bool:
        # By a person, or by the switch: whoever did it does not want it back.
        taken = order.intent.rests and order.status is OrderStatus.CANCELED
        return taken and order.intent.client_order_id not in self._taken_away


def _trade_of(book: Book, client_order_id: str) -> str | None:
    order = book.order(client_order_id)
    return None if order is None else order.intent.trade_id
