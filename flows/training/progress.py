"""How far a training run is, from how far its steps are."""

from __future__ import annotations

from collections.abc import Sequence

from flows.training.members.base import Progress

# Shares of the wall clock, measured on 20 series of 30 days; they steer a progress bar and nothing else.
_SHARES = {"xgboost": 6.0, "lightgbm": 6.0, "nhits": 30.0, "patchtst": 30.0, "export": 14.0, "evaluate": 14.0}


def overall(members: Sequence[str], report: Progress) -> Progress:
    """Return a progress that takes a step's own fraction and reports the step with the fraction of the whole."""
    steps = [*members, "export", "evaluate"]
    total = sum(_SHARES.get(step, 10.0) for step in steps)
    start, begins = 0.0, {}
    for step in steps:
        begins[step] = start
        start += _SHARES.get(step, 10.0) / total

    def progress(step: str, fraction: float) -> None:
        report(step, min(begins[step] + fraction * _SHARES.get(step, 10.0) / total, 1.0))

    return progress
