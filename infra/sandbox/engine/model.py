"""Orders, conditional orders, trades and incomes as the engine keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from infra.sandbox.engine.position import Position

ZERO: Final = Decimal(0)


class Side(StrEnum):
    """Which way an order trades."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def sign(self) -> int:
        """Plus one when the order adds to a long position."""
        return 1 if self is Side.BUY else -1

    @property
    def opposite(self) -> Side:
        """The other side."""
        return Side.SELL if self is Side.BUY else Side.BUY


class PositionSide(StrEnum):
    """BOTH in one-way mode; LONG or SHORT in hedge mode."""

    BOTH = "BOTH"
    LONG = "LONG"
    SHORT = "SHORT"


class OrderType(StrEnum):
    """Order types of the plain and of the algo endpoint."""

    LIMIT = "LIMIT"
    MARKET = "MARKET"
    STOP = "STOP"
    STOP_MARKET = "STOP_MARKET"
    TAKE_PROFIT = "TAKE_PROFIT"
    TAKE_PROFIT_MARKET = "TAKE_PROFIT_MARKET"
    TRAILING_STOP_MARKET = "TRAILING_STOP_MARKET"


CONDITIONAL: Final = frozenset(set(OrderType) - {OrderType.LIMIT, OrderType.MARKET})
STOPS: Final = frozenset({OrderType.STOP, OrderType.STOP_MARKET, OrderType.TRAILING_STOP_MARKET})
TARGETS: Final = frozenset({OrderType.TAKE_PROFIT, OrderType.TAKE_PROFIT_MARKET})


class TimeInForce(StrEnum):
    """How long an order may wait."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTX = "GTX"
    GTD = "GTD"
    GTE_GTC = "GTE_GTC"


class OrderStatus(StrEnum):
    """Where an order is in its life."""

    NEW = "NEW"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    EXPIRED_IN_MATCH = "EXPIRED_IN_MATCH"


OPEN: Final = frozenset({OrderStatus.NEW, OrderStatus.PARTIALLY_FILLED})


class SelfTradePrevention(StrEnum):
    """Who makes way when an order would trade with another of the same account."""

    NONE = "NONE"
    EXPIRE_TAKER = "EXPIRE_TAKER"
    EXPIRE_MAKER = "EXPIRE_MAKER"
    EXPIRE_BOTH = "EXPIRE_BOTH"


class PriceMatch(StrEnum):
    """Whose price a limit order takes over as it arrives: that of a level of the other side, or of its own."""

    NONE = "NONE"
    OPPONENT = "OPPONENT"
    OPPONENT_5 = "OPPONENT_5"
    OPPONENT_10 = "OPPONENT_10"
    OPPONENT_20 = "OPPONENT_20"
    QUEUE = "QUEUE"
    QUEUE_5 = "QUEUE_5"
    QUEUE_10 = "QUEUE_10"
    QUEUE_20 = "QUEUE_20"

    @property
    def is_opponent(self) -> bool:
        """Whether it is a price at which the order takes."""
        return self.value.startswith("OPPONENT")

    @property
    def level(self) -> int:
        """Which level of the book, the best being the first."""
        return int(self.value.partition("_")[2] or 1)


class AlgoStatus(StrEnum):
    """Where a conditional order is in its life."""

    NEW = "NEW"
    TRIGGERED = "TRIGGERED"
    FINISHED = "FINISHED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REJECTED = "REJECTED"


class WorkingType(StrEnum):
    """Which price a trigger looks at."""

    CONTRACT_PRICE = "CONTRACT_PRICE"
    MARK_PRICE = "MARK_PRICE"


@dataclass(frozen=True, slots=True)
class OrderRequest:
    """A plain order as a client asks for it."""

    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    position_side: PositionSide = PositionSide.BOTH
    client_order_id: str = ""
    good_till_ms: int = 0
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER
    price_match: PriceMatch = PriceMatch.NONE
    # Whether it may reduce a position that other orders at rest would reduce to nothing; what executes never flips it.
    beside_others: bool = False


@dataclass(frozen=True, slots=True)
class AlgoRequest:
    """A conditional order as a client asks for it."""

    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    trigger_price: Decimal | None = None
    price: Decimal | None = None
    time_in_force: TimeInForce = TimeInForce.GTC
    reduce_only: bool = False
    close_position: bool = False
    position_side: PositionSide = PositionSide.BOTH
    working_type: WorkingType = WorkingType.CONTRACT_PRICE
    callback_rate: Decimal | None = None
    activate_price: Decimal | None = None
    client_algo_id: str = ""
    good_till_ms: int = 0
    price_protect: bool = False
    price_match: PriceMatch = PriceMatch.NONE


@dataclass(frozen=True, slots=True)
class Order:
    """A plain order, or the child that a conditional order sent when it triggered."""

    order_id: int
    client_order_id: str
    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    price: Decimal
    time_in_force: TimeInForce
    reduce_only: bool
    position_side: PositionSide
    status: OrderStatus
    created_ms: int
    updated_ms: int
    # Renewed by an amendment, which costs the order its place in the queue.
    queued: int
    filled: Decimal = ZERO
    filled_notional: Decimal = ZERO
    close_position: bool = False
    original_type: OrderType = OrderType.LIMIT
    stop_price: Decimal = ZERO
    algo_id: int = 0
    good_till_ms: int = 0
    working_type: WorkingType = WorkingType.CONTRACT_PRICE
    price_protect: bool = False
    self_trade_prevention: SelfTradePrevention = SelfTradePrevention.EXPIRE_MAKER
    price_match: PriceMatch = PriceMatch.NONE

    @property
    def remaining(self) -> Decimal:
        """What has not been filled."""
        return self.quantity - self.filled

    @property
    def average_price(self) -> Decimal:
        """Mean fill price, zero before the first fill."""
        return self.filled_notional / self.filled if self.filled else ZERO

    @property
    def is_open(self) -> bool:
        """Whether it may still fill."""
        return self.status in OPEN


@dataclass(frozen=True, slots=True)
class AlgoOrder:
    """A conditional order held by the venue."""

    algo_id: int
    client_algo_id: str
    symbol: str
    side: Side
    type: OrderType
    quantity: Decimal
    trigger_price: Decimal
    price: Decimal
    time_in_force: TimeInForce
    reduce_only: bool
    close_position: bool
    position_side: PositionSide
    working_type: WorkingType
    status: AlgoStatus
    created_ms: int
    updated_ms: int
    price_protect: bool = False
    callback_rate: Decimal | None = None
    activate_price: Decimal | None = None
    # Trailing only: whether it follows, and the best price since it does.
    activated: bool = False
    extreme: Decimal = ZERO
    triggered_ms: int = 0
    order_id: int = 0
    reason: str = ""
    good_till_ms: int = 0
    price_match: PriceMatch = PriceMatch.NONE

    @property
    def is_open(self) -> bool:
        """Whether it may still trigger."""
        return self.status is AlgoStatus.NEW


@dataclass(frozen=True, slots=True)
class Trade:
    """One fill."""

    trade_id: int
    order_id: int
    client_order_id: str
    symbol: str
    side: Side
    position_side: PositionSide
    price: Decimal
    quantity: Decimal
    fee: Decimal
    realized_pnl: Decimal
    is_maker: bool
    time_ms: int

    @property
    def notional(self) -> Decimal:
        """Price times quantity."""
        return self.price * self.quantity


@dataclass(frozen=True, slots=True)
class Income:
    """One movement of the wallet."""

    income_id: int
    symbol: str
    kind: str
    amount: Decimal
    time_ms: int
    trade_id: int = 0
    info: str = ""


@dataclass(frozen=True, slots=True)
class RoundTrip:
    """A position from flat to flat."""

    symbol: str
    position_side: PositionSide
    direction: str
    opened_ms: int
    closed_ms: int = 0
    entry_quantity: Decimal = ZERO
    entry_notional: Decimal = ZERO
    exit_quantity: Decimal = ZERO
    exit_notional: Decimal = ZERO
    fees: Decimal = ZERO
    funding: Decimal = ZERO
    realized_pnl: Decimal = ZERO
    entry_client_ids: tuple[str, ...] = ()
    exit_client_ids: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """An order changed: NEW, TRADE, CANCELED, EXPIRED or AMENDMENT."""

    order: Order
    execution: str
    time_ms: int
    trade: Trade | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class AlgoEvent:
    """A conditional order changed."""

    algo: AlgoOrder
    time_ms: int


@dataclass(frozen=True, slots=True)
class MarginMove:
    """Margin that was moved between the cross wallet and an isolated position; negative went back."""

    symbol: str
    position_side: PositionSide
    amount: Decimal
    time_ms: int
    by_user: bool


@dataclass(frozen=True, slots=True)
class Interruption:
    """A stretch in which a symbol, or each where none is named, does not trade; without an end it lasts."""

    symbol: str
    from_ms: int
    to_ms: int | None = None


@dataclass(frozen=True, slots=True)
class AccountEvent:
    """Balance or positions changed; both as they were right after it."""

    reason: str
    time_ms: int
    wallet: Decimal
    cross_wallet: Decimal
    balance_change: Decimal = ZERO
    positions: tuple[Position, ...] = field(default=())
    symbol: str = ""


@dataclass(frozen=True, slots=True)
class MarginCallEvent:
    """Positions are close to liquidation; the cross wallet is named where they share it."""

    positions: tuple[Position, ...]
    time_ms: int
    cross_wallet: Decimal | None = None


@dataclass(frozen=True, slots=True)
class ConfigEvent:
    """Leverage of a symbol changed."""

    symbol: str
    leverage: int
    time_ms: int


@dataclass(frozen=True, slots=True)
class TriggerRejectEvent:
    """A conditional order triggered and its child was refused."""

    algo: AlgoOrder
    time_ms: int


Event = OrderEvent | AlgoEvent | AccountEvent | MarginCallEvent | ConfigEvent | TriggerRejectEvent
