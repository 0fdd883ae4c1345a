"""Added inputs as whoever decided at each candle had them, where candles came late or were corrected later."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.decided import BETWEEN_STATES, MOST_REPLAYS, in_order
from feature_store.extensions.engine import ExtensionEngine
from feature_store.extensions.expansion import Expansion, Known, Source, SourceRows, as_of
from feature_store.extensions.view import FeatureView, as_inputs

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy.typing as npt

    from feature_store.extensions.definition import ExtensionSet
    from feature_store.partitions import Rows

    Floats = npt.NDArray[np.float64]
    Inputs = npt.NDArray[np.float32]
    # Takes whose candles, and of what timeframe, and at how many candles what they say is not told.
    GivenUp = Callable[[str, int], None]
    Marks = npt.NDArray[np.bool_]
    Times = npt.NDArray[np.int64]


def inputs_as_decided(
    view: FeatureView,
    symbol: str,
    timeframe: Timeframe,
    stored: Mapping[str, Rows],
    start_ms: int,
    most_replays: int = MOST_REPLAYS,
    given_up: GivenUp = lambda *_: None,
) -> Inputs:
    """
    Return the added inputs at each candle of a symbol [n, added] as they were when it first became available.

    That is what a worker has, which rebuilds a series before it decides on it: all in the revisions that were then the
    newest. To features of one's own late candles count from when they came; to what is read of others, and of the
    series' own longer timeframes, they never do.

    Args:
        view: What is added.
        symbol: Whose.
        timeframe: Of all candles.
        stored: Every revision by symbol, oldest candle first, the symbol's own among them; a symbol to include that is
            absent has no values.
        start_ms: Candles that open earlier warm the others up; their own inputs may be of a later moment.
        most_replays: How many candles of a source may be computed again for each that it has. Beyond, what had changed
            by today is NaN: it is not told rather than told as it is today.
        given_up: Told of each source of which that happens, and at how many candles from `start_ms` on.
    """
    mine = stored[symbol]
    opened = mine.latest().block.open_time_ms
    parts = [np.empty((len(opened), 0))]
    if view.extensions is not None:
        parts.append(own_as_decided(view.extensions, timeframe, mine, start_ms))
    if view.expansion is not None:
        closes, decided_ms = opened + timeframe.milliseconds, mine.first_known(opened)
        limit = _Limit(start_ms, most_replays, given_up)
        parts.append(_expanded(view.expansion, symbol, timeframe, stored, closes, decided_ms, limit))
    return as_inputs(np.concatenate(parts, axis=1))


def own_as_decided(extensions: ExtensionSet, timeframe: Timeframe, rows: Rows, start_ms: int) -> Floats:
    """
    Return features of one's own at each candle [n, k], of what had arrived by then in the then newest revision.

    A feature reaches back over a bounded number of candles, so each is computed once, whatever came when.
    """
    newest, engine = rows.latest().block, ExtensionEngine(extensions, timeframe)
    arrived_ms = np.maximum(rows.available_at_ms, start_ms)
    if len(rows) == len(newest) and (arrived_ms[1:] >= arrived_ms[:-1]).all():
        return engine.advance(newest)
    order, cuts = in_order(rows, arrived_ms)
    times, values = newest.open_time_ms, np.empty_like(newest.values)
    places, arrived = np.searchsorted(times, rows.block.open_time_ms[order]), rows.block.values[order]
    out, known = np.empty((len(newest), len(extensions.features))), np.zeros(len(newest), np.bool_)
    for begin, end in pairwise(cuts):
        now = places[begin:end]
        # Of two revisions at one moment the later one is assigned last.
        values[now] = arrived[begin:end]
        fresh = np.unique(now[~known[now]])
        for run in _runs(fresh, known):
            before = _newest_before(known, int(run[0]), max(extensions.memory, 1))
            engine.resume(CandleBlock(times[before], values[before]))
            out[run] = engine.advance(CandleBlock(times[run], values[run]))
        known[fresh] = True
    return out


def _runs(fresh: Times, known: Marks) -> list[Times]:
    """Return places in parts, between whose members nothing is known."""
    if len(fresh) == 0:
        return []
    before = np.cumsum(known[fresh[0] : fresh[-1] + 1])[fresh - fresh[0]]
    return np.split(fresh, 1 + np.flatnonzero(np.diff(before)))


def _newest_before(known: Marks, place: int, count: int) -> Times:
    """Return the newest known places before one, so many, or all there are."""
    reach = count
    while True:
        begin = max(place - reach, 0)
        found = begin + np.flatnonzero(known[begin:place])
        if len(found) >= count or begin == 0:
            return found[-count:]
        reach *= 2


def _expanded(
    expansion: Expansion,
    symbol: str,
    timeframe: Timeframe,
    stored: Mapping[str, Rows],
    closes: Times,
    decided_ms: Times,
    limit: _Limit,
) -> Floats:
    """Return the columns of others at decisions [n, columns]."""
    expansion.check(timeframe)
    histories = {one: _History.of(stored[one]) for one in {symbol, *expansion.symbols} & stored.keys()}
    parts = []
    for origin in expansion.origins:
        longer = origin.timeframe or timeframe
        history = histories.get(origin.symbol or symbol)
        if history is None:
            parts.append(np.full((len(closes), len(expansion.names)), np.nan))
            continue
        asked = _Asked(closes, decided_ms, longer, expansion.max_age)
        source = Source(expansion.names, timeframe, longer)
        columns, untold = _told(source, history, asked, len(expansion.names), limit)
        if (count := int((untold & (closes > limit.start_ms)).sum())) > 0:
            limit.given_up(f"{origin.symbol or symbol} {longer}", count)
        parts.append(columns)
    return np.concatenate(parts, axis=1)


@dataclass(frozen=True, slots=True)
class _Limit:
    """From when on decisions count, how often candles may be computed again, and who is told of what goes beyond."""

    start_ms: int
    most_replays: int
    given_up: GivenUp


@dataclass(frozen=True, slots=True)
class _Asked:
    """Decisions, by the closes of their candles, and what of a source counts for them."""

    closes: Times
    decided_ms: Times
    timeframe: Timeframe
    max_age: int

    def of(self, rows: SourceRows, which: Times | slice = slice(None)) -> Floats:
        """Return what a source says at some of the decisions."""
        return as_of(rows, self.closes[which], self.decided_ms[which], self.timeframe, self.max_age)


@dataclass(frozen=True, slots=True)
class _History:
    """Candles as a worker took them in, each in its first revision, and what corrected them when, in order."""

    first: Known
    places: Times
    values: Floats
    moments: Times

    @classmethod
    def of(cls, rows: Rows) -> _History:
        is_first = np.diff(rows.block.open_time_ms, prepend=-1) > 0
        if is_first.all():
            first = Known(rows.block, rows.available_at_ms).taken_in()
            return cls(first, np.empty(0, np.int64), np.empty((0, 5)), np.empty(0, np.int64))
        firsts = rows.take(is_first)
        first = Known(firsts.block, firsts.available_at_ms).taken_in()
        # What came after a later candle is nothing to others, however often it was corrected.
        later = rows.take(~is_first & np.isin(rows.block.open_time_ms, first.block.open_time_ms))
        later = later.take(np.lexsort((later.revision, later.block.open_time_ms, later.available_at_ms)))
        places = np.searchsorted(first.block.open_time_ms, later.block.open_time_ms)
        return cls(first, places, later.block.values, later.available_at_ms)

    def newest(self) -> CandleBlock:
        """Return the candles as they are now."""
        values = self.first.block.values.copy()
        values[self.places] = self.values
        return CandleBlock(self.first.block.open_time_ms, values)

    def settled_ms(self) -> Times:
        """Return for each candle since when it, and all before it, are known as they are now."""
        last = self.first.known_ms.copy()
        np.maximum.at(last, self.places, self.moments)
        return np.maximum.accumulate(last)


def _told(source: Source, history: _History, asked: _Asked, width: int, limit: _Limit) -> tuple[Floats, Marks]:
    """Return what a source said at decisions, in the then newest revisions, and where that is not told."""
    first = history.first
    untold = np.zeros(len(asked.closes), np.bool_)
    if len(history.places) == 0:
        return asked.of(source.advance(first.block, first.known_ms)), untold
    out, left = np.full((len(asked.closes), width), np.nan), np.ones(len(asked.closes), np.bool_)
    # Which of the corrections before the first decision came first makes no difference to it.
    moments = np.maximum(history.moments, limit.start_ms)
    cuts = np.unique(moments)
    era = np.searchsorted(cuts, np.maximum(asked.decided_ms, limit.start_ms), side="right")
    order = np.argsort(era, kind="stable")
    past, corrected = _Past(source, first, width), 0
    for which in np.split(order, 1 + np.flatnonzero(np.diff(era[order]))):
        if len(which) == 0 or past.computed > limit.most_replays * len(first.block):
            break
        number = int(era[which[0]])
        arrived = len(moments) if number == len(cuts) else int(np.searchsorted(moments, cuts[number], side="left"))
        past.correct(history.places[corrected:arrived], history.values[corrected:arrived])
        corrected = arrived
        out[which] = asked.of(past.until(int(asked.decided_ms[which].max())), which)
        left[which] = False
    if left.any():
        untold = left & ~_settled(history, asked)
        rows = past.afresh().advance(history.newest(), first.known_ms)
        out[left] = asked.of(rows, np.flatnonzero(left))
        out[untold] = np.nan
    return out, untold


def _settled(history: _History, asked: _Asked) -> Marks:
    """Mark the decisions by which all that a source had said was known as it is now."""
    newest = np.searchsorted(np.maximum.accumulate(history.first.known_ms), asked.decided_ms, side="right") - 1
    settled: Marks = (newest < 0) | (history.settled_ms()[np.maximum(newest, 0)] <= asked.decided_ms)
    return settled


@dataclass(slots=True)
class _Past:
    """One source as far as its candles have come, in the revisions that have, and its state at some of them."""

    source: Source
    first: Known
    width: int
    computed: int = 0
    _values: Floats = field(init=False)
    _known_ms: Times = field(init=False)
    _rows: SourceRows = field(init=False)
    # How many candles, and how many rows of the source, each state has behind it.
    _states: list[tuple[int, int, Source]] = field(init=False)
    _end: int = field(init=False, default=0)
    _count: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        most = len(self.first.block)
        self._values = self.first.block.values.copy()
        self._known_ms = np.maximum.accumulate(self.first.known_ms)
        self._rows = SourceRows(np.empty(most, np.int64), np.empty(most, np.int64), np.empty((most, self.width)))
        self._states = [(0, 0, self.source.copy())]

    def afresh(self) -> Source:
        """Return the source as it was before its first candle."""
        return self._states[0][2].copy()

    def correct(self, places: Times, values: Floats) -> None:
        """Take in corrections, in the order in which they came."""
        if len(places) == 0:
            return
        self._values[places] = values
        begin = int(places.min())
        if begin < self._end:
            while self._states[-1][0] > begin:
                self._states.pop()
            self._end, self._count, source = self._states[-1]
            self.source = source.copy()

    def until(self, moment_ms: int) -> SourceRows:
        """Return the rows of all candles that were known at a moment, and maybe of later ones; they are not copied."""
        end = max(int(np.searchsorted(self._known_ms, moment_ms, side="right")), self._end)
        self.computed += end - self._end
        while self._end < end:
            self._advance(min(self._end + BETWEEN_STATES, end))
        kept = slice(self._count)
        return SourceRows(self._rows.close_ms[kept], self._rows.known_ms[kept], self._rows.values[kept])

    def _advance(self, end: int) -> None:
        part = slice(self._end, end)
        block = CandleBlock(self.first.block.open_time_ms[part], self._values[part])
        more = self.source.advance(block, self._known_ms[part])
        kept = slice(self._count, self._count + len(more.close_ms))
        self._rows.close_ms[kept], self._rows.known_ms[kept] = more.close_ms, more.known_ms
        self._rows.values[kept] = more.values
        self._end, self._count = end, kept.stop
        if end - self._states[-1][0] >= BETWEEN_STATES:
            self._states.append((end, self._count, self.source.copy()))
