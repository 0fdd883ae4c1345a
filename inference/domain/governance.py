"""What a committee of roles resolves about entries, and every vote behind it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

ALL = "*"
"""Stands for every symbol where one is vetoed."""


class Role(StrEnum):
    """Who votes, each on what is its own."""

    CHIEF_EXECUTIVE = "chief_executive"
    CHIEF_RISK_OFFICER = "chief_risk_officer"
    CHIEF_INVESTMENT_OFFICER = "chief_investment_officer"
    COMPLIANCE = "compliance"
    AUDIT = "audit"


class Stance(StrEnum):
    """How much is ventured, from the boldest to the strictest; exits are taken in each of them."""

    NORMAL = "NORMAL"
    CAREFUL = "CAREFUL"
    EXITS_ONLY = "EXITS_ONLY"

    @property
    def strictness(self) -> int:
        """Its place in that order."""
        return _STRICTNESS.index(self)


_STRICTNESS = (Stance.NORMAL, Stance.CAREFUL, Stance.EXITS_ONLY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """
    What one role asks for, under which policy, and why in words that hold the numbers it compared.

    `budget` is the share of the policy's risk for each trade, 0 to 1. `caps` is the largest notional that a symbol may
    come to, in quote currency; symbols without one have none. `vetoes` says for a symbol, or for `ALL`, why it is not
    entered.
    """

    role: Role
    policy: str
    stance: Stance = Stance.NORMAL
    budget: Decimal = Decimal(1)
    caps: Mapping[str, Decimal]
    vetoes: Mapping[str, str]
    because: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what is no share and no notional."""
        if not 0 <= self.budget <= 1:
            raise ValueError(f"The budget of a vote lies in [0, 1], was {self.budget}")
        for symbol, cap in self.caps.items():
            if not (cap.is_finite() and cap >= 0):
                raise ValueError(f"The cap of {symbol} must be a notional of at least 0, was {cap}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Resolution:
    """
    What all votes come to: the strictest stance, the least budget, the lowest caps, every veto.

    `enforced` says whether the chain refuses by it; one that is not is journaled all the same.
    """

    stance: Stance
    budget: Decimal
    caps: Mapping[str, Decimal]
    vetoes: Mapping[str, str]
    votes: tuple[Vote, ...]
    enforced: bool

    def veto_of(self, symbol: str) -> str | None:
        """Return why a symbol may not be entered, or None."""
        return self.vetoes.get(ALL) or self.vetoes.get(symbol)
