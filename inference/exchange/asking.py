"""Asking a venue through ccxt: what failed becomes an error of ours, and a rate limit is kept to."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, cast

from feature_store.errors import QuantumError
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import ClockError, OrderNotFoundError, RateLimitedError, RetryableError, translate
from inference.exchange import ccxt_mapping as mapped
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.exchange.venue_clock import VenueClock


class VenueAsker(ABC):
    """What every gateway has: a client, the venue's clock, and a door that is closed while the venue says so."""

    def __init__(self, exchange: Any, *, clock: VenueClock, monotonic: Callable[[], float]) -> None:
        self._exchange = exchange
        self._clock = clock
        self._monotonic = monotonic
        self._closed_until = 0.0

    @property
    def closed_seconds(self) -> float:
        """For how long the venue still wants to hear nothing from us."""
        return max(0.0, self._closed_until - self._monotonic())

    async def venue_now_ms(self) -> int:
        """Return the venue's time."""
        return self._timestamp_ms()

    @abstractmethod
    async def sync_clock(self, *, afresh: bool = False) -> int:
        """Ask the venue for its time once, learn from it, and return it in milliseconds since 1970 UTC."""

    async def close(self) -> None:
        """Close every connection."""
        await self._exchange.close()

    async def _find(self, call: Callable[..., Awaitable[Any]], query: dict[str, Any]) -> object | None:
        try:
            return cast("object", await self._read(call, query))
        except OrderNotFoundError:
            return None

    async def _read(self, call: Callable[..., Awaitable[Any]], query: dict[str, Any] | None = None) -> Any:
        """Make a request that may be repeated: what it reads or sets is the same each time."""
        try:
            return await self._ask(call, query)
        except ClockError:
            await self.sync_clock(afresh=True)
            return await self._ask(call, query)

    async def _ask(self, call: Callable[..., Awaitable[Any]], query: dict[str, Any] | None) -> Any:
        self._refuse_while_closed()
        try:
            return await (call() if query is None else call(query))
        except ccxt.BaseError as error:
            raise self._noted(translate(error, exchange=self._exchange)) from error

    def _readable(self, read: Callable[..., Any], raw: object, **named: Any) -> Any:
        try:
            return read(raw, **named)
        except MalformedReportError as error:
            raise RetryableError(f"The venue's answer cannot be read: {error}") from error

    def _object(self, what: str, raw: object) -> Mapping[str, Any]:
        return cast("Mapping[str, Any]", self._readable(lambda found: mapped.mapping(what, found), raw))

    def _rows(self, what: str, raw: object) -> list[Any]:
        return list(self._readable(lambda found: mapped.rows(what, found), raw))

    def _noted(self, error: QuantumError) -> QuantumError:
        """Remember a rate limit: until it passes, nothing is asked, as asking would lengthen a ban."""
        if isinstance(error, RateLimitedError):
            self._closed_until = max(self._closed_until, self._monotonic() + error.retry_after_seconds)
        return error

    def _refuse_while_closed(self) -> None:
        left = self._closed_until - self._monotonic()
        if left > 0:
            raise RateLimitedError(f"The venue asked us to wait {left:.1f} s more", retry_after_seconds=left)

    def _timestamp_ms(self) -> int:
        return self._clock.now_ms(self._monotonic())

    def _is_listed(self, symbol: str) -> bool:
        # In what the venue lists no more it has no order either; a trade of ours in it must come to its end.
        return symbol in self._exchange.markets

    def _id(self, symbol: str) -> str:
        return str(self._exchange.markets[symbol]["id"])
