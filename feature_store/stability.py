"""How far a distribution has moved: sketches on one grid, bins, and the population stability index."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

BINS = 10
# Usual reading of the index: below the first nothing moved, above the second the model sees another market.
MOVED, DRIFTED = 0.10, 0.25
GRID_BITS = 6
"""Bits of the mantissa that tell buckets apart: 64 buckets between a power of two and the next."""
GRID_SHIFT = 52 - GRID_BITS
GRID_ERROR = 0.5**GRID_BITS / 2
"""How far the middle of a bucket is from any value in it, at most, as a share of the value."""
# A share is never taken as zero: half a row in an empty bin, so that the index stays finite.
_HALF_A_ROW = 0.5
_MAGNITUDES = (1 << 63 - GRID_SHIFT) - 1
_INFINITE = 2047 << GRID_BITS
# Up to so many different values a column is one of categories to Evidently, and what it puts in for an empty bin.
_CATEGORIES, _SMALL_SHARE = 20, 1e-4

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.int64]


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


@dataclass(frozen=True, slots=True, eq=False)
class Sketch:
    """
    How often values of one column fall into each bucket of a grid that no data has shaped.

    A bucket is named by sign, exponent and first bits of the mantissa, so its width is a 64th of its power of two at
    most. Sketches of any two samples therefore add up to the sketch of both, exactly. What is not finite is missing.
    """

    buckets: Ints
    counts: Ints
    missing: int

    @classmethod
    def of(cls, values: Floats) -> Self:
        """Return the sketch of a sample."""
        bits = np.ascontiguousarray(values, np.float64).view(np.int64)
        if not len(bits):
            return cls.empty()
        places = bits >> GRID_SHIFT
        least, most = int(places.min()), int(places.max())
        # Few values far apart, as of both signs, are sorted: counting would walk through all that lies between.
        if most - least > 8 * len(places):
            return cls._of_places(*np.unique(places, return_counts=True))
        places -= least
        counts = np.bincount(places)
        used = np.flatnonzero(counts)
        return cls._of_places(used + least, counts[used])

    @classmethod
    def _of_places(cls, places: Ints, counts: Ints) -> Self:
        """Put the places, which are sign and magnitude, in the order of the values that they hold."""
        magnitudes = places & _MAGNITUDES
        finite = magnitudes < _INFINITE
        # The negative zero is the same number as the positive one.
        buckets = np.where((places < 0) & (magnitudes > 0), -1 - magnitudes, magnitudes)[finite]
        kept = cls(buckets, counts[finite], int(counts[~finite].sum()))
        return cls.merged([kept])

    @classmethod
    def empty(cls) -> Self:
        """Return the sketch of nothing."""
        return cls(np.empty(0, np.int64), np.empty(0, np.int64), 0)

    @classmethod
    def merged(cls, sketches: Iterable[Sketch]) -> Self:
        """Return the sketch of all samples together."""
        given = list(sketches)
        if not given:
            return cls.empty()
        buckets, places = np.unique(np.concatenate([one.buckets for one in given]), return_inverse=True)
        counts = np.zeros(len(buckets), np.int64)
        np.add.at(counts, places, np.concatenate([one.counts for one in given]))
        return cls(buckets, counts, sum(one.missing for one in given))

    @property
    def rows(self) -> int:
        """How many values there are, missing ones included."""
        return int(self.counts.sum()) + self.missing

    def quantile(self, share: float) -> float:
        """Return the middle of the bucket that holds a quantile; NaN where nothing is finite."""
        if not len(self.counts):
            return float("nan")
        rank = share * (int(self.counts.sum()) - 1)
        at = int(np.searchsorted(np.cumsum(self.counts), rank, side="right"))
        return bucket_middle(int(self.buckets[min(at, len(self.buckets) - 1)]))

    def cuts(self, bins: int = BINS) -> Ints:
        """Return the buckets at which bins after the first begin: shares as near to equal as the grid allows."""
        below = np.cumsum(self.counts)
        if len(below) < 2:
            return np.empty(0, np.int64)
        wanted = below[-1] * np.arange(1, bins) / bins
        right = np.clip(np.searchsorted(below, wanted), 1, len(below) - 1)
        nearest = np.where(wanted - below[right - 1] <= below[right] - wanted, right - 1, right)
        begins: Ints = self.buckets[np.unique(np.minimum(nearest, len(below) - 2)) + 1]
        return begins

    def binned(self, cuts: Ints) -> Ints:
        """Return how many values lie in each bin, and last how many are missing."""
        places = np.searchsorted(cuts, self.buckets, side="right")
        counts = np.zeros(len(cuts) + 2, np.int64)
        np.add.at(counts, places, self.counts)
        counts[-1] = self.missing
        return counts


def bucket_middle(bucket: int) -> float:
    """Return the number in the middle of a bucket; 0 for the one that holds 0."""
    magnitude = bucket if bucket >= 0 else -1 - bucket
    if magnitude == 0:
        return 0.0
    low, high = np.array([magnitude << GRID_SHIFT, (magnitude + 1) << GRID_SHIFT], np.int64).view(np.float64).tolist()
    middle: float = low + (high - low) / 2 if math.isfinite(high) else low
    return middle if bucket >= 0 else -middle


def stability(names: Sequence[str], before: Sequence[Sketch], now: Sequence[Sketch]) -> list[Stability]:
    """Return the stability of every column, the least stable first."""
    found = [
        Stability(name, stability_index(old, new), old.quantile(0.5), new.quantile(0.5))
        for name, old, new in zip(names, before, now, strict=True)
    ]
    return sorted(found, key=lambda one: -np.inf if np.isnan(one.index) else one.index, reverse=True)


def stability_index(before: Sketch, now: Sketch, bins: int = BINS) -> float:
    """
    Return the index of two samples over bins that hold equal shares of the first; what is missing is a bin of its own.

    0 where the shares agree; NaN where either sample is empty.
    """
    if not before.rows or not now.rows:
        return float("nan")
    cuts = before.cuts(bins)
    return index_of_shares(_never_empty(before.binned(cuts)), _never_empty(now.binned(cuts)))


def equal_width_index(before: Floats, now: Floats) -> float:
    """
    Return the index over bins of equal width, as Evidently 0.7 defines it; what is not finite is left out.

    The bins are those of numpy's rule of Sturges over both samples together, from their least to their greatest value;
    a first sample of at most 20 different values is counted value by value. A single far value widens every bin, so
    use `stability_index` for anything that has tails.

    0 where the shares agree; NaN where either sample holds nothing finite.
    """
    old, new = _finite(before), _finite(now)
    if not len(old) or not len(new):
        return float("nan")
    if _is_of_categories(old):
        counts = _value_counts(old, new)
    else:
        low, high = float(min(old.min(), new.min())), float(max(old.max(), new.max()))
        width = (high - low) / (np.log2(len(old) + len(new)) + 1.0)
        bins = int(np.ceil((high - low) / width)) if width > 0 else 1
        counts = tuple(np.histogram(part, bins=bins, range=(low, high))[0] for part in (old, new))
    return index_of_shares(_never_zero(counts[0] / len(old)), _never_zero(counts[1] / len(new)))


def index_of_shares(expected: npt.NDArray[np.float64], found: npt.NDArray[np.float64]) -> float:
    """Return the population stability index of two lists of shares, none of them zero."""
    return float(np.sum((found - expected) * np.log(found / expected)))


def _never_empty(counts: Ints) -> npt.NDArray[np.float64]:
    shares: npt.NDArray[np.float64] = np.maximum(counts, _HALF_A_ROW) / counts.sum()
    return shares


def _never_zero(shares: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    least = shares[shares > 0].min()
    return np.where(shares > 0, shares, least / 1e6 if least <= _SMALL_SHARE else _SMALL_SHARE)


def _finite(values: Floats) -> Floats:
    finite = np.isfinite(values)
    return values if finite.all() else values[finite]


def _is_of_categories(values: Floats) -> bool:
    # A look at the first ones spares sorting nearly every column.
    return len(np.unique(values[:1000])) <= _CATEGORIES and len(np.unique(values)) <= _CATEGORIES


def _value_counts(before: Floats, now: Floats) -> tuple[Ints, ...]:
    kinds = np.unique(np.concatenate([before, now]))
    return tuple(np.bincount(np.searchsorted(kinds, part), minlength=len(kinds)) for part in (before, now))
