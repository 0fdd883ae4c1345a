"""Whether what a candidate reads had left its training behind, cycle by cycle of the window that it is judged on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import numpy.typing as npt

from flows.drifting.check import GroupDrift, group_drift
from flows.drifting.stretches import sketches_of, stretches_of
from flows.training.report import MOST_CYCLES
from inference.models.manifest import TimeWindow, TrainingWindows

CYCLE_MS = 86_400_000
"""One cycle is a day, as long as what the daily check compares: markets have a daily cycle."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class InputDrift:
    """What a candidate read in each whole cycle before `end_ms`, newest first, against the windows of its training."""

    cycles: tuple[GroupDrift, ...]
    end_ms: int

    def metrics(self) -> Mapping[str, float]:
        """
        Return how far each cycle lies from the training, as a share of what chance explains; above 1 it drifted.

        `input_drift/cycle_1` is the newest. A cycle that could not be judged has no figure.
        """
        return {
            f"input_drift/cycle_{place}": one.score / one.limit
            for place, one in enumerate(self.cycles, 1)
            if one.state == "judged" and one.limit > 0
        }

    def notes(self) -> tuple[str, ...]:
        """Say which inputs moved in which cycle, and which cycle could not be judged and why."""
        said, unknown = [], [one for one in self.cycles if one.state != "judged"]
        if unknown:
            said.append(
                f"Drift of inputs could not be judged on {len(unknown)} of {len(self.cycles)} days: {unknown[0].note}."
            )
        for place, one in enumerate(self.cycles):
            until = datetime.fromtimestamp((self.end_ms - place * CYCLE_MS) / 1000, tz=UTC)
            when = f"the day until {until:%Y-%m-%d %H:%M} UTC"
            if one.found:
                names = ", ".join(one.drifted[:_NAMED]) or "its inputs together"
                more = f" and {len(one.drifted) - _NAMED} more" if len(one.drifted) > _NAMED else ""
                said.append(f"What it reads had drifted in {when}: {names}{more}.")
        return tuple(said)


def input_drift(
    columns: Sequence[str],
    inputs: npt.NDArray[np.floating],
    times: npt.NDArray[np.int64],
    *,
    windows: TrainingWindows,
    judged: TimeWindow,
) -> InputDrift:
    """
    Hold each of the newest whole cycles of a locked window against the candidate's own training, all windows of it.

    It is the check of flow `drift`, with its limits and its false-alarm rate, asked of the candidate: a champion's
    drift is the reason for a candidate and cannot count against it, since it was trained on what had moved. Markets in
    which nothing trades yet need no champion for it.

    Args:
        columns: Names of the inputs.
        inputs: [rows, columns]; what is not finite counts as missing.
        times: Open time of each row's candle.
        windows: Of the candidate's training; fit to calibration are the reference.
        judged: The locked window.
    """
    reference = TimeWindow(start_ms=windows.fit.start_ms, end_ms=windows.calibration.end_ms)
    count = min((judged.end_ms - judged.start_ms) // CYCLE_MS, MOST_CYCLES)
    if count < 1:
        return InputDrift((), judged.end_ms)
    newest = stretches_of(
        "inputs", columns, inputs, times, reference=reference, end_ms=judged.end_ms, length_ms=CYCLE_MS
    )
    ends = [judged.end_ms - place * CYCLE_MS for place in range(count)]
    nows = [newest.now, *(sketches_of(inputs, times, end - CYCLE_MS, end) for end in ends[1:])]
    return InputDrift(tuple(group_drift(replace(newest, now=now)) for now in nows), judged.end_ms)
