"""Everything the engine remembers, and its JSON form."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal

import msgspec

from infra.sandbox.engine.liquidity import Bar
from infra.sandbox.engine.model import (
    ZERO,
    AlgoOrder,
    Income,
    Interruption,
    MarginMove,
    Order,
    PositionSide,
    RoundTrip,
    Trade,
)
from infra.sandbox.engine.position import Position, position_key
from infra.sandbox.engine.rules import Rules

DEFAULT_LEVERAGE = 20
SCHEMA = 1


@dataclass(slots=True)
class EngineState:
    """One account: wallet, positions, orders and their history."""

    wallet: Decimal
    opening_balance: Decimal
    positions: dict[str, Position] = field(default_factory=dict)
    orders: dict[int, Order] = field(default_factory=dict)
    algos: dict[int, AlgoOrder] = field(default_factory=dict)
    trades: list[Trade] = field(default_factory=list)
    incomes: list[Income] = field(default_factory=list)
    trips: list[RoundTrip] = field(default_factory=list)
    open_trips: dict[str, RoundTrip] = field(default_factory=dict)
    leverage: dict[str, int] = field(default_factory=dict)
    isolated: set[str] = field(default_factory=set)
    last_prices: dict[str, Decimal] = field(default_factory=dict)
    # Mark prices where they are known to differ from the last ones.
    mark_prices: dict[str, Decimal] = field(default_factory=dict)
    # By how many times the mark price is the last one, where somebody pulled the two apart.
    mark_factors: dict[str, Decimal] = field(default_factory=dict)
    rules: Rules = field(default_factory=Rules)
    bars: dict[str, Bar] = field(default_factory=dict)
    # Id of a resting order -> what is to be traded at its price before it.
    ahead: dict[int, Decimal] = field(default_factory=dict)
    # Client id -> ids of the distinct orders that filled under it.
    executed: dict[str, list[int]] = field(default_factory=dict)
    # Symbol -> when its plain orders are cancelled, unless its client speaks before.
    countdowns: dict[str, int] = field(default_factory=dict)
    hedge_mode: bool = False
    margin_moves: list[MarginMove] = field(default_factory=list)
    # Who was warned of a liquidation and has not recovered since: position keys, or CROSS.
    margin_called: set[str] = field(default_factory=set)
    # When symbols do not trade, when they are delisted, who was settled, and where positions may only shrink.
    interruptions: list[Interruption] = field(default_factory=list)
    delistings: dict[str, int] = field(default_factory=dict)
    settled: set[str] = field(default_factory=set)
    restricted: set[str] = field(default_factory=set)
    next_order_id: int = 1_000_001
    next_algo_id: int = 2_000_001
    next_trade_id: int = 1
    next_income_id: int = 1
    next_queue: int = 1
    schema: int = SCHEMA

    def position(self, symbol: str, position_side: PositionSide) -> Position:
        """Return the position, flat when there is none."""
        return self.positions.get(position_key(symbol, position_side)) or Position(symbol, position_side)

    def leverage_of(self, symbol: str) -> int:
        """Leverage set for the symbol."""
        return self.leverage.get(symbol, DEFAULT_LEVERAGE)

    def open_positions(self) -> list[Position]:
        """Positions that are not flat."""
        return [one for one in self.positions.values() if one.quantity]

    def cross_wallet(self) -> Decimal:
        """The wallet without what isolated positions hold of it."""
        if not self.isolated:
            return self.wallet
        return self.wallet - sum((one.isolated_wallet for one in self.positions.values()), ZERO)


def new_state(balance: Decimal) -> EngineState:
    """Return an account that holds `balance` and nothing else."""
    return EngineState(wallet=balance, opening_balance=balance)


def encode(state: EngineState) -> bytes:
    """Write the state as JSON."""
    return msgspec.json.encode(state)


def decode(raw: bytes) -> EngineState:
    """
    Read a state back.

    Raises:
        ValueError: It is not the JSON of a state of this schema.
    """
    state = msgspec.json.decode(raw, type=EngineState)
    if state.schema != SCHEMA:
        raise ValueError(f"Engine state has schema {state.schema}, expected {SCHEMA}")
    return state


def total_fees(state: EngineState) -> Decimal:
    """Sum of all fees paid."""
    return sum((trade.fee for trade in state.trades), ZERO)
