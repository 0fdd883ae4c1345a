"""All trading rules of a deployment, as one frozen, fingerprinted value."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from decimal import Decimal
from enum import StrEnum

from inference.domain.errors import PolicyError


class EntryStyle(StrEnum):
    """How an entry is worked: at market, or resting at the best price of its own side for a while."""

    MARKET = "market"
    # What rests is cancelled once its time is over, and the rest bought or sold at market.
    LIMIT = "limit"
    # It follows the best price and never takes; what has not been filled in time is not entered.
    POST_ONLY = "post_only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Policy:
    """
    First version of the rules a candidate must pass.

    `confidence_threshold` None means: the threshold tuned in training and carried by the bundle.
    Fractions are of equity (0.03 is three percent); money is quote currency.
    """

    confidence_threshold: float | None = None
    cooldown_seconds: int = 120
    max_positions: int = 20
    min_notional: Decimal = Decimal(100)
    max_notional: Decimal = Decimal(2000)
    max_exposure: Decimal = Decimal(2)
    max_daily_drawdown: Decimal = Decimal("0.03")
    risk_per_trade: Decimal = Decimal("0.01")
    max_portfolio_heat: Decimal = Decimal("0.06")
    leverage: int = 3
    stop_atr_multiple: Decimal = Decimal(3)
    target_atr_multiple: Decimal = Decimal(4)
    max_holding_candles: int = 12
    taker_fee: Decimal = Decimal("0.0005")
    slippage: Decimal = Decimal("0.0002")
    stale_after_candles: int = 1
    entry_style: EntryStyle = EntryStyle.MARKET
    entry_patience_seconds: int = 30

    def __post_init__(self) -> None:
        """Refuse values outside their bounds and sets that contradict themselves."""
        problems = [
            (0 < self.risk_per_trade <= Decimal("0.05"), "risk_per_trade must lie in (0, 0.05]"),
            (self.min_notional <= self.max_notional, "min_notional must not exceed max_notional"),
            (self.min_notional > 0, "min_notional must be positive"),
            (1 <= self.max_positions <= 500, "max_positions must lie in [1, 500]"),
            (self.cooldown_seconds >= 0, "cooldown_seconds must not be negative"),
            (0 < self.max_daily_drawdown <= Decimal("0.15"), "max_daily_drawdown must lie in (0, 0.15]"),
            (self.risk_per_trade <= self.max_portfolio_heat, "risk_per_trade must not exceed max_portfolio_heat"),
            (1 <= self.leverage <= 30, "leverage must lie in [1, 30]"),
            (self.stop_atr_multiple > 0, "stop_atr_multiple must be positive"),
            (self.target_atr_multiple > 0, "target_atr_multiple must be positive"),
            (1 <= self.entry_patience_seconds <= 3600, "entry_patience_seconds must lie in [1, 3600]"),
            (self.max_holding_candles >= 1, "max_holding_candles must be at least 1"),
            (
                self.confidence_threshold is None or 0.5 <= self.confidence_threshold < 1,
                "confidence_threshold must lie in [0.5, 1)",
            ),
        ]
        for holds, message in problems:
            if not holds:
                raise PolicyError(f"Policy refused: {message}")

    @property
    def fingerprint(self) -> str:
        """SHA-256 over every rule, so that a decision can name the policy it was made under."""
        rules = asdict(self)
        if self.entry_style is EntryStyle.MARKET:
            # As it was before there was a choice: what is decided by it is the same.
            del rules["entry_style"], rules["entry_patience_seconds"]
        text = json.dumps(rules, sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()
