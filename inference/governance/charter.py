"""The numbers by which roles vote; a policy of its own for what no single limit says."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, fields
from decimal import Decimal
from typing import Any

from inference.domain.errors import PolicyError


@dataclass(frozen=True, slots=True, kw_only=True)
class Charter:
    """
    How the roles weigh what they are told; shares lie between 0 and 1.

    `careful_loss` is the share of the day's limit from which on the chief executive is careful, `careful_budget` what
    is ventured then. `crash_share` is the share of symbols in a crash from which on only exits are taken.
    `full_budget_loss` is the share of the limit up to which the risk officer leaves the whole budget; from there it
    falls in a straight line to `least_budget` at the limit. `spread` is how many times its part by inverse volatility
    a symbol may carry, `max_share` the largest share of the exposure that any symbol may. `unsynced` is how many
    entries of the journal may be lost by a power cut before audit objects. `quorum` is the share of the federation
    that must be heard, `majority` the share of those heard that makes a stance everyone's.
    """

    careful_loss: Decimal = Decimal("0.5")
    careful_budget: Decimal = Decimal("0.5")
    crash_share: Decimal = Decimal("0.5")
    full_budget_loss: Decimal = Decimal("0.25")
    least_budget: Decimal = Decimal("0.25")
    spread: Decimal = Decimal(3)
    max_share: Decimal = Decimal(1)
    unsynced: int = 10_000
    quorum: Decimal = Decimal("0.5")
    majority: Decimal = Decimal("0.5")

    def __post_init__(self) -> None:
        """
        Refuse what is out of bounds.

        Raises:
            PolicyError: A value lies outside of its bounds, or two contradict each other.
        """
        for name in ("full_budget_loss", "spread", "majority"):
            if not getattr(self, name).is_finite():
                raise PolicyError(f"Charter refused: {name} must be finite, was {getattr(self, name)}")
        for name in ("careful_loss", "careful_budget", "crash_share", "least_budget", "max_share", "quorum"):
            value = getattr(self, name)
            if not (value.is_finite() and 0 < value <= 1):
                raise PolicyError(f"Charter refused: {name} must lie in (0, 1], was {value}")
        for holds, message in (
            (0 <= self.full_budget_loss < 1, f"full_budget_loss must lie in [0, 1), was {self.full_budget_loss}"),
            (self.spread >= 1, f"spread must be at least 1, was {self.spread}"),
            (self.unsynced >= 0, f"unsynced must not be negative, was {self.unsynced}"),
            (0 < self.majority < 1, f"majority must lie in (0, 1), was {self.majority}"),
        ):
            if not holds:
                raise PolicyError(f"Charter refused: {message}")


def charter_of(text: str) -> Charter:
    """
    Return the charter of a TOML text: its names are those of `Charter`, what it leaves out stays as it is.

    Raises:
        PolicyError: It is not TOML, names what no charter has, or holds what is no number or out of bounds.
    """
    try:
        given = tomllib.loads(text, parse_float=Decimal)
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"The charter is not TOML: {error}") from error
    known = {one.name for one in fields(Charter)}
    unknown = sorted(set(given) - known)
    if unknown:
        raise PolicyError(f"A charter has no {', '.join(unknown)}; it has {', '.join(sorted(known))}")
    values: dict[str, Any] = {}
    for name, value in given.items():
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        if not (is_whole or (isinstance(value, Decimal) and name != "unsynced")):
            raise PolicyError(f"Charter refused: {name} must be a number, was {value!r}")
        values[name] = value if name == "unsynced" else Decimal(value)
    return Charter(**values)


def stated(charter: Charter) -> dict[str, str]:
    """Return every number of a charter by its name, as the journal tells it."""
    return {one.name: str(getattr(charter, one.name)) for one in fields(Charter)}
