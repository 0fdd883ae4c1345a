"""The one way execution changes what it knows: record first, then apply."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

from msgspec import UNSET, UnsetType

from inference.domain.errors import JournalError
from inference.domain.events import Event, FillBooked, OrderReported
from inference.domain.order import Fill, OrderIntent, OrderReport, Side
from inference.execution import lifecycle
from inference.execution.book import Book
from inference.execution.ports import Recorder

_SLIPPAGE_DIGITS = Decimal("0.00000001")


def slippage(intent: OrderIntent, fill: Fill) -> Decimal | UnsetType:
    """Return by which fraction a price was worse than the one its order was decided at; UNSET where none is known."""
    arrival = intent.arrival_price
    if not arrival:
        return UNSET
    worse = fill.price - arrival if intent.side is Side.BUY else arrival - fill.price
    return (worse / arrival).quantize(_SLIPPAGE_DIGITS)


class Ledger:
    """
    Journal and book together.

    `failure` holds the first event that could not be recorded. From then on nothing new may be entered, yet what is
    open is still protected: the venue holds the truth, and the next start reconciles with it.
    """

    def __init__(self, *, book: Book, journal: Recorder, now_ms: Callable[[], int]) -> None:
        self.book = book
        self.failure: JournalError | None = None
        self._journal = journal
        self._now_ms = now_ms

    def commit(self, event: Event, *, trace_id: str = "", durable: bool = True) -> None:
        """
        Record an event that may not happen unrecorded, and apply it.

        Raises:
            JournalError: It was not recorded; nothing was applied.
        """
        self._journal.record(event, timestamp_ms=self._now_ms(), trace_id=trace_id, durable=durable)
        self.book.apply(event)

    def note(self, event: Event, *, trace_id: str = "", durable: bool = False) -> None:
        """Record and apply an event that is true whether or not it can be recorded."""
        try:
            self._journal.record(event, timestamp_ms=self._now_ms(), trace_id=trace_id, durable=durable)
        except JournalError as error:
            self.failure = self.failure or error
        self.book.apply(event)

    def note_report(self, report: OrderReport) -> bool:
        """Note a venue's report; return whether it was of an order of ours and said anything new."""
        key = report.client_order_id
        if self.book.order(key) is None:
            key = self.book.client_order_id_of(report.venue_order_id) or key
            report = replace(report, client_order_id=key)
        order = self.book.order(key)
        if order is None or lifecycle.apply(order, report) == order:
            return False
        self.note(OrderReported(report=report), trace_id=order.intent.trace_id)
        return True

    def note_fill(self, fill: Fill) -> bool:
        """Note an execution; return whether it was of an order of ours and not booked before."""
        key = fill.client_order_id
        if self.book.order(key) is None:
            key = self.book.client_order_id_of(fill.venue_order_id) or ""
        order = self.book.order(key)
        if order is None or fill.fill_id in order.fills:
            return False
        event = FillBooked(
            fill=replace(fill, client_order_id=key),
            order_type=order.intent.order_type,
            slippage=slippage(order.intent, fill),
        )
        self.note(event, trace_id=order.intent.trace_id)
        return True
