"""What a test or a person may do to account and market: liquidate, deleverage, halt, delist, pull marks away."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.model import PositionSide
from infra.sandbox.faults import FaultError, number
from infra.sandbox.market.timetable import end_interruption, interrupt

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

_MOST_SECONDS: Final = 366 * 86_400.0


def _liquidation(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Liquidate the positions of a symbol, or all, whatever their margin."""
    symbol = _symbol(sandbox, body) if body.get("symbol") else None
    return {"liquidated": sandbox.venue.exchange.liquidate(symbol, now_ms=sandbox.now_ms())}


def _adl(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Deleverage a share of a position at the mark price."""
    symbol = _symbol(sandbox, body)
    side = str(body.get("position_side") or "BOTH").upper()
    if side not in set(PositionSide):
        raise FaultError(f"Unknown position side '{side}', expected BOTH, LONG or SHORT")
    try:
        share = Decimal(str(body.get("share", 1)))
    except InvalidOperation:
        share = Decimal(0)
    if not share.is_finite():
        share = Decimal(0)
    try:
        order = sandbox.venue.exchange.deleverage(symbol, PositionSide(side), share, now_ms=sandbox.now_ms())
    except VenueError as refusal:
        raise FaultError(f"Nothing to deleverage at {symbol} {side}: {refusal}") from refusal
    return {"order_id": order.order_id, "quantity": f"{order.filled:f}"}


def _halt(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Let a symbol stand still: no prices, no fills, orders refused."""
    return _interrupt(sandbox, _symbol(sandbox, body), body)


def _maintenance(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Let the whole venue stand still: no prices, no fills, whatever changes something refused."""
    return _interrupt(sandbox, "", body)


def _interrupt(sandbox: Sandbox, symbol: str, body: dict[str, Any]) -> dict[str, Any]:
    # What is known stays known: the first tick that is taken away is the next one.
    state, from_ms = sandbox.venue.exchange.state, sandbox.venue.ticked_ms + 1
    if not _on(body):
        return {"ended": end_interruption(state, symbol, at_ms=from_ms)}
    seconds = _seconds(body, "for_s")
    to_ms = None if seconds is None else from_ms + int(seconds * 1000)
    interrupt(state, symbol, from_ms=from_ms, to_ms=to_ms)
    return {"from_ms": from_ms, "to_ms": to_ms}


def _delist(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Announce the end of a symbol: positions may only shrink until then, and are settled at it."""
    symbol = _symbol(sandbox, body)
    if symbol in sandbox.venue.exchange.state.settled:
        raise FaultError(f"{symbol} is delisted already")
    at_ms = sandbox.venue.ticked_ms + 1 + int((_seconds(body, "after_s") or 0.0) * 1000)
    sandbox.venue.exchange.state.delistings[symbol] = at_ms
    return {"at_ms": at_ms}


def _restrict(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Let the account only reduce its position in a symbol."""
    symbol, restricted = _symbol(sandbox, body), sandbox.venue.exchange.state.restricted
    (restricted.add if _on(body) else restricted.discard)(symbol)
    return {"restricted": sorted(restricted)}


def _mark(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Pull the mark price of a symbol, or of all, away from the last: `factor` times that, until it is ended."""
    factors, factor = sandbox.venue.exchange.state.mark_factors, number(body, "factor", 1.0, least=0.1, most=10.0)
    for symbol in [_symbol(sandbox, body)] if body.get("symbol") else list(sandbox.venue.index):
        if _on(body) and factor != 1:
            factors[symbol] = Decimal(str(factor))
            sandbox.venue.touch(symbol)
        else:
            factors.pop(symbol, None)
    return {"marks": {symbol: f"{by:f}" for symbol, by in sorted(factors.items())}}


def _on(body: dict[str, Any]) -> bool:
    on = body.get("on", True)
    if not isinstance(on, bool):
        raise FaultError(f"'on' expects true or false, was {on!r}")
    return on


def _symbol(sandbox: Sandbox, body: dict[str, Any]) -> str:
    symbol = str(body.get("symbol") or "").upper()
    if symbol not in sandbox.venue.index:
        raise FaultError(f"Unknown symbol '{symbol}', expected one of {', '.join(list(sandbox.venue.index)[:5])}, …")
    return symbol


def _seconds(body: dict[str, Any], name: str) -> float | None:
    raw = body.get(name)
    if raw is None:
        return None
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not 0 <= raw <= _MOST_SECONDS:
        raise FaultError(f"'{name}' expects venue seconds from 0 to {_MOST_SECONDS:.0f}, was {raw!r}")
    return float(raw)


_HANDLERS: Final[dict[str, Callable[[Sandbox, dict[str, Any]], dict[str, Any]]]] = {
    "liquidation": _liquidation,
    "adl": _adl,
    "halt": _halt,
    "maintenance": _maintenance,
    "delist": _delist,
    "restrict": _restrict,
    "mark": _mark,
}


def _settled(
    handler: Callable[[Sandbox, dict[str, Any]], dict[str, Any]],
) -> Callable[[Sandbox, dict[str, Any]], dict[str, Any]]:
    def perform(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
        sandbox.advance()
        try:
            return handler(sandbox, body)
        finally:
            # Saved soon, and told at once to whoever listens.
            sandbox.venue.revision += 1
            sandbox.venue.settle(wall_ms=sandbox.monotonic_ms())
            sandbox.advance()

    return perform


def end_all(sandbox: Sandbox) -> None:
    """Let everything trade again that was told to stand still; what is delisted stays so."""
    venue = sandbox.venue
    state = venue.exchange.state
    for symbol in {one.symbol for one in state.interruptions}:
        end_interruption(state, symbol, at_ms=venue.ticked_ms + 1)
    state.restricted.clear()
    state.mark_factors.clear()


OPERATIONS: Final = {name: _settled(handler) for name, handler in _HANDLERS.items()}
"""The operations by name, as the control plane takes them."""
