"""How far one stretch of a column lies from the rest: PSI, KL, Jensen-Shannon, Kolmogorov-Smirnov and Wasserstein."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.stability import GRID_SHIFT, Sketch

Floats = npt.NDArray[np.float64]

STATISTICS = ("psi", "kl", "jensen_shannon", "ks", "wasserstein")
POWERS = np.array([1 / 3, 1 / 3, 2 / 3, 2 / 3, 2 / 3])
"""PSI and KL grow as the square of a shift, the others as the shift: these powers make each nearly normal by chance."""
# A share is never taken as zero: half a row in an empty bin, so that logarithms stay finite.
_HALF_A_ROW = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class ColumnDistances:
    """
    One column: how far each reference stretch lies from all others together, and how far the newest from all of them.

    `before` is [stretches, statistics] and `now` [statistics], in the order of `STATISTICS`.
    """

    before: Floats
    now: Floats


def column_distances(before: Sequence[Sketch], now: Sketch) -> ColumnDistances:
    """
    Measure every stretch of a column against the rest, on the grid of the sketches.

    PSI, KL (of the stretch from the rest) and Jensen-Shannon (its distance, base 2: 0 to 1) are over bins that hold
    equal shares of the reference, what is missing in a bin of its own. Kolmogorov-Smirnov and Wasserstein are over
    what is finite; the latter in standard deviations of the reference. A stretch with nothing finite is at 1 and 0.

    Args:
        before: A sketch of each reference stretch, two at least.
        now: The sketch of the newest stretch.
    """
    buckets = np.unique(np.concatenate([one.buckets for one in (*before, now)]))
    counts = np.zeros((len(before) + 1, len(buckets)))
    for row, one in enumerate((*before, now)):
        counts[row, np.searchsorted(buckets, one.buckets)] = one.counts
    missing = np.array([one.missing for one in (*before, now)], np.float64)
    below = np.cumsum(counts, axis=1)
    # Each reference stretch is held against the others, as the newest is against all: neither is in what it is held to.
    total = below[:-1].sum(axis=0)
    rest, missing_rest = total - below, missing[:-1].sum() - missing
    rest[-1], missing_rest[-1] = total, missing[:-1].sum()

    # The last value below each cut: equal shares of the reference, cut on the grid.
    cuts = np.searchsorted(buckets, _cuts(buckets, counts[:-1].sum(axis=0))) - 1
    shares, others = _shares(below, missing, cuts), _shares(rest, missing_rest, cuts)
    places = middles(buckets)
    spread = _deviation(counts[:-1].sum(axis=0), places)
    found = np.stack([*_of_shares(shares, others), *_of_curves(below, rest, places, spread)], axis=1)
    return ColumnDistances(found[:-1], found[-1])


def _cuts(buckets: npt.NDArray[np.int64], counts: Floats) -> npt.NDArray[np.int64]:
    there = counts > 0
    return Sketch(buckets[there], counts[there].astype(np.int64), 0).cuts()


def middles(buckets: npt.NDArray[np.int64]) -> Floats:
    """Return the number in the middle of each bucket of the sketches' grid."""
    negative = buckets < 0
    magnitude = np.where(negative, -1 - buckets, buckets)
    low = (magnitude << GRID_SHIFT).view(np.float64)
    high = ((magnitude + 1) << GRID_SHIFT).view(np.float64)
    middle = np.where(magnitude == 0, 0.0, np.where(np.isfinite(high), low + (high - low) / 2, low))
    return np.where(negative, -middle, middle)


def _shares(below: Floats, missing: Floats, cuts: npt.NDArray[np.int64]) -> Floats:
    finite = below[:, -1:] if below.shape[1] else np.zeros((len(below), 1))
    counts = np.concatenate([np.diff(below[:, cuts], axis=1, prepend=0), np.zeros((len(below), 1))], axis=1)
    counts[:, -1:] = finite - (below[:, cuts[-1:]] if len(cuts) else 0)
    counts = np.concatenate([counts, missing[:, None]], axis=1)
    shares: Floats = np.maximum(counts, _HALF_A_ROW) / np.maximum(counts.sum(axis=1, keepdims=True), 1.0)
    return shares


def _of_shares(shares: Floats, others: Floats) -> tuple[Floats, Floats, Floats]:
    ratio = np.log(shares / others)
    psi = ((shares - others) * ratio).sum(axis=1)
    kl = np.maximum((shares * ratio).sum(axis=1), 0.0)
    p, q = (part / part.sum(axis=1, keepdims=True) for part in (shares, others))
    between = (p + q) / 2
    divergence = (p * np.log2(p / between) + q * np.log2(q / between)).sum(axis=1) / 2
    return psi, kl, np.sqrt(np.maximum(divergence, 0.0))


def _of_curves(below: Floats, rest: Floats, places: Floats, spread: float) -> tuple[Floats, Floats]:
    if not len(places):
        return np.zeros(len(below)), np.zeros(len(below))
    n, m = below[:, -1], rest[:, -1]
    known = (n > 0) & (m > 0)
    apart = np.abs(below / np.maximum(n, 1)[:, None] - rest / np.maximum(m, 1)[:, None])
    moved = apart[:, :-1] @ np.diff(places) / (spread if spread > 0 else 1.0)
    return np.where(known, apart.max(axis=1), 1.0), np.where(known, moved, 0.0)


def _deviation(counts: Floats, places: Floats) -> float:
    if not counts.sum():
        return 0.0
    mean = np.average(places, weights=counts)
    return float(np.sqrt(np.average((places - mean) ** 2, weights=counts)))
