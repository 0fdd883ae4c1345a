"""The margin of a position of its own, which its holder may raise and lower."""

from __future__ import annotations

from infra.sandbox.bitfinex.call import Call
from infra.sandbox.bitfinex.names import instrument_named
from infra.sandbox.bitfinex.refusals import GENERIC, Refusal, invalid
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import PositionSide
from infra.sandbox.engine.position import cents


def set_collateral(call: Call) -> list[list[int]]:
    """
    Set the margin of a position to an amount of its currency.

    Raises:
        Refusal: There is no such position, or it cannot have so much or so little.
    """
    symbol = instrument_named(call.venue, call.body.get("symbol")).symbol
    wanted = call.decimal("collateral")
    if wanted is None or wanted <= 0:
        raise invalid("collateral")
    exchange = call.venue.exchange
    moved = cents(wanted) - exchange.state.position(symbol, PositionSide.BOTH).isolated_wallet
    try:
        if moved:
            exchange.move_margin(symbol, PositionSide.BOTH, moved, now_ms=call.now_ms)
    except VenueError as error:
        raise Refusal(GENERIC, f"collateral: {error.message}") from error
    return [[1]]
