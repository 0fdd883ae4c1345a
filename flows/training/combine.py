"""Members made into one opinion: scales and weights, probability and threshold, on rows no member saw."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from flows.training.calibrate import fit_rule, fixed_weights, shrinking_scale, skill_weights
from flows.training.config import TrainingConfig
from flows.training.dataset import Floats, Rows
from flows.training.members.catalogue import spec
from flows.training.weighting import stacking_weights, time_folds
from inference.models.ensemble import MEMBER_ROOM, weighted_vote
from inference.models.manifest import CalibrationTable
from inference.models.market_move import without_market

# How many times the largest answer out of sample an answer may be and is still believed.
_ROOM = 4.0


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """
    What the exported members say, unscaled, of the two windows they were not fitted on.

    `alone` is what they would say of the same rows if each were alone at its moment; None where that is the same.
    """

    validation: Mapping[str, Floats]
    calibration: Mapping[str, Floats]
    alone: tuple[Mapping[str, Floats], Mapping[str, Floats]] | None = None

    def scaled(self, scales: Mapping[str, float]) -> Scored:
        """Return the same as log returns that are right on average."""
        windows = (self.validation, self.calibration)
        first, second = ({name: values * scales[name] for name, values in one.items()} for one in windows)
        return Scored(first, second)


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
    scales = own_scales(scored, validation, config)
    weights = _weights({name: values * scales[name] for name, values in scored.validation.items()}, validation, config)

    def vote(window: Mapping[str, Floats]) -> Floats:
        return weighted_vote({name: values * scales[name] for name, values in window.items()}, weights)

    votes = [vote(window) for window in (scored.validation, scored.calibration)]
    rule = fit_rule(((validation, votes[0]), (calibration, votes[1])), config, horizon_ms)
    return Combined(
        scales=scales,
        weights=weights,
        scale=rule.scale,
        table=rule.calibration,
        threshold=rule.threshold,
        bound=_bound(scored, scales, vote, rule.scale),
        validation=votes[0] * rule.scale,
        calibration=votes[1] * rule.scale,
    )


def _bound(
    scored: Scored, scales: Mapping[str, float], vote: Callable[[Mapping[str, Floats]], Floats], scale: float
) -> float:
    """
    Return what no answer out of sample came near: what does comes from a broken input, not from an opportunity.

    A vote that is scaled down for want of skill does not make its members' usual answers unbelievable.
    """
    windows = (scored.validation, scored.calibration, *(scored.alone or ()))
    largest = max(float(np.abs(vote(one)).max()) for one in windows) * scale
    member = max(float(np.abs(values).max()) * scales[name] for one in windows for name, values in one.items())
    return min(max(_ROOM * largest, _ROOM * member / MEMBER_ROOM, 1e-4), 0.5)


def own_scales(scored: Scored, validation: Rows, config: TrainingConfig) -> dict[str, float]:
    """Return what makes each member right on average on validation."""
    share = config.market_share_removed
    return {name: shrinking_scale(values, validation, share) for name, values in scored.validation.items()}


def _weights(predictions: Mapping[str, Floats], rows: Rows, config: TrainingConfig) -> dict[str, float]:
    """Return each member's weight, from predictions as scaled log returns on rows that no member was fitted on."""
    if config.weighting == "fixed":
        # SPEC ML-017; each member's file holds its share, unless a tuning found others.
        shares = config.member_shares or {name: spec(name).share for name in predictions}
        return fixed_weights(shares, list(predictions))
    if config.weighting == "equal":
        return dict.fromkeys(predictions, 1 / len(predictions))
    share = config.market_share_removed
    outcome = without_market(rows.label, rows.open_time_ms, share)
    own = {name: without_market(values, rows.open_time_ms, share) for name, values in predictions.items()}
    if config.ensemble_mode == "stacking":
        return stacking_weights(own, outcome, time_folds(rows.open_time_ms), shrinkage=0.0, cap=1.0)
    if config.weighting == "stacking":
        folds = time_folds(rows.open_time_ms)
        return stacking_weights(own, outcome, folds, shrinkage=config.weight_shrinkage, cap=config.weight_cap)
    # The share of variance that a member explains, as a first-order estimate of what it adds to a mean of its peers.
    skill = {name: max(_correlation(values, outcome), 0.0) ** 2 for name, values in own.items()}
    return skill_weights(skill, shrinkage=config.weight_shrinkage, cap=config.weight_cap)


def _correlation(a: Floats, b: Floats) -> float:
    return float(np.corrcoef(a, b)[0, 1]) if a.std() > 0 and b.std() > 0 else 0.0
