"""What happens before an order of the account would trade with another one of the same account."""

from __future__ import annotations

from collections.abc import Collection

from infra.sandbox.engine.liquidity import Fills
from infra.sandbox.engine.model import Order, OrderRequest, SelfTradePrevention

_TAKER_ENDS = frozenset({SelfTradePrevention.EXPIRE_TAKER, SelfTradePrevention.EXPIRE_BOTH})
_MAKER_ENDS = frozenset({SelfTradePrevention.EXPIRE_MAKER, SelfTradePrevention.EXPIRE_BOTH})


def met(taker: Order | OrderRequest, fills: Fills, resting: Collection[Order]) -> list[Order]:
    """Return the resting orders that a taker's fills reach: best price first, then by place in the queue."""
    if not fills or not resting or taker.self_trade_prevention is SelfTradePrevention.NONE:
        return []
    sign, worst = taker.side.sign, fills[-1][0]
    reached = [one for one in resting if one.side is not taker.side and (worst - one.price) * sign >= 0]
    return sorted(reached, key=lambda one: (sign * one.price, one.queued))


def before_meeting(taker: Order | OrderRequest, fills: Fills, reached: list[Order]) -> Fills:
    """Return the fills that a taker may have: all of them, or those before it would have met itself."""
    if not reached or taker.self_trade_prevention not in _TAKER_ENDS:
        return fills
    sign, first = taker.side.sign, reached[0].price
    return [(price, quantity) for price, quantity in fills if (price - first) * sign < 0]


def makers_that_end(taker: Order, reached: list[Order]) -> list[Order]:
    """Return the resting orders that make way; where the taker ends as well, the first price that it met is enough."""
    mode = taker.self_trade_prevention
    if not reached or mode not in _MAKER_ENDS:
        return []
    return reached if mode not in _TAKER_ENDS else [one for one in reached if one.price == reached[0].price]


def taker_ends(taker: Order, reached: list[Order]) -> bool:
    """Whether what is left of a taker makes way."""
    return bool(reached) and taker.self_trade_prevention in _TAKER_ENDS
