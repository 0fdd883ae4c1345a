"""The control plane's rules of liquidity and latency: they are shown, and changed field by field."""

from __future__ import annotations

from dataclasses import asdict, fields, replace
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from infra.sandbox.engine.rules import Rules
from infra.sandbox.faults import FaultError

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

# The seed is the venue's, and the bound of market orders a filter that exchangeInfo tells of.
_FIXED = frozenset({"seed", "take_bound"})
NAMES = tuple(one.name for one in fields(Rules) if one.name not in _FIXED)


def rules(sandbox: Sandbox, body: dict[str, Any]) -> dict[str, Any]:
    """Change the rules that are named and return all of them."""
    state = sandbox.venue.exchange.state
    asked = {name: value for name, value in body.items() if name != "op" and value is not None}
    put_in_force(sandbox, changed(state.rules, asked))
    apply_feed_latency(sandbox)
    return {name: str(v) if isinstance(v, Decimal) else v for name, v in asdict(state.rules).items() if name in NAMES}


def changed(known: Rules, asked: dict[str, Any]) -> Rules:
    """
    Return rules with some of them changed.

    Raises:
        FaultError: A rule is unknown, or its value is not one that it can have.
    """
    unknown = sorted(asked.keys() - set(NAMES))
    if unknown:
        raise FaultError(f"Unknown rule '{unknown[0]}', expected {', '.join(NAMES)}")
    values = {name: _value(name, getattr(known, name), value) for name, value in asked.items()}
    try:
        return replace(known, **values)
    except ValueError as error:
        raise FaultError(str(error)) from error


def put_in_force(sandbox: Sandbox, told: Rules) -> None:
    """Let rules hold for every account that trades at the venue."""
    for account in sandbox.venue.accounts:
        account.state.rules = told


def switched_off(known: Rules) -> Rules:
    """Return rules of which only those that cannot be changed are left."""
    return Rules(seed=known.seed, take_bound=known.take_bound)


def apply_feed_latency(sandbox: Sandbox) -> None:
    """Let frames take as long as the rules say; the rules count venue time, frames travel on the wall's."""
    sandbox.hub.late.seconds = sandbox.venue.exchange.state.rules.feed_ms / 1000.0 / sandbox.clock.speed


def _value(name: str, known: object, raw: object) -> Any:
    if isinstance(known, bool) or isinstance(raw, bool):
        if isinstance(known, bool) and isinstance(raw, bool):
            return raw
    elif isinstance(known, int):
        if isinstance(raw, int):
            return raw
    else:
        try:
            return Decimal(str(raw))
        except InvalidOperation:
            pass
    expected = (
        "true or false" if isinstance(known, bool) else "a whole number" if isinstance(known, int) else "a number"
    )
    raise FaultError(f"Rule '{name}' was {raw!r}, expected {expected}")
