"""What a supervisor of the model knows again after a start: the newest decisions, outcomes, and what was told."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from inference.domain.decision import Candidate
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.supervision.prediction_quality import MaturedCandle
from inference.supervision.quality_evidence import QualityEvidence

MATURED = "model.opinions_matured"
BIAS_FOUND, BIAS_ENDED = "model.bias_found", "model.bias_ended"
QUALITY_FOUND_POOR, QUALITY_RECOVERED = "model.quality_found_poor", "model.quality_recovered"
FELL_BACK = "model.fell_back"


@dataclass(frozen=True, slots=True, kw_only=True)
class DecidedCandle:
    """What was scored of one candle, by which policy, and how many candles ahead the model looks, if that is known."""

    candidates: Sequence[Candidate]
    policy: Policy
    close_ms: int
    horizon: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Remembered:
    """
    What the journal tells a supervisor of the lives before this one; the default is that there was none.

    `decided` and `matured` come oldest first. `told` is the side that was last said to be biased, `evidence` what
    outcomes say of each model, by its name and digest, `left` which of them were left for being poor.
    """

    decided: Iterable[DecidedCandle] = ()
    matured: Sequence[MaturedCandle] = ()
    told: Direction | None = None
    evidence: Mapping[str, QualityEvidence] = field(default_factory=dict)
    left: frozenset[str] = frozenset()


def matured_detail(one: MaturedCandle) -> Mapping[str, str]:
    """Return a matured candle as the journal keeps it: the same numbers come back."""
    return {
        "model_version": one.model_version,
        "said_ms": str(one.said_ms),
        "due_ms": str(one.due_ms),
        "right": repr(one.right),
        "stated": repr(one.stated),
        "brier": repr(one.brier),
        "rose": repr(one.rose),
    }


def matured_of(detail: Mapping[str, str]) -> MaturedCandle:
    """Return the matured candle that `matured_detail` wrote."""
    return MaturedCandle(
        model_version=detail["model_version"],
        said_ms=int(detail["said_ms"]),
        due_ms=int(detail["due_ms"]),
        right=float(detail["right"]),
        stated=float(detail["stated"]),
        brier=float(detail["brier"]),
        rose=float(detail["rose"]),
    )
