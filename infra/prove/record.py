"""What the worker's journal says, as a proof compares it with what the servers say."""

from __future__ import annotations

from collections.abc import Collection
from decimal import Decimal
from pathlib import Path
from typing import Any

from inference.domain.events import CandlesDecided, Event, FillBooked, Noted, OrderIntended, TradeClosed
from inference.domain.order import Side
from inference.execution.book import Book
from inference.journal.codec import event_of
from inference.journal.reader import read_entries


def events_in(journal: Path) -> list[Event]:
    """Return every event in the order written; a line that is being written is left out."""
    return [event_of(entry) for entry in read_entries(journal)]


def notes_in(events: list[Event], kind: str) -> list[dict[str, str]]:
    """Return what was noted of one kind."""
    return [dict(one.detail) for one in events if isinstance(one, Noted) and one.event_type == kind]


def versions_decided(events: list[Event]) -> list[tuple[int, str]]:
    """Return, for each candle that a model decided on, its close time and the model's version."""
    return [
        (one.snapshot.candle_close_ms, one.snapshot.candidates[0].signal.model_version.partition(":")[0])
        for one in events
        if isinstance(one, CandlesDecided) and one.snapshot.candidates
    ]


def standing_differences(events: list[Event], audit: dict[str, Any]) -> list[str]:
    """Return where the journal and the venue differ in what is open now, or in who wanted what was entered."""
    intended = {one.intent.client_order_id for one in events if isinstance(one, OrderIntended)}
    return book_differences(Book.rebuilt(events), intended, audit)


def book_differences(book: Book, intended: Collection[str], audit: dict[str, Any]) -> list[str]:
    """Return the same for a book that is there already, and the ids of all orders that were ever intended."""
    ours = {native(trade.symbol): trade.signed_quantity for trade in book.active() if trade.open_quantity}
    theirs = {str(one["symbol"]): Decimal(one["quantity"]) for one in audit["open_positions"]}
    orders = [order for trade in book.active() for order in trade.orders.values()]
    resting = sum(order.is_live and order.intent.is_conditional for order in orders)
    unsettled = [order.intent.client_order_id for order in orders if order.may_exist]
    unexplained = {key for trade in audit["trades"] for key in trade["entry_client_ids"]} - set(intended)
    found = []
    if ours != theirs:
        found.append(f"positions at the venue {theirs}, in the journal {ours}")
    if resting != int(audit["open_algo_orders"]):
        found.append(f"{audit['open_algo_orders']} stops and targets rest at the venue, {resting} in the journal")
    if unsettled:
        found.append(f"the fate of {unsettled} is open")
    if unexplained:
        found.append(f"executed without an intent in the journal: {sorted(unexplained)}")
    return found


def history_differences(events: list[Event], audit: dict[str, Any]) -> list[str]:
    """Return where the journal and the venue differ in all that was ever executed."""
    fills = {(one.fill.symbol, one.fill.fill_id): one.fill for one in events if isinstance(one, FillBooked)}
    held: dict[str, Decimal] = {}
    for fill in fills.values():
        key = native(fill.symbol)
        held[key] = held.get(key, Decimal(0)) + (fill.quantity if fill.side is Side.BUY else -fill.quantity)
    ours = {symbol: quantity for symbol, quantity in held.items() if quantity}
    theirs = {str(one["symbol"]): Decimal(one["quantity"]) for one in audit["open_positions"]}
    closed = closed_in(events)
    found = []
    if len(fills) != int(audit["fills"]):
        found.append(f"{audit['fills']} executions at the venue, {len(fills)} in the journal")
    if closed != len(audit["trades"]):
        found.append(f"{len(audit['trades'])} round trips at the venue, {closed} in the journal")
    if ours != theirs:
        found.append(f"executions add up to {theirs} at the venue, to {ours} in the journal")
    return found


def closed_in(events: list[Event]) -> int:
    """Return how many trades were closed that had been entered: one that was only planned is no round trip."""
    return len({one.trade_id for one in events if isinstance(one, TradeClosed) and one.result.quantity})


def native(symbol: str) -> str:
    """Return the venue's own name of a symbol."""
    return symbol.split(":", maxsplit=1)[0].replace("/", "")
