"""How far what a member learned from has moved: its inputs' shares now and in an earlier training."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from flows.training.report import MemberReport, TrainingReport

_PREFIX, _ENDING = "importance/", "/distance_from_champion"


def importance_distance(before: Mapping[str, float], after: Mapping[str, float]) -> float | None:
    """
    Return which part of what was learned comes from other inputs than before: 0 is none of it, 1 is all.

    This is half the sum of the differences between shares (total variation); an input that only one side has counts
    with all of its share. None where a side has no shares, or numbers that are none.
    """
    old, new = _shares(before), _shares(after)
    if old is None or new is None:
        return None
    return min(1.0, math.fsum(abs(new.get(name, 0.0) - old.get(name, 0.0)) for name in {*old, *new}) / 2)


def distances_from_champion(candidate: TrainingReport, champion: TrainingReport) -> dict[str, float]:
    """
    Return figures by which a candidate's importances differ from the champion's, for each member that both have.

    `ensemble` is their mean by the candidate's weights. Members whose inputs have no shares, nets among them, are left
    out.
    """
    earlier = {one.name: one for one in _all(champion)}
    found = {
        one.name: distance
        for one in _all(candidate)
        if one.name in earlier
        and (distance := importance_distance(earlier[one.name].importance, one.importance)) is not None
    }
    weights = {one.name: one.weight for one in candidate.members if one.name in found}
    figures = {f"{_PREFIX}{name}{_ENDING}": distance for name, distance in found.items()}
    if (total := math.fsum(weights.values())) > 0:
        mean = math.fsum(weight * found[name] for name, weight in weights.items()) / total
        figures[f"{_PREFIX}ensemble{_ENDING}"] = mean
    return figures


def told_distances(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the distances that are among a training's figures, by member."""
    return {
        name.removeprefix(_PREFIX).removesuffix(_ENDING): value
        for name, value in sorted(metrics.items())
        if name.startswith(_PREFIX) and name.endswith(_ENDING)
    }


def _all(report: TrainingReport) -> Iterable[MemberReport]:
    return (*report.members, *report.compared)


def _shares(importance: Mapping[str, float]) -> dict[str, float] | None:
    # A report is read back from a registry that others may write to.
    if any(not math.isfinite(value) or value < 0 for value in importance.values()):
        return None
    largest = max(importance.values(), default=0.0)
    if largest <= 0:
        return None
    # By the largest first, so that numbers near the end of what a float holds still have a sum.
    scaled = {name: value / largest for name, value in importance.items()}
    total = math.fsum(scaled.values())
    return {name: value / total for name, value in scaled.items()}
