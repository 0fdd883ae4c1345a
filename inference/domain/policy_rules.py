"""What a rule of a policy says of itself: its section, its unit, the values it may have."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import Any

_INTERVAL = re.compile(r"(?P<open>[(\[])(?P<low>-?[0-9.]+|-inf), (?P<high>-?[0-9.]+|inf)(?P<close>[)\]])")
_KEY = "rule"


class Section(StrEnum):
    """Which part of trading a rule belongs to."""

    UNIVERSE = "universe"
    RISK = "risk"
    EXECUTION = "execution"
    EXITS = "exits"
    CONSTRAINTS = "constraints"
    SUPERVISION = "supervision"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """An interval as it is written in mathematics: a parenthesis leaves its end out, a bracket takes it in."""

    text: str
    low: Decimal
    high: Decimal
    takes_low: bool
    takes_high: bool

    @classmethod
    def parse(cls, text: str) -> Bounds:
        """
        Return the bounds that a text such as `(0, 0.05]` or `[1, inf)` says.

        Raises:
            ValueError: The text is no interval.
        """
        found = _INTERVAL.fullmatch(text)
        if found is None:
            raise ValueError(f"Bounds must look like (0, 0.05] or [1, inf), were {text!r}")
        low, high = Decimal(found["low"]), Decimal(found["high"])
        if low > high:
            raise ValueError(f"Bounds {text} hold no number")
        return cls(text=text, low=low, high=high, takes_low=found["open"] == "[", takes_high=found["close"] == "]")

    def hold(self, value: Decimal | float) -> bool:
        """Whether a number lies within; none that is not finite does."""
        number = value if isinstance(value, Decimal) else Decimal(str(value))
        if not number.is_finite():
            return False
        above = self.low <= number if self.takes_low else self.low < number
        return above and (number <= self.high if self.takes_high else number < self.high)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """
    One rule: which section it belongs to, what it says, and between which numbers it may lie, if it is one.

    `since_the_first` marks the rules that every journal states. A later rule is stated where it differs from its
    default, so that what was written before it existed stays as it was; its default therefore never changes.
    """

    section: Section
    says: str
    bounds: Bounds | None = None
    since_the_first: bool = False


def rule(default: object, section: Section, says: str, *, bounds: str | None = None) -> Any:
    """Return the field of a policy's dataclass that holds one rule."""
    return _field(default, section, says, bounds, since_the_first=False)


def first_rule(default: object, section: Section, says: str, *, bounds: str | None = None) -> Any:
    """Return the field of a rule that every journal states; there are no new ones."""
    return _field(default, section, says, bounds, since_the_first=True)


def rule_of(metadata: Mapping[Any, Any]) -> Rule:
    """Return what a field's metadata says of its rule."""
    found: Rule = metadata[_KEY]
    return found


def _field(default: object, section: Section, says: str, bounds: str | None, *, since_the_first: bool) -> Any:
    limits = None if bounds is None else Bounds.parse(bounds)
    about = Rule(section=section, says=says, bounds=limits, since_the_first=since_the_first)
    return field(default=default, metadata={_KEY: about})
