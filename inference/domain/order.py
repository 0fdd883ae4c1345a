"""What we want, what we sent, what the venue says, and what was executed."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from msgspec import UNSET, UnsetType

from inference.domain.signal import Direction
from inference.domain.trade_end import ExitReason


class Side(StrEnum):
    """Side of an order."""

    BUY = "BUY"
    SELL = "SELL"

    @property
    def opposite(self) -> Side:
        """The side that undoes this one."""
        return Side.SELL if self is Side.BUY else Side.BUY

    @classmethod
    def opening(cls, direction: Direction) -> Side:
        """Return the side that opens a position in `direction`."""
        return cls.BUY if direction is Direction.LONG else cls.SELL


class OrderType(StrEnum):
    """How an order executes."""

    MARKET = "MARKET"
    LIMIT = "LIMIT"
    STOP_MARKET = "STOP_MARKET"
    TAKE_PROFIT_MARKET = "TAKE_PROFIT_MARKET"


class Purpose(StrEnum):
    """Why an order exists; every purpose but ENTRY is reduce-only."""

    ENTRY = "ENTRY"
    STOP = "STOP"
    TARGET = "TARGET"
    EXIT = "EXIT"


class OrderStatus(StrEnum):
    """Where an order is in its life. UNKNOWN means it may exist and must be queried."""

    INTENDED = "INTENDED"
    IN_FLIGHT = "IN_FLIGHT"
    UNKNOWN = "UNKNOWN"
    ACCEPTED = "ACCEPTED"
    PARTIALLY_FILLED = "PARTIALLY_FILLED"
    FILLED = "FILLED"
    CANCELED = "CANCELED"
    EXPIRED = "EXPIRED"
    REFUSED = "REFUSED"
    # A conditional order that fired: the order it became is working.
    TRIGGERED = "TRIGGERED"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing but a late fill may still happen."""
        return self in _TERMINAL


_TERMINAL = frozenset({OrderStatus.FILLED, OrderStatus.CANCELED, OrderStatus.EXPIRED, OrderStatus.REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderIntent:
    """An order as we want it, journaled before anything is sent. Prices are None where the type needs none."""

    client_order_id: str
    trade_id: str
    trace_id: str
    symbol: str
    side: Side
    order_type: OrderType
    purpose: Purpose
    quantity: Decimal
    limit_price: Decimal | None = None
    trigger_price: Decimal | None = None
    # Refused by the venue rather than executed at once: for limit orders that must not take.
    post_only: bool = False
    # What the price was when the order was decided on: for a conditional order, its trigger.
    arrival_price: Decimal | None = None
    # Of an exit profile: the number of a target, and why a stop lies where it does.
    target: int | UnsetType = UNSET
    because: ExitReason | UnsetType = UNSET

    @property
    def rests(self) -> bool:
        """Whether it may wait at the venue for somebody to trade with it."""
        return self.order_type is OrderType.LIMIT

    @property
    def reduce_only(self) -> bool:
        """Whether the order may only shrink a position."""
        return self.purpose is not Purpose.ENTRY

    @property
    def is_conditional(self) -> bool:
        """Whether the venue holds the order until a trigger price trades."""
        return self.order_type in (OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET)


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderReport:
    """What the venue says of an order. `filled` is cumulative, in base units."""

    client_order_id: str
    venue_order_id: str
    symbol: str
    status: OrderStatus
    filled: Decimal
    average_price: Decimal | None
    event_time_ms: int
    # Set on a conditional order that fired: the id of the order it became.
    child_order_id: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Fill:
    """One execution, identified by the venue's trade id so that booking it twice changes nothing."""

    fill_id: str
    client_order_id: str
    venue_order_id: str
    symbol: str
    side: Side
    quantity: Decimal
    price: Decimal
    fee: Decimal
    is_maker: bool
    event_time_ms: int
