"""When a conditional order triggers, and what it then sends."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

from infra.sandbox.engine.checks import would_trigger
from infra.sandbox.engine.model import (
    TARGETS,
    ZERO,
    AlgoOrder,
    AlgoRequest,
    AlgoStatus,
    OrderRequest,
    OrderType,
    PriceMatch,
    Side,
    TimeInForce,
    WorkingType,
)

_PERCENT = Decimal(100)


def new_algo(request: AlgoRequest, *, algo_id: int, last: Decimal, now_ms: int) -> AlgoOrder:
    """Return the working conditional order for a checked request."""
    trailing = request.type is OrderType.TRAILING_STOP_MARKET
    active = trailing and (request.activate_price is None or request.activate_price == last)
    return AlgoOrder(
        algo_id=algo_id,
        client_algo_id=request.client_algo_id or f"sandboxalgo{algo_id}",
        symbol=request.symbol,
        side=request.side,
        type=request.type,
        quantity=request.quantity,
        trigger_price=request.trigger_price or ZERO,
        price=request.price or ZERO,
        time_in_force=request.time_in_force,
        reduce_only=request.reduce_only,
        close_position=request.close_position,
        position_side=request.position_side,
        working_type=request.working_type,
        status=AlgoStatus.NEW,
        created_ms=now_ms,
        updated_ms=now_ms,
        price_protect=request.price_protect,
        price_match=request.price_match,
        callback_rate=request.callback_rate,
        activate_price=request.activate_price,
        activated=active,
        extreme=last if active else ZERO,
        good_till_ms=request.good_till_ms,
    )


def observe(algo: AlgoOrder, price: Decimal) -> tuple[AlgoOrder, bool]:
    """Return the order after a price, and whether it triggers."""
    if algo.type is OrderType.TRAILING_STOP_MARKET:
        return _trail(algo, price)
    return algo, would_trigger(algo.type, algo.side, algo.trigger_price, price)


def child_request(algo: AlgoOrder, quantity: Decimal) -> OrderRequest:
    """Return the plain order a triggered conditional order sends, under the same client id."""
    is_limit = algo.type in {OrderType.STOP, OrderType.TAKE_PROFIT}
    return OrderRequest(
        symbol=algo.symbol,
        side=algo.side,
        type=OrderType.LIMIT if is_limit else OrderType.MARKET,
        quantity=quantity,
        price=algo.price if is_limit and algo.price_match is PriceMatch.NONE else None,
        time_in_force=algo.time_in_force if is_limit else TimeInForce.GTC,
        reduce_only=algo.reduce_only or algo.close_position,
        position_side=algo.position_side,
        client_order_id=algo.client_algo_id,
        good_till_ms=algo.good_till_ms,
        price_match=algo.price_match,
    )


def fill_reference(algo: AlgoOrder, price: Decimal) -> Decimal:
    """
    Return the last price the child's fill is built on: the worse of trigger and market.

    A stop that was gapped fills at the market; a target that was overshot is given its trigger, no more, since
    between two ticks a real venue would have filled it there. A mark price says nothing of where the market was.
    """
    if algo.type not in TARGETS or algo.working_type is WorkingType.MARK_PRICE:
        return price
    return min(price, algo.trigger_price) if algo.side is Side.SELL else max(price, algo.trigger_price)


def _trail(algo: AlgoOrder, price: Decimal) -> tuple[AlgoOrder, bool]:
    sells = algo.side is Side.SELL
    if not algo.activated:
        activate = algo.activate_price if algo.activate_price is not None else price
        reached = price >= activate if sells else price <= activate
        return (replace(algo, activated=True, extreme=price), False) if reached else (algo, False)
    extreme = max(algo.extreme, price) if sells else min(algo.extreme, price)
    rate = (algo.callback_rate or ZERO) / _PERCENT
    trigger = extreme * (1 - rate) if sells else extreme * (1 + rate)
    algo = replace(algo, extreme=extreme, trigger_price=trigger)
    return algo, (price <= trigger if sells else price >= trigger)
