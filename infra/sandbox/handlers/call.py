"""One admitted request, and what several handlers need of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.protocol.params import Params
from infra.sandbox.venue import Venue

WEEK_MS = 7 * 86_400_000


@dataclass(slots=True)
class Call:
    """One request, parsed and let in."""

    venue: Venue
    params: Params
    now_ms: int
    legacy_conditionals: bool = False


Handler = Callable[[Call], Any]


def symbols(call: Call) -> list[str]:
    """The symbol that is asked for, or all that have a price."""
    symbol = call.params.text("symbol")
    if symbol is not None:
        call.venue.instrument(symbol.upper())
        return [symbol.upper()]
    return [one.symbol for one in call.venue.market.instruments if call.venue.last[call.venue.index[one.symbol]]]


def per_symbol(write: Callable[[Venue, str, int], dict[str, Any]]) -> Handler:
    """Answer with one object for a symbol, with a list for all."""

    def handler(call: Call) -> Any:
        found = [write(call.venue, symbol, call.now_ms) for symbol in symbols(call)]
        return found[0] if call.params.text("symbol") else found

    return handler


def check_trading(call: Call, symbol: str) -> None:
    """Refuse a symbol that does not trade now, and show the engine its price."""
    call.venue.instrument(symbol)
    if symbol in call.venue.exchange.state.settled:
        raise VenueError(-4141)
    if not call.venue.is_trading(symbol, call.now_ms):
        raise VenueError(-4108)
    call.venue.touch(symbol)


def window(call: Call, default_ms: int = WEEK_MS) -> tuple[int, int]:
    """Start and end of the time range that is asked for."""
    start, end = call.params.integer("startTime"), call.params.integer("endTime")
    if start is None:
        start = (end if end is not None else call.now_ms) - default_ms
    return start, end if end is not None else start + default_ms + 1
