"""Members made into one opinion: scales and weights from validation, probability and threshold from calibration."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flows.training.calibrate import (
    choose_threshold,
    fit_calibration,
    fixed_weights,
    probabilities,
    shrinking_scale,
    skill_weights,
)
from flows.training.config import TrainingConfig
from flows.training.dataset import Floats, Rows
from inference.models.ensemble import weighted_vote
from inference.models.manifest import CalibrationTable

# The shares that the source system fixed by hand; selectable as weighting = "fixed" (SPEC ML-017).
FIXED_WEIGHTS: dict[str, float] = {"xgboost": 0.25, "lightgbm": 0.25, "nhits": 0.30, "patchtst": 0.20}


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """What the exported members say, unscaled, of the two windows they were not fitted on."""

    validation: Mapping[str, Floats]
    calibration: Mapping[str, Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Combined:
    """The ensemble's own numbers, and what it says of the two windows they were learned on."""

    scales: Mapping[str, float]
    weights: Mapping[str, float]
    scale: float
    table: CalibrationTable
    threshold: float
    bound: float
    validation: Floats
    calibration: Floats

    def scaled(self, predictions: Mapping[str, Floats]) -> dict[str, Floats]:
        """Return the members' predictions as log returns that are right on average."""
        return {name: values * self.scales[name] for name, values in predictions.items()}


def combine(scored: Scored, validation: Rows, calibration: Rows, config: TrainingConfig, horizon_ms: int) -> Combined:
    """Learn scales and weights on validation; then the ensemble's scale, curve and threshold on calibration."""
    scales = {name: shrinking_scale(values, validation.label) for name, values in scored.validation.items()}
    weights = _weights(scored.validation, validation.label, config)
    votes = [
        weighted_vote({name: values * scales[name] for name, values in window.items()}, weights)
        for window in (scored.validation, scored.calibration)
    ]
    # A mean of members that each erred on their own is too timid: it may be stretched again.
    scale = shrinking_scale(votes[1], calibration.label, (0.05, 3.0))
    expected = votes[1] * scale
    table = fit_calibration(expected, calibration.label, config.calibration_method)
    threshold = choose_threshold(
        calibration,
        expected,
        probabilities(table, expected),
        cost=config.round_trip_cost,
        horizon_ms=horizon_ms,
        min_trades=config.min_threshold_trades,
    )
    # No answer out of sample came near this; what does comes from a broken input, not from an opportunity.
    largest = max(float(np.abs(vote).max()) for vote in votes) * scale
    return Combined(
        scales=scales,
        weights=weights,
        scale=scale,
        table=table,
        threshold=threshold,
        bound=min(max(4 * largest, 1e-4), 0.5),
        validation=votes[0] * scale,
        calibration=expected,
    )


def _weights(predictions: Mapping[str, Floats], label: Floats, config: TrainingConfig) -> dict[str, float]:
    if config.weighting == "fixed":
        return fixed_weights(FIXED_WEIGHTS, list(predictions))
    skill = {name: _correlation(values, label) for name, values in predictions.items()}
    return skill_weights(skill, shrinkage=config.weight_shrinkage, cap=config.weight_cap)


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
