"""Folds in time: walk-forward, and combinatorial purged cross-validation (Lopez de Prado, 2018, chapters 7 and 12)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations, pairwise
from math import comb

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from inference.models.manifest import TimeWindow

Times = npt.NDArray[np.int64]
Marks = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, kw_only=True)
class FoldRules:
    """
    What keeps folds apart, in candles: how far a label reaches, and the pause beside each test window.

    Raises:
        BadInputError: The embargo is shorter than the horizon, or one of them is no length.
    """

    timeframe_ms: int
    horizon: int
    embargo: int

    def __post_init__(self) -> None:
        if self.timeframe_ms < 1 or self.horizon < 1:
            raise BadInputError(f"Folds need a timeframe and a horizon above 0, were {self.timeframe_ms} ms and {self}")
        if self.embargo < self.horizon:
            raise BadInputError(f"The embargo must be at least the horizon of {self.horizon}, was {self.embargo}")

    @property
    def embargo_ms(self) -> int:
        """The pause beside each test window, in milliseconds."""
        return self.embargo * self.timeframe_ms

    @property
    def shortest_ms(self) -> int:
        """The shortest stretch that is worth testing on, in milliseconds."""
        return 4 * self.horizon * self.timeframe_ms


@dataclass(frozen=True, slots=True)
class Fold:
    """
    Stretches to learn from and windows to test on; `groups` are the numbers of the windows among all that there are.

    A row belongs to a stretch when its candle opens inside and its label is known by the end: labels that reach
    further are purged. Between a stretch and a window lies the embargo, on both sides.
    """

    groups: tuple[int, ...]
    train: tuple[TimeWindow, ...]
    tests: tuple[TimeWindow, ...]

    def learns_from(self, open_time_ms: Times, known_ms: Times) -> Marks:
        """Mark the rows to learn from; `known_ms` is when each row's label is known."""
        return _inside(self.train, open_time_ms, known_ms)

    def tests_on(self, open_time_ms: Times, known_ms: Times) -> Marks:
        """Mark the rows to test on."""
        return _inside(self.tests, open_time_ms, known_ms)


def walk_forward(
    start_ms: int, end_ms: int, rules: FoldRules, *, folds: int, first_share: float = 0.4
) -> tuple[Fold, ...]:
    """
    Return folds in order of time, each of which learns from all that came before its window.

    Args:
        start_ms: Where the stretch begins.
        end_ms: Where it ends (exclusive).
        rules: What keeps folds apart.
        folds: How many windows of equal length to test on.
        first_share: How much of the stretch the first fold learns from.

    Raises:
        BadInputError: The stretch is too short for so many folds, or a number makes no sense.
    """
    if folds < 1 or not 0 < first_share < 1:
        raise BadInputError(f"Walk-forward needs folds and a share in (0, 1), were {folds} and {first_share}")
    windows = _cut(start_ms + _whole((end_ms - start_ms) * first_share, rules), end_ms, rules, folds)
    done = []
    for number, window in enumerate(windows):
        learned = TimeWindow(start_ms=start_ms, end_ms=window.start_ms - rules.embargo_ms)
        _require(learned, rules)
        done.append(Fold((number,), (learned,), (window,)))
    return tuple(done)


def combinatorial(start_ms: int, end_ms: int, rules: FoldRules, *, groups: int, tested: int) -> tuple[Fold, ...]:
    """
    Return every choice of `tested` out of `groups` equal windows, learning from what is left of the others.

    Each window is tested equally often, so that the folds can be put together to `path_count` histories, in each of
    which every window was tested once by a model that had not seen it.

    Raises:
        BadInputError: The stretch is too short, or the numbers leave nothing to learn from.
    """
    if not 1 <= tested < groups:
        raise BadInputError(f"Choose at least 1 and fewer than {groups} of {groups} groups to test, were {tested}")
    windows = _cut(start_ms, end_ms, rules, groups)
    folds = []
    for chosen in combinations(range(groups), tested):
        train = _between([windows[one] for one in chosen], start_ms, end_ms, rules)
        if not train:
            raise BadInputError(f"Testing {tested} of {groups} groups leaves nothing to learn from; load more days")
        folds.append(Fold(chosen, train, tuple(windows[one] for one in chosen)))
    return tuple(folds)


def path_count(groups: int, tested: int) -> int:
    """Return how many histories the folds of `combinatorial` make: C(groups, tested) * tested / groups."""
    return comb(groups - 1, tested - 1)


def paths(folds: Iterable[Fold]) -> tuple[dict[int, int], ...]:
    """
    Return the histories that folds make: of each, by group, the number of the fold that tests the group there.

    Every fold's test of a group is part of exactly one history.
    """
    testers: dict[int, list[int]] = {}
    for number, fold in enumerate(folds):
        for group in fold.groups:
            testers.setdefault(group, []).append(number)
    count = min(map(len, testers.values()), default=0)
    return tuple({group: testers[group][number] for group in sorted(testers)} for number in range(count))


def _inside(windows: Iterable[TimeWindow], open_time_ms: Times, known_ms: Times) -> Marks:
    inside = np.zeros(len(open_time_ms), np.bool_)
    for window in windows:
        inside |= (open_time_ms >= window.start_ms) & (known_ms <= window.end_ms)
    return inside


def _whole(length_ms: float, rules: FoldRules) -> int:
    return round(length_ms / rules.timeframe_ms) * rules.timeframe_ms


def _cut(start_ms: int, end_ms: int, rules: FoldRules, count: int) -> list[TimeWindow]:
    candles = (end_ms - start_ms) // rules.timeframe_ms
    cuts = [start_ms + round(candles * number / count) * rules.timeframe_ms for number in range(count + 1)]
    windows = [TimeWindow(start_ms=first, end_ms=last) for first, last in pairwise(cuts)]
    for window in windows:
        _require(window, rules)
    return windows


def _require(window: TimeWindow, rules: FoldRules) -> None:
    if window.end_ms - window.start_ms < rules.shortest_ms:
        raise BadInputError(
            f"A fold of {(window.end_ms - window.start_ms) // rules.timeframe_ms} candles is too short for labels of "
            f"{rules.horizon}; load more days, or ask for fewer folds"
        )


def _between(tests: list[TimeWindow], start_ms: int, end_ms: int, rules: FoldRules) -> tuple[TimeWindow, ...]:
    """Return what lies before, between and after windows, an embargo away from each; what is too short is left out."""
    found, begin = [], start_ms
    for window in tests:
        found.append((begin, window.start_ms - rules.embargo_ms))
        begin = window.end_ms + rules.embargo_ms
    found.append((begin, end_ms))
    return tuple(TimeWindow(start_ms=first, end_ms=last) for first, last in found if last - first >= rules.shortest_ms)
