"""
Market regimes: whether a series trends or ranges, and how its volatility compares with its own past.

Trend is Kaufman's efficiency ratio (Smarter Trading, 1995): the distance covered over the length of the path, from 0
for a market that came back to where it was to 1 for one that never turned; a random walk of n steps has about
1 / sqrt(n). Volatility is the root mean square of the log returns, ranked by terciles that the series itself had in the
window that training fitted on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


class MarketRegime(StrEnum):
    """Trend or range, by tercile of volatility; unknown where a return is missing or nothing was learned."""

    TRENDING_CALM = "trending_calm"
    TRENDING_NORMAL = "trending_normal"
    TRENDING_TURBULENT = "trending_turbulent"
    RANGING_CALM = "ranging_calm"
    RANGING_NORMAL = "ranging_normal"
    RANGING_TURBULENT = "ranging_turbulent"
    UNKNOWN = "unknown"


_NAMES = (
    (MarketRegime.RANGING_CALM, MarketRegime.RANGING_NORMAL, MarketRegime.RANGING_TURBULENT),
    (MarketRegime.TRENDING_CALM, MarketRegime.TRENDING_NORMAL, MarketRegime.TRENDING_TURBULENT),
)


class RegimeThresholds(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Where one regime ends and the next begins, learned on the fit window alone.

    `efficiency` is the least efficiency ratio of a trend. `volatility` are the two edges between terciles of all series
    together, for series that were not learned from; `by_symbol` those of each that was. Log returns of one candle.
    """

    efficiency: float
    volatility: tuple[float, float]
    by_symbol: dict[str, tuple[float, float]]

    def __post_init__(self) -> None:
        """Refuse edges that do not rise or are no numbers."""
        if not 0 < self.efficiency < 1:
            raise ValueError(f"A trend's least efficiency must lie in (0, 1), was {self.efficiency}")
        for name, (low, high) in [("all series", self.volatility), *self.by_symbol.items()]:
            if not 0 <= low <= high or not math.isfinite(high):
                raise ValueError(f"Volatility edges of {name} must rise from 0, were {low} and {high}")


def efficiency_ratio(returns: npt.NDArray[Any]) -> Floats:
    """Return the efficiency ratio of each row of log returns [n, k], in [0, 1]; 0 where nothing moved."""
    path = np.abs(returns).sum(axis=1, dtype=np.float64)
    distance = np.abs(returns.sum(axis=1, dtype=np.float64))
    return np.asarray(np.divide(distance, path, out=np.zeros_like(path), where=path > 0), np.float64)


def volatility(returns: npt.NDArray[Any]) -> Floats:
    """Return the root mean square of each row of log returns [n, k], in log return per candle."""
    return np.asarray(np.sqrt(np.mean(np.square(returns, dtype=np.float64), axis=1)), np.float64)


def regimes(
    returns: npt.NDArray[Any], symbols: Sequence[str], thresholds: RegimeThresholds | None
) -> tuple[MarketRegime, ...]:
    """Return the regime of each row of log returns [n, k], whose symbols are given; each row by itself."""
    if thresholds is None:
        return (MarketRegime.UNKNOWN,) * len(symbols)
    trends = efficiency_ratio(returns) >= thresholds.efficiency
    moves = volatility(returns)
    edges: Mapping[str, tuple[float, float]] = thresholds.by_symbol
    found = []
    for row, symbol in enumerate(symbols):
        low, high = edges.get(symbol, thresholds.volatility)
        tercile = int(moves[row] > low) + int(moves[row] > high)
        known = math.isfinite(moves[row])
        found.append(_NAMES[int(trends[row])][tercile] if known else MarketRegime.UNKNOWN)
    return tuple(found)
