"""The switch that cancels a symbol's plain orders once its client has not been heard of for a while."""

from __future__ import annotations

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange


def set_countdown(exchange: Exchange, symbol: str, countdown_ms: int, *, now_ms: int) -> None:
    """Begin a symbol's countdown anew; zero ends it. It counts on the venue's clock."""
    if countdown_ms < 0:
        raise VenueError(-1130, "Data sent for parameter 'countdownTime' is not valid.")
    if countdown_ms == 0:
        exchange.state.countdowns.pop(symbol, None)
        return
    exchange.state.countdowns[symbol] = now_ms + countdown_ms


def run(exchange: Exchange, *, now_ms: int) -> None:
    """Cancel the plain orders of every symbol whose countdown has run out; conditional orders stay."""
    for symbol, ends_ms in list(exchange.state.countdowns.items()):
        if ends_ms <= now_ms:
            del exchange.state.countdowns[symbol]
            exchange.cancel_all(symbol, now_ms=now_ms)
