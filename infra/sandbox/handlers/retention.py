"""How long the venue answers for an order that has ended: what nobody filled for three days, all else for ninety."""

from __future__ import annotations

from infra.sandbox.engine.model import AlgoOrder, AlgoStatus, Order, OrderStatus

DAY_MS = 86_400_000
UNFILLED_MS = 3 * DAY_MS
KEPT_MS = 90 * DAY_MS

_CANCELLED = frozenset({OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.EXPIRED_IN_MATCH})
_CANCELLED_ALGO = frozenset({AlgoStatus.CANCELED, AlgoStatus.EXPIRED, AlgoStatus.REJECTED})


def is_kept(order: Order, now_ms: int) -> bool:
    """Tell whether an order is still found, by the age of its creation; one that rests is, whatever its age."""
    if order.is_open:
        return True
    is_unfilled = order.status in _CANCELLED and not order.filled
    return order.created_ms + (UNFILLED_MS if is_unfilled else KEPT_MS) >= now_ms


def is_algo_kept(algo: AlgoOrder, now_ms: int) -> bool:
    """Tell whether a conditional order is still found; one that waits is, whatever its age."""
    if algo.is_open:
        return True
    return algo.created_ms + (UNFILLED_MS if algo.status in _CANCELLED_ALGO else KEPT_MS) >= now_ms


def is_archived(order: Order | AlgoOrder, now_ms: int) -> bool:
    """Tell whether the spot venue has put an order away: cancelled ninety days ago, and never filled."""
    if isinstance(order, AlgoOrder):
        is_unfilled = order.status in _CANCELLED_ALGO
    else:
        is_unfilled = order.status in _CANCELLED and not order.filled
    return is_unfilled and order.updated_ms + KEPT_MS < now_ms
