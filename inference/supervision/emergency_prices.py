"""By which prices the emergency stop tells losers from winners, while the venue may be slow or silent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from contextlib import suppress
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.domain.market import Quote

_PATIENCE_S = 0.5
_TIMES = 2


async def prices_of(
    symbols: Collection[str],
    *,
    ask: Callable[[], Awaitable[Mapping[str, Quote]]],
    traded: Callable[[str], Decimal | None],
    now_ms: Callable[[], int],
) -> dict[str, Quote]:
    """
    Return quotes by symbol; where none comes in time what the symbol traded at last stands in for both sides.

    A venue that did not answer is asked a second time. A symbol of which neither is known is missing.
    """
    last = {symbol: price for symbol in symbols if (price := traded(symbol)) is not None}
    found = {
        symbol: Quote(symbol=symbol, bid=price, ask=price, event_time_ms=now_ms()) for symbol, price in last.items()
    }
    for _ in range(_TIMES):
        with suppress(VenueError, TimeoutError):
            async with asyncio.timeout(_PATIENCE_S):
                found |= await ask()
        if found.keys() >= set(symbols):
            break
    return found
