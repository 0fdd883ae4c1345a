"""Sums over blocks of time, resampled together: intervals that respect overlapping labels and correlated series."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache

import msgspec
import numpy as np
import numpy.typing as npt

from flows.training.dataset import Floats, Times

Sums = dict[str, Floats]
Statistic = Callable[[Sums], Floats]


class Interval(msgspec.Struct, frozen=True, kw_only=True):
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How intervals are drawn: blocks of this length, this many samples, this seed."""

    block_ms: int
    samples: int
    seed: int


@dataclass(frozen=True, slots=True, eq=False)
class BlockSums:
    """
    Sums of each column over blocks of time, all series of a moment in one block.

    A block is at least as long as a label, so that blocks hardly share outcomes; all series of a block are drawn
    together, so that a day on which everything moved at once counts as one day.
    """

    names: tuple[str, ...]
    sums: Floats

    @classmethod
    def of(cls, open_time_ms: Times, block_ms: int, columns: dict[str, Floats]) -> BlockSums:
        """Add up columns, which must be finite, over blocks of `block_ms`."""
        if not len(open_time_ms):
            return cls(tuple(columns), np.zeros((0, len(columns))))
        block = (open_time_ms - open_time_ms.min()) // block_ms
        count = int(block.max()) + 1
        stacked = [np.bincount(block, weights=values, minlength=count) for values in columns.values()]
        used = np.bincount(block, minlength=count) > 0
        return cls(tuple(columns), np.stack(stacked, axis=1).astype(np.float64)[used])

    def __len__(self) -> int:
        return len(self.sums)

    def total(self, statistic: Statistic) -> float:
        """Return a statistic of everything."""
        return float(statistic(self._named(self.sums.sum(axis=0, keepdims=True)))[0])

    def interval(self, statistic: Statistic, sampling: Sampling) -> Interval:
        """Return a statistic with its percentile interval over blocks drawn with replacement."""
        return self.intervals({"": statistic}, sampling)[""]

    def intervals(self, statistics: Mapping[str, Statistic], sampling: Sampling) -> dict[str, Interval]:
        """Return several statistics by name with their intervals, all of the same draws."""
        if not len(self):
            nan = float("nan")
            return {name: Interval(value=nan, low=nan, high=nan) for name in statistics}
        drawn = self.drawn(sampling)
        return {
            name: interval_of(self.total(statistic), None if drawn is None else statistic(drawn))
            for name, statistic in statistics.items()
        }

    def drawn(self, sampling: Sampling) -> Sums | None:
        """Return the sums of each sample, by column; None where there are too few blocks to draw from."""
        if len(self) < 2:
            return None
        return self._named(draw_weights(len(self), sampling.samples, sampling.seed) @ self.sums)

    def _named(self, sums: Floats) -> Sums:
        return {name: sums[:, place] for place, name in enumerate(self.names)}


def interval_of(value: float, draws: Floats | None, *, is_leaning: bool = False) -> Interval:
    """
    Return a figure with the percentile interval of its draws; without ends where most samples have no value.

    A figure that is a sum of distances `is_leaning`: each sample adds its own noise to the noise that is in the figure,
    so that samples lie above it on average. By so much they are taken down.
    """
    finite = np.empty(0) if draws is None else draws[np.isfinite(draws)]
    if draws is None or len(finite) < len(draws) / 2:
        return Interval(value=value, low=float("nan"), high=float("nan"))
    low, high = np.percentile(finite, [2.5, 97.5]) - (float(finite.mean()) - value if is_leaning else 0.0)
    return Interval(value=value, low=float(low), high=float(high))


@lru_cache(maxsize=16)
def draw_weights(blocks: int, samples: int, seed: int) -> npt.NDArray[np.float64]:
    """
    Return how often each block is drawn in each sample [samples, blocks]; nobody may write to it.

    Equal for equal arguments, so that differences are paired, and drawn once for all figures of a window.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=samples).astype(np.float64)
    drawn.flags.writeable = False
    return drawn


@lru_cache(maxsize=16)
def draw_orders(blocks: int, samples: int, seed: int) -> npt.NDArray[np.int64]:
    """Return the same for what depends on the order of blocks: which block stands where [samples, blocks]."""
    drawn = np.random.default_rng(seed).integers(0, blocks, size=(samples, blocks))
    drawn.flags.writeable = False
    return drawn


def ratio(top: Floats, bottom: Floats) -> Floats:
    """Return top / bottom, NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)
