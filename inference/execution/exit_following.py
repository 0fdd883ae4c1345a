"""What a trade's exit brain knows, from the trade's orders and from what was seen: live and of a journal the same."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING

from msgspec import UnsetType
from msgspec.structs import replace

from inference.domain.exit_state import ExitState, Held, Seen
from inference.domain.order import Purpose
from inference.exits.brain import opened, step

if TYPE_CHECKING:
    from inference.execution.book import Trade

_ZERO = Decimal(0)


def state_of(trade: Trade) -> ExitState | None:
    """Return the state after what the trade's orders executed, None where it has no exit profile."""
    plan = trade.plan.exits
    if isinstance(plan, UnsetType):
        return None
    before = trade.exit_state or opened(plan.profile, plan.facts)
    return step(plan.profile, before, _held(trade, len(plan.profile.targets)))[0]


def seen_by(trade: Trade, seen: Seen) -> ExitState | None:
    """Return the state after something was seen, None where the trade has no exit profile."""
    plan, state = trade.plan.exits, trade.exit_state
    if isinstance(plan, UnsetType) or state is None:
        return None
    return step(plan.profile, state, seen)[0]


def is_news(trade: Trade, seen: Seen) -> bool:
    """Whether it changes anything of the exits of a trade but when its newest close was."""
    after = seen_by(trade, seen)
    return after is not None and trade.exit_state != replace(after, seen_ms=_seen_ms(trade))


def _seen_ms(trade: Trade) -> int:
    return 0 if trade.exit_state is None else trade.exit_state.seen_ms


def _held(trade: Trade, targets: int) -> Held:
    plan, found = trade.plan, max(_ZERO, -trade.external)
    price = trade.external_price or plan.reference_price
    cost = sum((order.traded(plan.reference_price) for order in trade.of(Purpose.ENTRY)), _ZERO)
    taken = [_ZERO] * targets
    for order in trade.of(Purpose.TARGET):
        number = order.intent.target
        if isinstance(number, int) and 1 <= number <= targets:
            taken[number - 1] += order.executed
    return Held(
        entered=trade.entered + found,
        cost=cost + found * price,
        exited=trade.exited + max(_ZERO, trade.external),
        taken=tuple(taken),
    )
