"""How good the candles of a window are: which prices are suspect, and which candles nobody can account for."""

from __future__ import annotations

import numpy as np

from feature_store.absences import WITNESSES
from flows.training.dataset import Dataset, Marks, Times
from inference.models.manifest import TimeWindow


def quality_metrics(dataset: Dataset, window: TimeWindow) -> dict[str, float]:
    """
    Return the shares of a window's candles that are suspect, and that are absent without an outage of the venue.

    `suspect_share` is of the candles that are there, of all series together; it is left out where nobody looked. A
    price that most series show at once, two of them at least, is the market's own and no fault of a source.
    `unexplained_share` is of those that should be: each series is expected from its first to its last candle in the
    whole dataset. Where every series lacks a candle that was expected, two of them at least, the venue was silent.
    """
    inside = (dataset.open_time_ms >= window.start_ms) & (dataset.open_time_ms < window.end_ms)
    found = {"unexplained_share": _unexplained(dataset, window)}
    if dataset.suspect is not None and inside.any():
        found["suspect_share"] = _suspect(dataset.suspect[inside], dataset.open_time_ms[inside])
    return found


def _suspect(marks: Marks, open_time_ms: Times) -> float:
    _, moment = np.unique(open_time_ms, return_inverse=True)
    there, marked = np.bincount(moment), np.bincount(moment, weights=marks)
    shared = (marked >= WITNESSES) & (2 * marked > there)
    return float((marks & ~shared[moment]).mean())


def _unexplained(dataset: Dataset, window: TimeWindow) -> float:
    step = dataset.timeframe_ms
    begin = -(-window.start_ms // step)
    slots = np.arange(begin, -(-window.end_ms // step))
    expected = np.zeros((len(dataset.symbols), len(slots)), bool)
    there = np.zeros_like(expected)
    for number in range(len(dataset.symbols)):
        opened = dataset.open_time_ms[dataset.series == number] // step
        if not len(opened):
            continue
        expected[number] = (slots >= opened[0]) & (slots <= opened[-1])
        place = opened - begin
        there[number, place[(place >= 0) & (place < len(slots))]] = True
    absent = expected & ~there
    silent = (absent.sum(axis=0) == expected.sum(axis=0)) & (expected.sum(axis=0) >= WITNESSES)
    counted = int(expected.sum())
    return float((absent & ~silent).sum() / counted) if counted else float("nan")
