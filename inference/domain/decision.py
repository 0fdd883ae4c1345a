"""What the decision chain answers for each candidate: an approval with its plan, or a denial with its code."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from msgspec import UNSET, UnsetType

from inference.domain.bias import SignalBias
from inference.domain.exit_profile import ExitProfile
from inference.domain.exit_state import ExitPlan
from inference.domain.governance import Resolution
from inference.domain.market import Instrument, Quote
from inference.domain.position import Account, Position
from inference.domain.risk import RiskView
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
    SIGNAL_QUALITY = "SIGNAL_QUALITY"
    EDGE_BELOW_COSTS = "EDGE_BELOW_COSTS"
    SIGNALS_BIASED = "SIGNALS_BIASED"
    POSITION_OPEN = "POSITION_OPEN"
    OUTSIDE_TRADING_WINDOW = "OUTSIDE_TRADING_WINDOW"
    SYMBOL_NOT_ALLOWED = "SYMBOL_NOT_ALLOWED"
    COOLDOWN = "COOLDOWN"
    LOSS_COOLDOWN = "LOSS_COOLDOWN"
    GLOBAL_COOLDOWN = "GLOBAL_COOLDOWN"
    SYMBOL_ENTRY_COUNT = "SYMBOL_ENTRY_COUNT"
    ENTRY_COUNT = "ENTRY_COUNT"
    MAX_POSITIONS = "MAX_POSITIONS"
    EXPOSURE_ABOVE_MAXIMUM = "EXPOSURE_ABOVE_MAXIMUM"
    HEAT_ABOVE_MAXIMUM = "HEAT_ABOVE_MAXIMUM"
    NOTIONAL_BELOW_MINIMUM = "NOTIONAL_BELOW_MINIMUM"
    NOTIONAL_ABOVE_MAXIMUM = "NOTIONAL_ABOVE_MAXIMUM"
    QUANTITY_BELOW_STEP = "QUANTITY_BELOW_STEP"
    STOP_UNUSABLE = "STOP_UNUSABLE"
    EMERGENCY_STOP = "EMERGENCY_STOP"
    BREAKER_OPEN = "BREAKER_OPEN"
    RISK_INPUT_MISSING = "RISK_INPUT_MISSING"
    PEAK_DRAWDOWN = "PEAK_DRAWDOWN"
    WEEKLY_DRAWDOWN = "WEEKLY_DRAWDOWN"
    LIQUIDATION_TOO_NEAR = "LIQUIDATION_TOO_NEAR"
    CONCENTRATION_ABOVE_MAXIMUM = "CONCENTRATION_ABOVE_MAXIMUM"
    CORRELATED_ABOVE_MAXIMUM = "CORRELATED_ABOVE_MAXIMUM"
    BETA_ABOVE_MAXIMUM = "BETA_ABOVE_MAXIMUM"
    VETO_CONFIDENCE = "VETO_CONFIDENCE"
    VETO_CORRELATION = "VETO_CORRELATION"
    VETO_DRAWDOWN = "VETO_DRAWDOWN"
    VETO_VOLATILITY = "VETO_VOLATILITY"
    VETO_SIZE = "VETO_SIZE"
    COMMITTEE_VETO = "COMMITTEE_VETO"
    COMMITTEE_CAP = "COMMITTEE_CAP"
    NO_EDGE_TO_BET = "NO_EDGE_TO_BET"


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
class RecentTrades:
    """Venue times of the entries of the last 24 hours, and of each symbol's last loss."""

    entered_ms: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    lost_ms: Mapping[str, int] = field(default_factory=dict)


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
    # What tiers, breaker and governor look at beside the account. Journals from before there were any have none, and
    # neither has a backtest: what would be read from it is not asked there.
    risk: RiskView | UnsetType = UNSET
    # There only where the policy counts entries or waits after losses.
    recent: RecentTrades | UnsetType = UNSET
    # There only where the policy enforces what the committee resolves.
    resolution: Resolution | UnsetType = UNSET
    # There only where the policy names a profile: what its name meant then.
    exits: ExitProfile | UnsetType = UNSET


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
    # Unset where the policy's three barriers are its exits.
    exits: ExitPlan | UnsetType = UNSET


@dataclass(frozen=True, slots=True, kw_only=True)
class Denied:
    """A candidate that goes no further, with the numbers that were compared."""

    symbol: str
    code: DenyCode
    context: Mapping[str, str]
    signal: SignalScore | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RankedSignal:
    """
    A candidate's place in a ranking by risk, with what put it there; None where it could not be judged.

    `worth` is net edge per unit of risk times confidence, `score` what `companions` left of it.
    """

    symbol: str
    trace_id: str
    worth: float | None
    score: float | None
    companions: int


Decision = Approved | Denied
