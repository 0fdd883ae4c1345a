"""Labels as trees and linear models learn them: centred, in units of their own spread, without outliers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.training.dataset import Floats

# Beyond this many standard deviations a move says little about the next one.
_CUT = 4.0


@dataclass(frozen=True, slots=True)
class TargetScale:
    """
    Scale of the fit window's labels.

    The centre is taken off and not put back: the drift of one month is no forecast for the next hour.
    """

    centre: float
    spread: float

    @classmethod
    def of(cls, label: Floats) -> TargetScale:
        """Measure labels; only the fit window's may be given."""
        return cls(float(label.mean()), float(max(label.std(), 1e-9)))

    def encode(self, label: Floats) -> Floats:
        """Return what is learned."""
        return np.clip((label - self.centre) / self.spread, -_CUT, _CUT)
