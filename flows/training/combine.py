"""Members made into one opinion: scales and weights, probability and threshold, all out of sample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from flows.training.calibrate import fit_rule, fixed_weights, shrinking_scale, skill_weights
from flows.training.config import TrainingConfig
from flows.training.dataset import Floats, Rows
from flows.training.labels import without_market
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
    """Learn the members' scales and weights on validation, then the ensemble's rule with the calibration window too."""
    share = config.market_share_removed
    scales = {name: shrinking_scale(values, validation, share) for name, values in scored.validation.items()}
    weights = _weights(scored.validation, validation, config)
    votes = [
        weighted_vote({name: values * scales[name] for name, values in window.items()}, weights)
        for window in (scored.validation, scored.calibration)
    ]
    rule = fit_rule(((validation, votes[0]), (calibration, votes[1])), config, horizon_ms)
    # No answer out of sample came near this; what does comes from a broken input, not from an opportunity.
    largest = max(float(np.abs(vote).max()) for vote in votes) * rule.scale
    return Combined(
        scales=scales,
        weights=weights,
        scale=rule.scale,
        table=rule.calibration,
        threshold=rule.threshold,
        bound=min(max(4 * largest, 1e-4), 0.5),
        validation=votes[0] * rule.scale,
        calibration=votes[1] * rule.scale,
    )


def _weights(predictions: Mapping[str, Floats], rows: Rows, config: TrainingConfig) -> dict[str, float]:
    if config.weighting == "fixed":
        return fixed_weights(FIXED_WEIGHTS, list(predictions))
    share = config.market_share_removed
    outcome = without_market(rows.label, rows.open_time_ms, share)
    # The share of variance that a member explains, as a first-order estimate of what it adds to a mean of its peers.
    skill = {
        name: max(_correlation(without_market(values, rows.open_time_ms, share), outcome), 0.0) ** 2
        for name, values in predictions.items()
    }
    return skill_weights(skill, shrinkage=config.weight_shrinkage, cap=config.weight_cap)


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
