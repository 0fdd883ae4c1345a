"""How easily the venue lets an account trade; whatever is not asked for is off."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from infra.sandbox.engine.model import ZERO

_LONGEST_MS = 600_000
_ONE = Decimal(1)


@dataclass(frozen=True, slots=True)
class Rules:
    """
    Limits of liquidity, place in the queue, and how long messages take.

    They are part of the account's state, so that a restored venue fills as the one that was saved would have. Latencies
    are in venue time, like everything else that the market does.
    """

    # What draws of chance are made from.
    seed: int = 0
    # How often a price that only touches a limit fills it; zero asks for a price beyond.
    touch_probability: Decimal = ZERO
    # Share of a bar's volume that the account may trade; zero is without a bound.
    participation: Decimal = ZERO
    # How far taking a whole bar's volume moves the price; less of it moves the price by the square root of its share.
    impact_bps: Decimal = ZERO
    # Whether a limit waits until what was displayed before it has been traded.
    queue: bool = False
    # How far from the mark price a market order may fill, as a share; zero is without a bound.
    take_bound: Decimal = ZERO
    insert_ms: int = 0
    cancel_ms: int = 0
    feed_ms: int = 0

    def __post_init__(self) -> None:
        for name in ("touch_probability", "participation", "take_bound"):
            value = getattr(self, name)
            if not (value.is_finite() and ZERO <= value <= _ONE):
                raise ValueError(f"Rule '{name}' was {value}, expected 0 to 1")
        if not (self.impact_bps.is_finite() and ZERO <= self.impact_bps <= 10_000):
            raise ValueError(f"Rule 'impact_bps' was {self.impact_bps}, expected 0 to 10000")
        for name in ("insert_ms", "cancel_ms", "feed_ms"):
            if not 0 <= getattr(self, name) <= _LONGEST_MS:
                raise ValueError(f"Rule '{name}' was {getattr(self, name)}, expected 0 to {_LONGEST_MS}")

    @property
    def bounds_volume(self) -> bool:
        """Whether fills depend on what was traded in the bar."""
        return bool(self.participation or self.impact_bps)
