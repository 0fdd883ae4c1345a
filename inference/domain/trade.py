"""A trade from plan to result."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction


class ExitReason(StrEnum):
    """Why a trade ended or must end."""

    STOP = "STOP"
    TARGET = "TARGET"
    TIME_BARRIER = "TIME_BARRIER"
    # The venue would not hold a stop for it.
    UNPROTECTED = "UNPROTECTED"
    # The stop fired and did not fill.
    STOP_UNFILLED = "STOP_UNFILLED"
    OPERATOR = "OPERATOR"
    # Somebody else closed it: a person, a liquidation.
    EXTERNAL = "EXTERNAL"
    # The entry never executed.
    NOT_ENTERED = "NOT_ENTERED"


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePlan:
    """What an approval wants to happen, with the exits that protect it and the signal it came from."""

    trade_id: str
    trace_id: str
    symbol: str
    direction: Direction
    quantity: Decimal
    reference_price: Decimal
    stop_price: Decimal
    target_price: Decimal
    risk: Decimal
    confidence: float
    model_version: str
    candle_close_ms: int
    planned_at_ms: int
    entry_style: EntryStyle = EntryStyle.MARKET
    # Until when the entry may rest, in the venue's time; zero where it does not.
    entry_until_ms: int = 0
    # Halfway between bid and ask as they were decided on, where that is known.
    arrival_price: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class TradeResult:
    """
    What a trade came to, in quote currency.

    `pnl` is net of `fees`. `fills_complete` is False when the venue did not show every execution in time and the
    rest was taken from its order reports.
    """

    symbol: str
    direction: Direction
    reason: ExitReason
    quantity: Decimal
    entry_price: Decimal | None
    exit_price: Decimal | None
    pnl: Decimal
    fees: Decimal
    opened_at_ms: int
    closed_at_ms: int
    fills_complete: bool
