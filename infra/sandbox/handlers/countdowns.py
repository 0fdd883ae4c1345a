"""The switch that cancels a symbol's plain orders once its client falls silent."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine import countdown
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.handlers.call import Call
from infra.sandbox.protocol.params import symbol_of


def set_countdown(call: Call) -> Any:
    """Begin, renew or end a symbol's countdown."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    countdown_ms = call.params.integer("countdownTime")
    if countdown_ms is None:
        raise VenueError(-1102, "Mandatory parameter 'countdownTime' was not sent, was empty/null, or malformed.")
    countdown.set_countdown(call.venue.exchange, symbol, countdown_ms, now_ms=call.now_ms)
    return {"symbol": symbol, "countdownTime": str(countdown_ms)}
