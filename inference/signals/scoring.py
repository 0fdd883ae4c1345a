"""From the ensemble's arrays to one signal per symbol."""

from __future__ import annotations

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from msgspec import UNSET, UnsetType

from inference.domain.signal import Direction, MemberPrediction, SignalScore
from inference.regime.states import REGIMES

# A filter knows no more, and the journal stays readable.
_DIGITS = 6
_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "quantum-trader/signal")


class Scores(Protocol):
    """What an ensemble says of n symbols at once: log returns, probabilities of a rise, and how many members agree."""

    @property
    def expected_return(self) -> npt.NDArray[Any]:
        """Expected log return over the horizon."""
        ...

    @property
    def probability_up(self) -> npt.NDArray[Any]:
        """Calibrated probability that the price rises over the horizon."""
        ...

    @property
    def members(self) -> Mapping[str, npt.NDArray[Any]]:
        """Each member's expected log return."""
        ...

    @property
    def consensus(self) -> npt.NDArray[Any]:
        """How many members agree on the direction."""
        ...


def trace_id(*, venue: str, symbol: str, feature_time_ms: int, model_version: str) -> str:
    """Return the id that follows one opinion from candle to fill to close; the same opinion has the same id."""
    return str(uuid.uuid5(_NAMESPACE, f"{venue}|{symbol}|{feature_time_ms}|{model_version}"))


def signals(
    scores: Scores,
    *,
    symbols: Sequence[str],
    feature_times_ms: Sequence[int],
    venue: str,
    model_version: str,
    weights: Mapping[str, float],
    regimes: Sequence[str] | None = None,
    regime_probability: npt.NDArray[Any] | None = None,
) -> tuple[SignalScore, ...]:
    """
    Return one signal per symbol, in the order of `symbols`.

    Regimes and their probabilities [n, 5], in the order of `REGIMES`, come along where they are given.

    LONG where a rise is more likely than not, SHORT otherwise. Where any number is not finite, or the probability
    is none, the signal abstains: FLAT, with confidence 0 and expected return 0.
    """
    expected = np.asarray(scores.expected_return, dtype=np.float64)
    rising = np.asarray(scores.probability_up, dtype=np.float64)

    return tuple(
        _signal(
            symbol=symbol,
            probability_up=float(rising[row]),
            expected_return=float(expected[row]),
            members={name: float(values[row]) for name, values in scores.members.items()},
            consensus=int(scores.consensus[row]),
            weights=weights,
            feature_time_ms=int(feature_times_ms[row]),
            venue=venue,
            model_version=model_version,
            regime="unknown" if regimes is None else str(regimes[row]),
            regime_probability=UNSET if regime_probability is None else _by_name(regime_probability[row]),
        )
        for row, symbol in enumerate(symbols)
    )


def _by_name(probabilities: npt.NDArray[Any]) -> dict[str, float]:
    return {name.value: round(value, _DIGITS) for name, value in zip(REGIMES, probabilities.tolist(), strict=True)}


def _signal(
    *,
    symbol: str,
    probability_up: float,
    expected_return: float,
    members: Mapping[str, float],
    consensus: int,
    weights: Mapping[str, float],
    feature_time_ms: int,
    venue: str,
    model_version: str,
    regime: str,
    regime_probability: Mapping[str, float] | UnsetType,
) -> SignalScore:
    usable = all(map(math.isfinite, (probability_up, expected_return, *members.values())))
    usable = usable and 0 <= probability_up <= 1
    direction = Direction.LONG if probability_up > 0.5 else Direction.SHORT

    return SignalScore(
        symbol=symbol,
        direction=direction if usable else Direction.FLAT,
        probability=max(probability_up, 1 - probability_up) if usable else 0.0,
        expected_return=expected_return if usable else 0.0,
        members=tuple(
            MemberPrediction(name=name, expected_return=value, weight=weights.get(name, 0.0))
            for name, value in sorted(members.items())
        )
        if usable
        else (),
        consensus=consensus if usable else 0,
        model_version=model_version,
        feature_time_ms=feature_time_ms,
        trace_id=trace_id(venue=venue, symbol=symbol, feature_time_ms=feature_time_ms, model_version=model_version),
        regime=regime,
        regime_probability=regime_probability,
    )
