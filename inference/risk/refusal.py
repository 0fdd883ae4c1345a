"""A refusal before it is tied to a candidate: its code and the numbers that were compared."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from inference.domain.decision import DenyCode


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why not, with the numbers as text so that they are journaled exactly as they were compared."""

    code: DenyCode
    context: dict[str, str]


def refuse(code: DenyCode, **numbers: Decimal | float | str) -> Refusal:
    """Return a refusal with its numbers as text."""
    return Refusal(code, {name: str(value) for name, value in numbers.items()})
