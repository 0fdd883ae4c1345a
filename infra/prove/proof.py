"""What a proof returns, and the sizes it runs at."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum


class Size(StrEnum):
    """How much of a proof to run: all of it, or what CI has time for."""

    FULL = "full"
    CI = "ci"


@dataclass(frozen=True, slots=True, kw_only=True)
class Proof:
    """
    One figure against its bar. `details` are lines printed before the figure.

    `is_speed` marks bars of time or memory, which a busy machine can miss without any defect. One that `shows` nothing
    lacked what it needs: it fails nothing and claims nothing.
    """

    name: str
    figure: str
    bar: str
    holds: bool
    is_speed: bool = False
    shows: bool = True
    details: tuple[str, ...] = field(default_factory=tuple)

    @property
    def verdict(self) -> str:
        """How it ended, in words of one width."""
        if not self.shows:
            return "no claim"
        return "held    " if self.holds else "NOT HELD"
