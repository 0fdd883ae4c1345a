"""A matching engine of one instrument, and short ways to use it."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import AlgoRequest, OrderEvent, OrderRequest, OrderType, PositionSide, Side
from infra.sandbox.engine.rules import Rules
from infra.sandbox.engine.state import new_state

D = Decimal
NAME = "COINUSDT"
COIN = Instrument(NAME, "COIN", 2, 1, D(5), D(10_000), D(5_000), D(50_000))
BUY, SELL = Side.BUY, Side.SELL
MARKET = OrderRequest(NAME, BUY, OrderType.MARKET, D(10))
LIMIT = OrderRequest(NAME, BUY, OrderType.LIMIT, D(10), price=D("99"))
STOP = AlgoRequest(NAME, SELL, OrderType.STOP_MARKET, D(10), trigger_price=D("98"), reduce_only=True)
TARGET = replace(STOP, type=OrderType.TAKE_PROFIT_MARKET, trigger_price=D("102"))
TRAILING = replace(STOP, type=OrderType.TRAILING_STOP_MARKET, trigger_price=None, callback_rate=D(2))


def make_exchange(price: str = "100", balance: str = "10000", **rules: object) -> Exchange:
    """Return an engine whose price is known; `rules` are fields of Rules."""
    state = new_state(D(balance))
    state.rules = Rules(**rules)  # type: ignore[arg-type]
    exchange = Exchange([COIN], state)
    move(exchange, price, now_ms=1)
    return exchange


def move(
    exchange: Exchange, price: str, *, now_ms: int = 2, volume: str | None = None, mark: str | None = None
) -> None:
    """Let the price be another one."""
    exchange.tick(
        {NAME: D(price)},
        now_ms=now_ms,
        volumes=None if volume is None else {NAME: D(volume)},
        marks=None if mark is None else {NAME: D(mark)},
    )


def held(exchange: Exchange, side: PositionSide = PositionSide.BOTH) -> Decimal:
    """Return the position."""
    return exchange.state.position(NAME, side).quantity


def code_of(call) -> int:
    """Return the code with which something is refused."""
    with pytest.raises(VenueError) as refusal:
        call()
    return refusal.value.code


def executions(exchange: Exchange) -> list[str]:
    """Return what happened to plain orders since the last look."""
    return [event.execution for event in exchange.drain() if isinstance(event, OrderEvent)]
