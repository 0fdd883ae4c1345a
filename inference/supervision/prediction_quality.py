"""How good the model's live opinions were, once the end of their horizon shows what prices did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from inference.domain.decision import Candidate
from inference.domain.signal import Direction


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinions:
    """What a model said at one candle, judged at `due_ms`: by symbol the direction, its probability, the close."""

    said_ms: int
    due_ms: int
    model_version: str
    said: Mapping[str, tuple[Direction, float, float]]


@dataclass(frozen=True, slots=True, kw_only=True)
class MaturedCandle:
    """The opinions of one candle, judged: shares and means over the symbols whose price moved; `rose` is of prices."""

    model_version: str
    said_ms: int
    due_ms: int
    right: float
    stated: float
    brier: float
    rose: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PredictionQuality:
    """
    Means over matured candles, each counted once: how often opinions were right and how sure they had been.

    `brier` is the mean squared error of the stated probability: 0.25 is what a coin earns that claims nothing.
    """

    right: float
    stated: float
    brier: float
    candles: int


def opinions_at(candidates: Sequence[Candidate], *, said_ms: int, due_ms: int) -> Opinions | None:
    """Return what is to be judged later of one candle, or None where nobody took a side."""
    said = {
        one.signal.symbol: (one.signal.direction, one.signal.probability, one.close)
        for one in candidates
        if one.signal.direction is not Direction.FLAT
    }
    if not said:
        return None
    return Opinions(said_ms=said_ms, due_ms=due_ms, model_version=candidates[0].signal.model_version, said=said)


def matured(opinions: Opinions, closes: Mapping[str, float]) -> MaturedCandle | None:
    """Judge a candle's opinions by the closes at the end of their horizon, or None where no price moved."""
    judged = [
        (probability, closes[symbol] > close, (closes[symbol] > close) == (direction is Direction.LONG))
        for symbol, (direction, probability, close) in opinions.said.items()
        if symbol in closes and closes[symbol] != close
    ]
    if not judged:
        return None
    return MaturedCandle(
        model_version=opinions.model_version,
        said_ms=opinions.said_ms,
        due_ms=opinions.due_ms,
        right=_mean(judged, lambda _, __, right: float(right)),
        stated=_mean(judged, lambda probability, _, __: probability),
        brier=_mean(judged, lambda probability, _, right: (probability - right) ** 2),
        rose=_mean(judged, lambda _, rose, __: float(rose)),
    )


def prediction_quality(candles: Sequence[MaturedCandle], model_version: str) -> PredictionQuality | None:
    """Return the figures of one model, or None before any of its opinions has matured."""
    own = [one for one in candles if one.model_version == model_version]
    if not own:
        return None
    return PredictionQuality(
        right=math.fsum(one.right for one in own) / len(own),
        stated=math.fsum(one.stated for one in own) / len(own),
        brier=math.fsum(one.brier for one in own) / len(own),
        candles=len(own),
    )


def _mean(judged: Sequence[tuple[float, bool, bool]], of: Callable[[float, bool, bool], float]) -> float:
    return math.fsum(of(*one) for one in judged) / len(judged)
