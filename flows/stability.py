"""How far the distribution of an input has moved: the population stability index."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

BINS = 10
# Usual reading of the index: below the first nothing moved, above the second the model sees another market.
MOVED, DRIFTED = 0.10, 0.25
# A share is never taken as zero: half a row in an empty bin, so that the index stays finite.
_HALF_A_ROW = 0.5

Floats = npt.NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Stability:
    """One input: its index, and where its median was and is."""

    name: str
    index: float
    median_before: float
    median_now: float

    @property
    def verdict(self) -> str:
        """What the index is usually read as."""
        if self.index < MOVED:
            return "stable"
        return "moved" if self.index < DRIFTED else "drifted"


def population_stability_index(before: Floats, now: Floats, bins: int = BINS) -> float:
    """
    Return the PSI of two samples over quantile bins of the first; NaN counts as a bin of its own.

    0 where the shares agree; NaN where either sample is empty.
    """
    if not len(before) or not len(now):
        return float("nan")
    finite = before[np.isfinite(before)]
    cuts = np.unique(np.quantile(finite, np.linspace(0, 1, bins + 1)[1:-1])) if len(finite) else np.empty(0)
    expected, found = _shares(before, cuts), _shares(now, cuts)
    return float(np.sum((found - expected) * np.log(found / expected)))


def _shares(values: Floats, cuts: Floats) -> npt.NDArray[np.float64]:
    missing = ~np.isfinite(values)
    places = np.where(missing, len(cuts) + 1, np.searchsorted(cuts, values, side="right"))
    counts = np.bincount(places, minlength=len(cuts) + 2).astype(np.float64)
    shares: npt.NDArray[np.float64] = np.maximum(counts, _HALF_A_ROW) / counts.sum()
    return shares


def stability(names: tuple[str, ...], before: Floats, now: Floats) -> list[Stability]:
    """Return the stability of every column, the least stable first."""
    found = [
        Stability(
            name,
            population_stability_index(before[:, column], now[:, column]),
            float(np.nanmedian(before[:, column])),
            float(np.nanmedian(now[:, column])),
        )
        for column, name in enumerate(names)
    ]
    return sorted(found, key=lambda one: one.index, reverse=True)
