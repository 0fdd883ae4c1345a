"""The one payload between scoring and trading."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from msgspec import UNSET, UnsetType

from inference.domain.quality import QualityFlag


class Direction(StrEnum):
    """What a signal or a position wants the price to do."""

    LONG = "LONG"
    SHORT = "SHORT"
    FLAT = "FLAT"


@dataclass(frozen=True, slots=True, kw_only=True)
class MemberPrediction:
    """One member's expected log return over the horizon, with its weight in the ensemble."""

    name: str
    expected_return: float
    weight: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalScore:
    """
    An ensemble's opinion of one symbol at one closed candle.

    `probability` is the calibrated probability that the price moves in `direction` over the horizon;
    `confidence` is the same number, named as policy names it. `expected_return` is the signed expected log return
    before costs. `feature_time_ms` is the close time of the candle the features end on (UTC milliseconds). `regime` is
    the kind of market that the series was in by then, as inference/regime names it, and `regime_probability` how likely
    each kind is, by its name and to six digits, where a bundle's model tells that. `quality` is what is to be said
    against what the signal was made from, and unset where nobody looked.
    """

    symbol: str
    direction: Direction
    probability: float
    expected_return: float
    members: tuple[MemberPrediction, ...]
    consensus: int
    model_version: str
    feature_time_ms: int
    trace_id: str
    regime: str = "unknown"
    # Unset in journals from before there was either, and with bundles that tell neither.
    regime_probability: Mapping[str, float] | UnsetType = UNSET
    quality: tuple[QualityFlag, ...] | UnsetType = UNSET

    def __post_init__(self) -> None:
        """Refuse numbers that are none: a symbol that could not be scored has no signal."""
        for name in ("probability", "expected_return"):
            if not math.isfinite(getattr(self, name)):
                raise ValueError(f"Signal {self.symbol} needs a finite {name}, was {getattr(self, name)}")

    @property
    def confidence(self) -> float:
        """The calibrated probability of `direction`."""
        return self.probability
