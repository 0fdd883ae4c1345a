"""Sums over blocks of time, resampled together: intervals that respect overlapping labels and correlated series."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

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
        if len(self) < 2:
            nan = float("nan")
            return Interval(value=self.total(statistic) if len(self) else nan, low=nan, high=nan)
        draws = statistic(self._named(draw_weights(len(self), sampling.samples, sampling.seed) @ self.sums))
        draws = draws[np.isfinite(draws)]
        if len(draws) < sampling.samples / 2:
            return Interval(value=self.total(statistic), low=float("nan"), high=float("nan"))
        low, high = np.percentile(draws, [2.5, 97.5])
        return Interval(value=self.total(statistic), low=float(low), high=float(high))

    def _named(self, sums: Floats) -> Sums:
        return {name: sums[:, place] for place, name in enumerate(self.names)}


def draw_weights(blocks: int, samples: int, seed: int) -> npt.NDArray[np.float64]:
    """Return how often each block is drawn in each sample; equal for equal arguments, so differences are paired."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(blocks, np.full(blocks, 1 / blocks), size=samples).astype(np.float64)


def ratio(top: Floats, bottom: Floats) -> Floats:
    """Return top / bottom, NaN where there is nothing to divide by."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(bottom > 0, top / bottom, np.nan)
