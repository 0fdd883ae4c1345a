"""What execution asks of a venue and of the journal."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from inference.domain.events import Event
from inference.domain.market import Quote
from inference.domain.order import Fill, OrderIntent, OrderReport


@dataclass(frozen=True, slots=True, kw_only=True)
class VenuePosition:
    """A position as the venue states it; `signed_quantity` is negative when short."""

    symbol: str
    signed_quantity: Decimal
    entry_price: Decimal
    mark_price: Decimal


class Gateway(Protocol):
    """
    The trading side of one account at one venue.

    Every method may raise `RetryableError` (nothing happened), `RateLimitedError` and `VenueDownError`;
    only what is said at a method is particular to it. A gateway never retries a submission by itself.
    """

    @property
    def recv_window_ms(self) -> int:
        """How long, in wall-clock milliseconds, the venue may still execute a request that we sent."""
        ...

    async def venue_now_ms(self) -> int:
        """Return the venue's time."""
        ...

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """
        Send one order once.

        Raises:
            RetryableError: Nothing happened.
            OrderRefusedError: The venue proved that it did not accept the order; `code` says why.
            OutcomeUnknownError: The order may exist.
        """
        ...

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """
        Ask for one order by its client order id; None means that the venue says it has no such order.

        For a conditional order that fired, the report carries the child order's id and fill: TRIGGERED while the
        child works, FILLED once the child is filled, EXPIRED or CANCELED when the child ended with less.
        """
        ...

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """
        Cancel one order and return what became of it; None means that the venue has no such open order.

        The caller then queries: a fill may have overtaken the cancel.
        """
        ...

    async def open_orders(self) -> list[OrderReport]:
        """Return every order resting at the venue, plain and conditional, ours or not."""
        ...

    async def positions(self) -> list[VenuePosition]:
        """Return every position that is not flat."""
        ...

    async def quote(self, symbol: str) -> Quote:
        """Return the best bid and ask of one symbol."""
        ...

    @property
    def has_countdown(self) -> bool:
        """Whether the venue cancels a symbol's entries by itself once it has not heard of us for a while."""
        ...

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """
        Let the venue cancel the plain orders of a symbol so many wall-clock seconds from now; zero takes that back.

        Each call replaces the one before. Conditional orders, which protect, are never cancelled by it.
        """
        ...

    async def equity(self) -> Decimal:
        """Return wallet balance plus unrealised profit, in quote currency."""
        ...

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """
        Return the account's executions in `symbol` since a venue time, oldest first.

        `client_order_id` may be empty where the venue does not state it; `venue_order_id` never is, and for a
        conditional order it is the child's.
        """
        ...


class Recorder(Protocol):
    """The journal as execution sees it."""

    def record(self, event: Event, *, timestamp_ms: int, trace_id: str = "", durable: bool = False) -> object:
        """
        Append one event; with `durable`, return only once it will survive a power cut.

        Raises:
            JournalError: The event could not be recorded; nothing that depends on it may be done.
        """
        ...
