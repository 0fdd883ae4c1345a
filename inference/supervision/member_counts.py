"""What each member of the models that traded has answered since the start, how often it agreed, how long it took."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from inference.models.ensemble import EnsembleOutput, Floats
from inference.supervision.latency import Latencies

ENSEMBLE = "ensemble"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """
    What one member answered of one candle.

    `predictions` are its finite answers and `not_finite` the others; it `voted` where the ensemble had an opinion, and
    `agreed` where its sign was that opinion's.
    """

    predictions: int
    not_finite: int
    voted: int
    agreed: int


@dataclass(slots=True)
class MemberCount:
    """The sums of `Answers` since the start, and how long answering took, over how many candles."""

    predictions: int = 0
    not_finite: int = 0
    voted: int = 0
    agreed: int = 0
    seconds: float = 0.0
    candles: int = 0
    latencies: Latencies = field(default_factory=Latencies)


def answers_of(scores: EnsembleOutput) -> dict[str, Answers]:
    """
    Return what each member answered, and the ensemble as a whole by its own name.

    The ensemble's abstentions are its `not_finite`: it has no opinion where a number is missing, or is not believed.
    """
    opinion = ~scores.abstained
    signs = np.sign(scores.expected_return)
    found = {name: _answers(values, signs, opinion) for name, values in scores.members.items()}
    found[ENSEMBLE] = _answers(scores.expected_return, signs, opinion)
    return found


def _answers(values: Floats, signs: Floats, opinion: npt.NDArray[np.bool_]) -> Answers:
    finite = np.isfinite(values)
    voted = finite & opinion
    return Answers(
        predictions=int(finite.sum()),
        not_finite=int((~finite).sum()),
        voted=int(voted.sum()),
        agreed=int((voted & (np.sign(values) == signs)).sum()),
    )


class MemberCounts:
    """Counts by member, over all models since the start: a member that the next model has too counts on."""

    def __init__(self) -> None:
        self.by_name: dict[str, MemberCount] = {}

    def add(self, answers: Mapping[str, Answers], seconds: Mapping[str, float]) -> None:
        """Count what was answered of one candle, and how long it took those that are named."""
        for name, one in answers.items():
            count = self.by_name.setdefault(name, MemberCount())
            count.predictions += one.predictions
            count.not_finite += one.not_finite
            count.voted += one.voted
            count.agreed += one.agreed
            if (took := seconds.get(name)) is not None:
                count.seconds += took
                count.candles += 1
                count.latencies.add(took)
