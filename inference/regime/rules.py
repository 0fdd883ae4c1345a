"""
Regimes by rules: Wilder's ADX and two averages say whether a market trends, its own usual moves whether it is wild.

Each rule is a ramp between two figures and not an edge, so that a market beside an edge does not flicker. They are
asked in the order of care: a crash first, then high volatility, and of what is left the trend; the rest is range.

- crash: over 24 candles the price fell by `crash_fall` usual moves or more, with the price below ema_20 and that below
  ema_50. Of a walk with constant volatility one candle in 30,000 lies beyond 4 of them.
- high volatility: volatility_20 is `high_volatility` times what is usual for the series.
- trend: ADX between 20 (no trend) and 25 (trend), Wilder's reading of it (New Concepts in Technical Trading Systems,
  1978); half as much where price, ema_20 and ema_50 do not lie in the trend's order, for then it has turned.
"""

from __future__ import annotations

import math

import msgspec
import numpy as np

from inference.regime.arrays import require
from inference.regime.observing import Observed
from inference.regime.states import KNOWN, Floats, Regime

_TURNED = 0.5


class RegimeRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Where each ramp begins and where it ends."""

    adx: tuple[float, float] = (20.0, 25.0)
    high_volatility: tuple[float, float] = (1.75, 2.5)
    crash_fall: tuple[float, float] = (4.0, 6.0)

    def __post_init__(self) -> None:
        """Refuse ramps that do not rise, or lie where no market is."""
        for name, (low, high), most in (
            ("adx", self.adx, 100.0),
            ("high_volatility", self.high_volatility, 1e6),
            ("crash_fall", self.crash_fall, 1e6),
        ):
            holds = math.isfinite(low) and math.isfinite(high) and 0 < low < high <= most
            require(holds, f"Rule {name} must rise from above 0 to {most:g} at most, was {low} to {high}")


def by_rules(observed: Observed, rules: RegimeRules) -> Floats:
    """Return the share of each of `KNOWN` [n, 4], rows summing to 1; rows of NaN where a number is missing."""
    above, rising = np.sign(observed.above), np.sign(observed.rising)
    in_order = (above == rising) & (above != 0)
    crash = _ramp(observed.fall, rules.crash_fall) * (in_order & (above < 0))
    wild = _ramp(observed.volatility, rules.high_volatility) * (1 - crash)
    rest = 1 - crash - wild
    trend = rest * _ramp(observed.adx, rules.adx) * np.where(in_order, 1.0, _TURNED)
    shares = {
        Regime.TREND: trend,
        Regime.RANGE: rest - trend,
        Regime.HIGH_VOLATILITY: wild,
        Regime.CRASH: crash,
    }
    found = np.stack([shares[one] for one in KNOWN], axis=-1)
    missing = ~np.isfinite(observed.fall + observed.volatility + observed.adx + observed.above + observed.rising)
    found[missing] = np.nan
    return found


def _ramp(values: Floats, edges: tuple[float, float]) -> Floats:
    low, high = edges
    return np.clip((values - low) / (high - low), 0.0, 1.0)
