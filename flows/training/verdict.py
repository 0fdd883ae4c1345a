"""Promote, hold or refuse: how the checks of all gates become one answer."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Literal

import msgspec

ModeName = Literal["sandbox", "paper", "testnet", "live"]
"""How real the money is; what must be shown before a model trades depends on it."""


class Decision(StrEnum):
    """
    What becomes of a candidate.

    A hold is no judgement of the candidate: something that only time or a person can give is not there yet.
    """

    PROMOTED = "promoted"
    HELD = "held"
    REFUSED = "refused"


class Finding(StrEnum):
    """How one gate was held: held, failed by what was measured, or not decided by what there is."""

    HELD = "held"
    FAILED = "failed"
    MISSING = "missing"


class GateCheck(msgspec.Struct, frozen=True, kw_only=True):
    """How one gate was held: the figure, the bound it was held against, and a sentence. None is a missing number."""

    name: str
    finding: Finding
    value: float | None
    bound: float | None
    reason: str

    @property
    def passed(self) -> bool:
        """Whether the gate was held."""
        return self.finding is Finding.HELD


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """Every check of a candidate, and what they amount to."""

    checks: tuple[GateCheck, ...]

    @property
    def decision(self) -> Decision:
        """Refused where anything measured failed, held where evidence is missing, promoted where all gates held."""
        return decide(check.finding for check in self.checks)

    @property
    def passed(self) -> bool:
        """Whether the candidate may trade."""
        return self.decision is Decision.PROMOTED

    @property
    def refusals(self) -> tuple[GateCheck, ...]:
        """The gates that were not held, for whichever reason."""
        return tuple(check for check in self.checks if not check.passed)

    @property
    def missing(self) -> tuple[GateCheck, ...]:
        """The gates for which evidence is missing or does not suffice yet."""
        return tuple(check for check in self.checks if check.finding is Finding.MISSING)


def decide(findings: Iterable[Finding]) -> Decision:
    """Return the answer to some findings; without any nothing was shown, and nothing is promoted."""
    found = set(findings)
    if not found or Finding.FAILED in found:
        return Decision.REFUSED
    return Decision.HELD if Finding.MISSING in found else Decision.PROMOTED
