"""How one-sided the newest signals are: the rules of it, and the value that a decision may look at."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import StrEnum

from inference.domain.signal import Direction

CANDLES_KEPT = 288
"""How far back the watch remembers: a day of 5m candles; what is older says little of the model or the market."""


class BiasMode(StrEnum):
    """Whether a bias is only reported, or entries on its side are refused as well."""

    OBSERVE = "observe"
    ENFORCE = "enforce"


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasRules:
    """Over how many candles signals are counted, above which share they are biased, and what follows from it."""

    mode: BiasMode = BiasMode.OBSERVE
    window: int = 20
    share: float = 0.7

    def __post_init__(self) -> None:
        """Refuse a window that is none, or that reaches beyond what is remembered, and a share that is no majority."""
        if not 1 <= self.window <= CANDLES_KEPT:
            raise ValueError(f"Bias window must lie in [1, {CANDLES_KEPT}] candles, was {self.window}")
        if not 0.5 <= self.share < 1:
            raise ValueError(f"Bias share must lie in [0.5, 1), was {self.share}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalBias:
    """
    How far the signals of the newest candles lean to one side.

    `share` is the mean over `candles` of the share that `side` has in each, so a candle counts once, however many
    symbols moved as one. `usual` is the share of prices that moved to that side in such markets. `limit` is the share
    above which the lean is a bias, once there are `window` candles.
    """

    side: Direction
    share: float
    usual: float
    limit: float
    candles: int
    window: int

    def __post_init__(self) -> None:
        """Refuse shares and windows that are none, and a side that nobody can lean to."""
        if self.window < 1:
            raise ValueError(f"Signal bias needs a window of at least one candle, was {self.window}")
        if self.side is Direction.FLAT:
            raise ValueError("Signals lean to LONG or SHORT, was FLAT")
        for name in ("share", "usual", "limit"):
            if not (math.isfinite(value := getattr(self, name)) and 0 <= value <= 1):
                raise ValueError(f"Signal bias needs {name} between 0 and 1, was {value}")

    @property
    def is_bias(self) -> bool:
        """Whether enough candles were seen and more of their signals than the limit are on one side."""
        return self.candles >= self.window and self.share > self.limit
