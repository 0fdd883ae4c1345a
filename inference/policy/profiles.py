"""Sets of rules that have a name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

from inference.domain.bias import BiasMode
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy

DEFAULT = "default"


@dataclass(frozen=True, slots=True, kw_only=True)
class Profile:
    """A named policy, and what it is for."""

    says: str
    policy: Policy


_D = Decimal
# The figures of the source documents, as far as they agree with themselves. Its 10 % of equity per trade is more than
# its own maximum of 5 %, which is taken instead; its twenty positions at 5 % each are a heat of all equity; what
# correlates above 0.7 with a position is not entered beside it; of liquidation it says nothing.
_SOURCE = Policy(
    confidence_threshold=0.7,
    max_daily_drawdown=_D("0.15"),
    max_weekly_drawdown=_D("0.25"),
    warn_daily_drawdown=_D("0.10"),
    min_risk_per_trade=_D("0.01"),
    risk_per_trade=_D("0.05"),
    max_risk_per_trade=_D("0.05"),
    max_portfolio_heat=_D(1),
    min_size_multiplier=_D("0.5"),
    max_size_multiplier=_D("1.5"),
    leverage=30,
    # Target 1.5 R of a stop that it leaves open.
    target_atr_multiple=_D("4.5"),
    min_liquidation_stops=_D(1),
    governor_min_confidence=0.6,
    governor_max_companions=0,
    bias_mode=BiasMode.ENFORCE,
)
_CAUTIOUS = Policy(
    risk_per_trade=_D("0.0025"),
    max_risk_per_trade=_D("0.005"),
    max_portfolio_heat=_D("0.02"),
    leverage=1,
    max_positions=8,
    max_exposure=_D(1),
    max_correlated_exposure=_D("0.5"),
    max_btc_beta=_D("0.75"),
    max_concentration=_D("0.2"),
    max_daily_drawdown=_D("0.02"),
    warn_daily_drawdown=_D("0.01"),
    max_weekly_drawdown=_D("0.04"),
    wall_daily_drawdown=_D("0.05"),
    wall_weekly_drawdown=_D("0.08"),
    wall_peak_drawdown=_D("0.10"),
    min_liquidation_stops=_D(5),
    governor_drawdown_share=_D("0.8"),
    governor_max_volatility=_D("0.03"),
    breaker_losses=4,
    global_cooldown_seconds=30,
    loss_cooldown_seconds=3600,
    max_entries_per_hour=6,
    max_entries_per_day=30,
    max_symbol_entries_per_day=4,
    emergency_errors=3,
    emergency_feed_seconds=120,
    bias_mode=BiasMode.ENFORCE,
)

PROFILES: Mapping[str, Profile] = MappingProxyType(
    {
        DEFAULT: Profile(
            says="risk 1 % to the stop, leverage 3, heat 6 %, 3 % a day, 6 % a week, walls 15 %, 25 % and 20 %",
            policy=Policy(),
        ),
        "cautious": Profile(
            says="for the first weeks with real money: no leverage, few and small trades", policy=_CAUTIOUS
        ),
        "source": Profile(
            says="figures of the source documents: leverage 30, 15 % a day, 25 % a week; not for real money",
            policy=_SOURCE,
        ),
    }
)


def profile(name: str) -> Profile:
    """
    Return a profile.

    Raises:
        PolicyError: There is none of that name.
    """
    if name in PROFILES:
        return PROFILES[name]
    near = difflib.get_close_matches(name, PROFILES, n=1)
    meant = f"did you mean {near[0]}?" if near else f"there are {', '.join(PROFILES)}"
    raise PolicyError(f"There is no policy profile {name[:60]!r}; {meant}")
