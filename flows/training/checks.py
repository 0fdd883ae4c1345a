"""Which tripwires are looked at when: those that save the training before it, the others once there are scores."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from flows.training.audit import audit_fitting, audit_inputs, audit_labels
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet
from flows.training.evaluate import independent_outcomes
from flows.training.members.base import MemberTrainer
from flows.training.splits import Splits
from flows.training.tripwires import (
    Asked,
    Trip,
    check_coverage,
    check_outcomes,
    check_scores,
    check_shuffled,
)

_DAY_MS = 86_400_000


def before_training(
    dataset: Dataset,
    frames: FrameSet,
    splits: Splits,
    trainers: Mapping[str, MemberTrainer],
    config: TrainingConfig,
    asked: Asked | None,
) -> list[Trip]:
    """Return what is wrong with candles, labels, inputs and members before any is trained in earnest."""
    windows = {name: getattr(splits, name) for name in ("fit", "validation", "calibration", "shadow")}
    first_ms = min(int(frame.open_time_ms[0]) for frame in frames.frames)
    trips = check_coverage(
        {name: dataset.coverage(window) for name, window in windows.items()},
        config.tripwires,
        asked,
        days=(dataset.end_ms - first_ms) / _DAY_MS,
        series=len(frames.frames),
    )
    trips += check_outcomes(
        {
            name: independent_outcomes(dataset.rows(windows[name], splits), horizon_ms=splits.horizon_ms)
            for name in ("validation", "calibration")
        },
        config.tripwires,
    )
    trips += audit_labels(dataset, frames)
    trips += audit_inputs(dataset, splits, config)
    # What costs more waits until the rest is in order.
    if config.tripwires.audits and not trips:
        trips += audit_fitting(trainers, frames, splits, config)
    return trips


def after_training(metrics: Mapping[str, float], who: Iterable[str], config: TrainingConfig) -> list[Trip]:
    """Return what is wrong with the scores of those who were trained."""
    return check_shuffled(metrics, config.tripwires) + check_scores(metrics, who, config.tripwires)
