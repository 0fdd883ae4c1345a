"""The five states a market can be said to be in, and what is told of each: a probability, and one label."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class Regime(StrEnum):
    """What kind of market a series is in; unknown is the careful one."""

    TREND = "trend"
    RANGE = "range"
    HIGH_VOLATILITY = "high_volatility"
    CRASH = "crash"
    UNKNOWN = "unknown"


REGIMES: tuple[Regime, ...] = tuple(Regime)
"""The order of columns wherever probabilities of all five are one array."""
KNOWN: tuple[Regime, ...] = REGIMES[:-1]
"""All but unknown, in the same order."""


@dataclass(frozen=True, slots=True, eq=False)
class RegimeReading:
    """
    What is said of n series at one closed candle.

    `probability` [n, 5] has a column for each of `REGIMES` and rows that sum to 1; `label` names one regime a row.
    """

    probability: Floats
    label: tuple[Regime, ...]


def no_reading(count: int) -> RegimeReading:
    """Return what is said of `count` series where nothing is known: unknown, with certainty."""
    probability = np.zeros((count, len(REGIMES)))
    probability[:, -1] = 1.0
    return RegimeReading(probability, (Regime.UNKNOWN,) * count)
