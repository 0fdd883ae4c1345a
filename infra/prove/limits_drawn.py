"""What proofs of the decision chain draw at random: policies over their bounds, and optional parts of a snapshot."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from inference.domain.bias import SignalBias
from inference.domain.governance import ALL, Resolution, Stance
from inference.domain.policy import Policy
from inference.domain.signal import Direction

WINDOWS: Mapping[str, Callable[[datetime], bool]] = {
    "mon-fri 05:00-23:00": lambda at: at.weekday() < 5 and 5 <= at.hour < 23,
    "mon-sun 18:00-12:00": lambda at: at.hour >= 18 or at.hour < 12,
    "sat-wed 00:00-24:00": lambda at: at.weekday() in {5, 6, 0, 1, 2},
}
"""Windows that are drawn, each with this file's own reading of it, of a moment in UTC."""
DAYS_OFF = ("2025-06-16", "2025-06-17", "2025-06-19", "2025-06-24", "2025-07-01", "2025-07-08")
_LISTED = ("ETH", "SOL/USDT:USDT", "XRP", "ADA/USDT:USDT", "BNB")
_REFUSED = ("BTC", "LTC/USDT:USDT")


def drawn_policy(rng: random.Random) -> Policy:
    """Return a policy drawn over what the bounds allow; what refuses most is off in most of them."""
    choices: dict[str, list[Any]] = {
        "max_positions": [1, 3, 20],
        "max_exposure": [Decimal("0.5"), Decimal(2)],
        "cooldown_seconds": [0, 120, 3600, 43_200],
        "risk_per_trade": [Decimal("0.002"), Decimal("0.01")],
        "max_risk_per_trade": [Decimal("0.01"), Decimal("0.05")],
        "max_portfolio_heat": [Decimal("0.01"), Decimal("0.06")],
        "min_notional": [Decimal(5), Decimal(5), Decimal(100)],
        "max_notional": [Decimal(500), Decimal(2000), Decimal(1_000_000)],
        "leverage": [1, 3, 3, 30],
        "min_liquidation_stops": [Decimal(1), Decimal(3), Decimal(3), Decimal(10)],
        "max_daily_drawdown": [Decimal("0.03"), Decimal("0.15")],
        "max_weekly_drawdown": [Decimal("0.06"), Decimal("0.25")],
        "wall_peak_drawdown": [Decimal("0.12"), Decimal("0.20"), Decimal("0.20")],
        "max_correlated_exposure": [None, Decimal("0.6"), Decimal(1)],
        "max_btc_beta": [None, Decimal("0.4"), Decimal("1.5")],
        "max_concentration": [None, Decimal("0.2")],
        "min_size_multiplier": [Decimal("0.5"), Decimal(1)],
        "max_size_multiplier": [Decimal(1), Decimal("1.5")],
        "kelly_fraction": [None, None, Decimal("0.25"), Decimal("0.01")],
        "target_volatility": [None, Decimal("0.003")],
        "unknown_regime_size": [Decimal(0), Decimal("0.5"), Decimal(1), Decimal(1)],
        "breaker_losses": [None, 2],
        "breaker_loss_share": [None, Decimal("0.02")],
        "breaker_errors": [None, 3],
        "breaker_pause_seconds": [300, 7200],
        "governor_min_confidence": [0.5, 0.7],
        "governor_drawdown_share": [None, Decimal("0.5")],
        "governor_max_volatility": [None, None, Decimal("0.005")],
        "governor_max_companions": [None, 0, 2],
        "max_holding_candles": [1, 12],
        "trading_windows": [(), (), (), *((one,) for one in WINDOWS), tuple(WINDOWS)],
        "days_off": [(), DAYS_OFF],
        "allowed_symbols": [(), (), (), _LISTED],
        "denied_symbols": [(), (), _REFUSED],
        "global_cooldown_seconds": [0, 0, 0, 900],
        "loss_cooldown_seconds": [0, 0, 7200],
        "max_entries_per_hour": [None, None, 1, 3],
        "max_entries_per_day": [None, None, 3, 6],
        "max_symbol_entries_per_hour": [None, None, 1],
        "max_symbol_entries_per_day": [None, None, 1, 2],
    }
    drawn = {name: rng.choice(values) for name, values in choices.items()}
    least = drawn["risk_per_trade"] * rng.choice([Decimal(0), Decimal(0), Decimal("0.6")])
    return Policy(confidence_threshold=0.5, min_risk_per_trade=least, **drawn)


def drawn_bias(rng: random.Random) -> SignalBias:
    """Return a lean of signals that is a bias in about half of all draws."""
    return SignalBias(
        side=rng.choice([Direction.LONG, Direction.SHORT]),
        share=rng.uniform(0.5, 1),
        usual=rng.uniform(0.3, 0.7),
        limit=rng.uniform(0.7, 0.8),
        candles=rng.choice([5, 20, 20, 20]),
        window=20,
    )


def drawn_resolution(rng: random.Random, symbols: Sequence[str]) -> Resolution:
    """Return what an enforced committee resolves: mostly to go on, with a smaller budget and caps of some symbols."""
    return Resolution(
        stance=rng.choices(list(Stance), [6, 4, 1])[0],
        budget=rng.choice([Decimal(1), Decimal("0.5"), Decimal("0.01"), Decimal(2) / 7]),
        caps={one: Decimal(rng.choice([10, 300, 10**6])) / 7 for one in sorted(symbols)[::2]},
        vetoes=rng.choices([{}, {rng.choice(symbols): "on a list"}, {ALL: "no word"}], [6, 3, 1])[0],
        votes=(),
        enforced=True,
    )
