"""The first levels of an order book, as the venue shows them when it is asked."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from itertools import pairwise
from typing import Any, Protocol

from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import RetryableError, translate

Level = tuple[Decimal, Decimal]
"""A price and the quantity that rests there."""


class BookReader(Protocol):
    """The one method of a ccxt exchange that books need."""

    async def fetch_order_book(self, symbol: str, limit: int | None, /) -> dict[str, Any]: ...  # noqa: D102


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderBook:
    """Both sides of a symbol's book, best price first."""

    symbol: str
    bids: tuple[Level, ...]
    asks: tuple[Level, ...]

    def first(self, levels: int) -> OrderBook:
        """Return no more than so many levels of each side."""
        return replace(self, bids=self.bids[:levels], asks=self.asks[:levels])


async def order_book(reader: BookReader, symbol: str, levels: int) -> OrderBook:
    """
    Ask for so many levels of each side of a book.

    Raises:
        VenueError: The venue could not be asked, or answered with what no book could be.
    """
    try:
        raw = await reader.fetch_order_book(symbol, levels)
    except ccxt.BaseError as error:
        raise translate(error, exchange=reader) from error
    try:
        book = OrderBook(symbol=symbol, bids=_side(raw["bids"], levels), asks=_side(raw["asks"], levels))
    except (KeyError, TypeError, ValueError, IndexError, InvalidOperation) as error:
        raise RetryableError(f"The venue's book of {symbol} cannot be read: {error!r}"[:200]) from error
    if not _is_possible(book):
        raise RetryableError(f"The venue's book of {symbol} is none: its prices are out of order")
    return book


def _side(raw: list[list[Any]], levels: int) -> tuple[Level, ...]:
    return tuple((Decimal(str(row[0])), Decimal(str(row[1]))) for row in raw[:levels])


def _is_possible(book: OrderBook) -> bool:
    numbers = [number for level in (*book.bids, *book.asks) for number in level]
    # Not a number compares with nothing.
    if not all(number.is_finite() and number > 0 for number in numbers):
        return False
    falls = all(higher[0] > lower[0] for higher, lower in pairwise(book.bids))
    rises = all(lower[0] < higher[0] for lower, higher in pairwise(book.asks))
    return falls and rises and (not book.bids or not book.asks or book.bids[0][0] < book.asks[0][0])
