"""A trade from plan to result."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from msgspec import UNSET, UnsetType

from inference.domain.exit_state import ExitPlan
from inference.domain.policy import EntryStyle
from inference.domain.signal import Direction
from inference.domain.trade_end import ExitReason

__all__ = ["ExitReason", "TradePlan", "TradeResult"]


@dataclass(frozen=True, slots=True, kw_only=True)
class TradePlan:
    """
    What an approval wants to happen, with the exits that protect it and the signal it came from.

    Where a profile ends it, `stop_price` is the first stop there is, and `target_price` the nearest target.
    """

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
    # By which profile it ends; unset where the three barriers of the policy end it.
    exits: ExitPlan | UnsetType = UNSET


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
