"""Which candles hold a price that their neighbours do not bear out; they are told, never changed or removed."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CLOSE, HIGH, LOW, OPEN, VOLUME, CandleBlock, Timeframe

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

NEIGHBOURS = 96
"""Candles of a stretch whose median true range says how far prices usually go; one bad tick does not move it."""
USUAL_RANGES = 20.0
"""A price is suspect this many usual ranges away. Ordinary candles, fat tails and all, stay within ten."""
LEAST_MOVE = 0.1
"""And only if it is also this far away (in logs, about 10 %): a few price steps of a quiet market are not a fault."""
REVERTED = 0.5
"""A move has reverted at once when the next candle takes back more than this share of it."""


class TickFault(StrEnum):
    """In which way a candle departs from its neighbours."""

    WICK = "wick"
    """High or low is far outside where the candle opened and closed."""
    SPIKE = "spike"
    """The close is far from the one before, and the next one is back."""
    JUMP = "jump"
    """The close is far from the one before and stays there: news, a new unit, or another instrument."""
    SILENT_MOVE = "moved without volume"
    """Prices differ though nothing traded."""


@dataclass(frozen=True, slots=True)
class SuspectTick:
    """One suspect candle: the size of the move in logs, and how many usual ranges that is."""

    open_time_ms: int
    fault: TickFault
    move: float
    usual_ranges: float


def suspect_ticks(block: CandleBlock, timeframe: Timeframe) -> tuple[SuspectTick, ...]:
    """
    Return the candles whose prices are suspect, oldest first; looks at later candles too, so it is no feature.

    A move across missing candles is not judged: the market had time for it.
    """
    if len(block) == 0:
        return ()
    open_, close, volume = (block.values[:, column] for column in (OPEN, CLOSE, VOLUME))
    high, low = block.values[:, HIGH], block.values[:, LOW]
    follows = np.append([False], np.diff(block.open_time_ms) == timeframe.milliseconds)
    before = np.where(follows, np.append(open_[:1], close[:-1]), open_)
    wick = np.log(np.maximum(np.minimum(open_, close) / low, high / np.maximum(open_, close)))
    moved = np.log(close / before)
    usual = _usual_range(np.log(np.maximum(high, before) / np.minimum(low, before)))

    far = np.maximum(USUAL_RANGES * usual, LEAST_MOVE)
    jumped = np.abs(moved) > far
    spiked = jumped & _taken_back(moved, follows)
    silent = (volume == 0) & ((high != low) | (close != before))
    kinds = (silent, spiked, jumped, wick > far)
    faults = (TickFault.SILENT_MOVE, TickFault.SPIKE, TickFault.JUMP, TickFault.WICK)
    sizes = (np.maximum(np.abs(moved), wick), np.abs(moved), np.abs(moved), wick)
    found = []
    for row in np.flatnonzero(np.logical_or.reduce(kinds)).tolist():
        first = next(place for place, kind in enumerate(kinds) if kind[row])
        size = float(sizes[first][row])
        ranges = size / float(usual[row]) if usual[row] > 0 else np.inf
        found.append(SuspectTick(int(block.open_time_ms[row]), faults[first], size, ranges))
    return tuple(found)


def suspect_marks(block: CandleBlock, timeframe: Timeframe) -> npt.NDArray[np.bool_]:
    """Mark the candles [n] whose prices are suspect; see `suspect_ticks`."""
    suspects = [one.open_time_ms for one in suspect_ticks(block, timeframe)]
    marks: npt.NDArray[np.bool_] = np.isin(block.open_time_ms, np.array(suspects, np.int64))
    return marks


def _taken_back(moved: Floats, follows: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Mark the moves of which the next candle took back more than half, without going as far the other way."""
    after = np.append(np.where(follows[1:], moved[1:], 0.0), [0.0])
    back: npt.NDArray[np.bool_] = np.abs(moved + after) < (1 - REVERTED) * np.abs(moved)
    return back


def _usual_range(true_range: Floats) -> Floats:
    """Return for each candle the largest median of its own stretch and the two beside it; still candles don't count."""
    stretches = -(-len(true_range) // NEIGHBOURS)
    padded = np.full(stretches * NEIGHBOURS, np.nan)
    padded[: len(true_range)] = np.where(true_range > 0, true_range, np.nan)
    rows = np.sort(padded.reshape(stretches, NEIGHBOURS), axis=1)  # NaN last
    counts = np.isfinite(rows).sum(axis=1)
    middle = rows[np.arange(stretches), np.maximum(counts - 1, 0) // 2]
    beside = np.concatenate([[0.0], np.where(counts > 0, middle, 0.0), [0.0]])
    usual = np.maximum(np.maximum(beside[:-2], beside[1:-1]), beside[2:])
    return np.repeat(usual, NEIGHBOURS)[: len(true_range)]
