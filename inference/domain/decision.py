"""What the decision chain answers for each candidate: an approval with its plan, or a denial with its code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from msgspec import UNSET, UnsetType

from inference.domain.bias import SignalBias
from inference.domain.market import Instrument, Quote
from inference.domain.position import Account, Position
from inference.domain.signal import Direction, SignalScore


class TradingState(StrEnum):
    """What the worker may do: everything, only reduce, or nothing but exits."""

    ACTIVE = "ACTIVE"
    REDUCING = "REDUCING"
    HALTED = "HALTED"


class DenyCode(StrEnum):
    """Why a candidate was denied; each is counted."""

    TRADING_STATE = "TRADING_STATE"
    DAILY_DRAWDOWN = "DAILY_DRAWDOWN"
    STALE_DATA = "STALE_DATA"
    FEATURES_INCOMPLETE = "FEATURES_INCOMPLETE"
    NO_QUOTE = "NO_QUOTE"
    CONFIDENCE_BELOW_THRESHOLD = "CONFIDENCE_BELOW_THRESHOLD"
    EDGE_BELOW_COSTS = "EDGE_BELOW_COSTS"
    SIGNALS_BIASED = "SIGNALS_BIASED"
    POSITION_OPEN = "POSITION_OPEN"
    COOLDOWN = "COOLDOWN"
    MAX_POSITIONS = "MAX_POSITIONS"
    EXPOSURE_ABOVE_MAXIMUM = "EXPOSURE_ABOVE_MAXIMUM"
    HEAT_ABOVE_MAXIMUM = "HEAT_ABOVE_MAXIMUM"
    NOTIONAL_BELOW_MINIMUM = "NOTIONAL_BELOW_MINIMUM"
    NOTIONAL_ABOVE_MAXIMUM = "NOTIONAL_ABOVE_MAXIMUM"
    QUANTITY_BELOW_STEP = "QUANTITY_BELOW_STEP"
    STOP_UNUSABLE = "STOP_UNUSABLE"


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A signal with what sizing needs: the average true range in price units and the decision threshold."""

    signal: SignalScore
    atr: float
    close: float
    threshold: float

    def __post_init__(self) -> None:
        """Refuse numbers that are none: a symbol without them belongs into `Snapshot.incomplete`."""
        for name in ("atr", "close", "threshold"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"Candidate {self.signal.symbol} needs a finite {name}, was {getattr(self, name)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Snapshot:
    """Everything a decision may look at; nothing else is consulted."""

    candle_close_ms: int
    trading_state: TradingState
    account: Account
    candidates: tuple[Candidate, ...]
    positions: Mapping[str, Position]
    # Entries sent and not yet known to be filled or refused, by symbol, with their notional.
    in_flight: Mapping[str, Decimal]
    # Money at risk at the stop of each open position or entry in flight, by symbol.
    heat: Mapping[str, Decimal]
    instruments: Mapping[str, Instrument]
    quotes: Mapping[str, Quote]
    last_entry_ms: Mapping[str, int]
    # Symbols that could not be scored, with the reason.
    incomplete: Mapping[str, str] = field(default_factory=dict)
    timeframe_ms: int = 300_000
    # There only where a bias is enforced, so that journals without one stay as they were, to the byte.
    bias: SignalBias | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Approved:
    """An entry worth sending, with the prices of the exits that protect it."""

    symbol: str
    direction: Direction
    quantity: Decimal
    reference_price: Decimal
    stop_price: Decimal
    target_price: Decimal
    risk: Decimal
    signal: SignalScore


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A candidate that goes no further, with the numbers that were compared."""

    symbol: str
    code: DenyCode
    context: Mapping[str, str]
    signal: SignalScore | None = None


Decision = Approved | Denied
