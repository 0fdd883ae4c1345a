"""Features as whoever decided at each candle had them, where candles came late or were corrected later."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import INDEX
from feature_store.features.engine import FEATURE_COUNT, FeatureEngine, SeriesState

if TYPE_CHECKING:
    import numpy.typing as npt

    from feature_store.partitions import Rows

    Floats = npt.NDArray[np.float64]
    Places = npt.NDArray[np.int64]

MOST_REPLAYS = 512
"""How many candles may be computed again for each that there is, before the rest is given up."""
BETWEEN_STATES = 256
"""Candles from one remembered state to the next: half of this is computed again, on average, to reach a candle."""


def features_as_decided(
    engine: FeatureEngine, newest: CandleBlock, rows: Rows, start_ms: int, most_replays: int = MOST_REPLAYS
) -> Floats:
    """
    Return the features of every candle [n, 49] as they were when it first became available.

    Of each candle up to its own, whatever had arrived by then counts, in the revision that was then the newest.
    Without a correction or a late candle that is one pass over all of them. Otherwise the pass goes in order of arrival
    and steps back to each candle that came late or anew, which costs as many candles as had come meanwhile. Where that
    adds up to more than `most_replays` times the candles there are, the features of all candles that are decided on
    later, and reach back to one that changed, are NaN: they are not told rather than told as they are today.

    Args:
        engine: What is remembered of candles before these; it may be changed.
        newest: The candles in their newest revision, oldest first.
        rows: Every revision of them, oldest candle first.
        start_ms: Candles that open earlier warm the others up; their own features may be of a later moment.
        most_replays: How many candles may be computed again for each that there is.
    """
    # Which of those that came before the first decision came first makes no difference to it.
    arrived_ms = np.maximum(rows.available_at_ms, start_ms)
    if len(rows) == len(newest) and (arrived_ms[1:] >= arrived_ms[:-1]).all():
        return engine.advance(newest)
    order, cuts = in_order(rows, arrived_ms)
    opened = rows.block.open_time_ms[order]
    places = np.searchsorted(newest.open_time_ms, opened)
    values = rows.block.values[order]
    past = _Past(engine.timeframe, newest.open_time_ms, [(0, engine.state)])
    out, told = np.full((FEATURE_COUNT, len(newest)), np.nan).T, np.zeros(len(newest), np.bool_)
    budget = most_replays * len(newest)
    for begin, end in pairwise(cuts):
        if past.computed > budget:
            break
        fresh = places[begin:end][~past.known[places[begin:end]]]
        out[fresh] = past.arrive(places[begin:end], values[begin:end], fresh)
        told[fresh] = True
    if not told.all():
        steady = ~told & _steady(rows, arrived_ms, newest)
        out[steady] = engine.advance(newest)[steady]
    return out


def given_up(features: Floats) -> int:
    """Return of how many candles the features are not told: every candle has a close."""
    return int(np.isnan(features[:, INDEX["close"]]).sum())


def in_order(rows: Rows, arrived_ms: Places) -> tuple[Places, list[int]]:
    """
    Return the order in which rows came, and where in it to stop.

    Between two stops lies what can be taken in at once: what came at one moment out of turn, or all that came in turn.
    """
    order = np.lexsort((rows.revision, rows.block.open_time_ms, arrived_ms))
    opened, arrived_ms = rows.block.open_time_ms[order], arrived_ms[order]
    out_of_turn = 1 + np.flatnonzero(opened[1:] <= np.maximum.accumulate(opened)[:-1])
    moments = np.unique(arrived_ms[out_of_turn])
    begins = np.searchsorted(arrived_ms, moments, side="left")
    ends = np.searchsorted(arrived_ms, moments, side="right")
    return order, np.unique(np.concatenate([[0], begins, ends, [len(arrived_ms)]])).tolist()


def _steady(rows: Rows, arrived_ms: Places, newest: CandleBlock) -> npt.NDArray[np.bool_]:
    """Mark the candles at whose arrival all up to them was known as it is now."""
    times = rows.block.open_time_ms
    first = np.searchsorted(times, newest.open_time_ms, side="left")
    last = np.searchsorted(times, newest.open_time_ms, side="right") - 1
    steady: npt.NDArray[np.bool_] = np.maximum.accumulate(arrived_ms[last]) <= arrived_ms[first]
    return steady


@dataclass(slots=True)
class _Past:
    """The candles of one series as far as they have arrived, and what the features remembered at some of them."""

    timeframe: Timeframe
    times: Places
    # How many of all candles, oldest first, each state has behind it.
    states: list[tuple[int, SeriesState]]
    computed: int = 0
    known: npt.NDArray[np.bool_] = field(init=False)
    _values: Floats = field(init=False)
    _engine: FeatureEngine = field(init=False)
    _end: int = field(init=False, default=0)
    # Behind the newest candle that has arrived there is nothing to look for.
    _frontier: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.known = np.zeros(len(self.times), np.bool_)
        self._values = np.empty((len(self.times), 5))
        self._engine = FeatureEngine(self.timeframe, self.states[0][1].copy())

    def arrive(self, places: Places, values: Floats, wanted: Places) -> Floats:
        """Take in candles, new or in a new revision, and return the features of some of them."""
        # Of two revisions at one moment the later one is assigned last.
        self._values[places] = values
        self.known[places] = True
        begin = int(places.min())
        self._frontier = max(self._frontier, int(places.max()) + 1)
        if begin < self._end:
            while self.states[-1][0] > begin:
                self.states.pop()
            self._end, state = self.states[-1]
            self._engine = FeatureEngine(self.timeframe, state.copy())
        ahead = self._end + np.flatnonzero(self.known[self._end : self._frontier])
        self.computed += len(ahead)
        parts = [self._advance(ahead[first : first + BETWEEN_STATES]) for first in range(0, len(ahead), BETWEEN_STATES)]
        return np.concatenate(parts)[np.searchsorted(ahead, wanted)]

    def _advance(self, places: Places) -> Floats:
        features = self._engine.advance(CandleBlock(self.times[places], self._values[places]))
        self._end = int(places[-1]) + 1
        if self._end - self.states[-1][0] >= BETWEEN_STATES:
            self.states.append((self._end, self._engine.state.copy()))
        return features
