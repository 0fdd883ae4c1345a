"""What a policy must say before it may trade real money, and how far it may go there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal

from inference.domain.policy import Policy


@dataclass(frozen=True, slots=True, kw_only=True)
class Need:
    """A guard that must have a number: any of its `rules` will do. `example` is one that is no advice, but a number."""

    what: str
    rules: tuple[str, ...]
    example: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Ceiling:
    """The most that a rule, or what rules come to, may be with real money, and why."""

    name: str
    most: Decimal
    found: Callable[[Policy], Decimal]
    why: str


# Each of these guards is off by default: a limit that nobody chose is no limit that somebody stands by.
NEEDS = (
    Need(what="a volatility above which nothing is entered", rules=("governor_max_volatility",), example="0.03"),
    Need(
        what="a share of the drawdown limits from which on nothing is entered",
        rules=("governor_drawdown_share",),
        example="0.8",
    ),
    Need(
        what="a limit of what moves together",
        rules=("governor_max_companions", "max_correlated_exposure"),
        example="2",
    ),
    Need(
        what="a row of losses, a loss or refused orders that pause entries",
        rules=("breaker_losses", "breaker_loss_share", "breaker_errors"),
        example="4",
    ),
)
CEILINGS = (
    Ceiling(
        name="leverage",
        most=Decimal(10),
        found=lambda policy: Decimal(policy.leverage),
        # 1 / leverage less the venue's maintenance margin: a tenth less one percent.
        why="beyond 10 a fall of less than 9 % liquidates",
    ),
    Ceiling(
        name="max_portfolio_heat",
        most=Decimal("0.20"),
        found=lambda policy: policy.max_portfolio_heat,
        why="markets fall together: every stop hit at once must not cost more than the wall of 20 % from the peak",
    ),
    Ceiling(
        name="risk_per_trade",
        most=Decimal("0.02"),
        # What confidence may make of it, within the cap of every sizing.
        found=lambda policy: min(policy.risk_per_trade * policy.max_size_multiplier, policy.max_risk_per_trade),
        why="at 2 % ten losses in a row cost 18 %, just less than the wall of 20 % from the peak",
    ),
)


def unset_for_live(policy: Policy) -> tuple[Need, ...]:
    """Return the guards without a number, which real money must not go without."""
    return tuple(one for one in NEEDS if all(getattr(policy, name) is None for name in one.rules))


def above_for_live(policy: Policy) -> tuple[Ceiling, ...]:
    """Return the ceilings of real money that a policy is above."""
    return tuple(one for one in CEILINGS if one.found(policy) > one.most)


def unfit_for_live(policy: Policy) -> str:
    """Return what is unset or above a ceiling, each by its name and with what to set; empty where nothing is."""
    unset = [
        f"{' or '.join(one.rules)} is unset ({one.what}; for example {one.rules[0]}={one.example})"
        for one in unset_for_live(policy)
    ]
    above = [
        f"{one.name} is {one.found(policy).normalize():f}, the most is {one.most:f} ({one.why})"
        for one in above_for_live(policy)
    ]
    return "; ".join([*unset, *above])
