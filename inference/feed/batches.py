"""Closed candles of many series put in order, each once, and handed out by close time."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from feature_store.candle import Candle, CandleBlock, Timeframe
from inference.feed.recent import REMEMBERED, RecentCandles

LOOK_EVERY = 12
"""Each series is looked at again once in so many candles; one with a hole sooner, ever more rarely."""


@dataclass(frozen=True, slots=True)
class CandleBatch:
    """
    What became known when candles closed at `close_time_ms`.

    A block holds the symbol's candles that were not handed out before, oldest first: one as a rule, more after a gap.
    `late` names the symbols whose newest candle did not arrive in time; it comes with a later batch. `changed` says of
    symbols which candle, older than what was handed out, has come or is another than it was. `late_ms` says of the
    newest candle of a block how long after its close it came, in the venue's milliseconds. `refused` names the candles
    of a block that no market has made, by open time in UTC ms: nobody believes what they say of prices.
    """

    close_time_ms: int
    blocks: Mapping[str, CandleBlock]
    late: tuple[str, ...]
    changed: Mapping[str, str] = field(default_factory=dict)
    late_ms: Mapping[str, int] = field(default_factory=dict)
    refused: Mapping[str, frozenset[int]] = field(default_factory=dict)


class BatchAssembler:
    """
    Takes closed candles as they come, repeated and out of order; pure, it knows no clock and no venue.

    What was handed out lately is remembered, so that a candle that comes late or is corrected does not go unnoticed.
    `on_closed` is told each candle as it comes in order, but for those that no market has made.
    """

    def __init__(
        self,
        *,
        last_open_ms: Mapping[str, int],
        timeframe: Timeframe,
        recent: RecentCandles | None = None,
        restored: Collection[str] = (),
        on_closed: Callable[[str, Candle], None] = lambda *_: None,
    ) -> None:
        self._timeframe = timeframe
        self._on_closed = on_closed
        self.recent = RecentCandles(timeframe) if recent is None else recent
        self._changed: dict[str, str] = {}
        # What a stored state was made from long ago nobody has looked at since.
        self._unlooked = set(restored)
        self._last = dict(last_open_ms)
        self._ready: dict[str, list[Candle]] = {symbol: [] for symbol in last_open_ms}
        self._waiting: dict[str, dict[int, Candle]] = {symbol: {} for symbol in last_open_ms}
        # As they were when they came: one that is corrected before it is handed out is handed out as it was.
        self._refused: dict[str, set[int]] = {}

    @property
    def symbols(self) -> tuple[str, ...]:
        """The symbols that are followed, in the order they were given."""
        return tuple(self._last)

    def last_open_ms(self, symbol: str) -> int:
        """Return the open time of the newest candle that is in order."""
        return self._last[symbol]

    def offer(self, symbol: str, candle: Candle) -> None:
        """Take one closed candle; what is known already changes nothing, what leaves a gap waits."""
        if candle.open_time_ms > self._last[symbol]:
            self._waiting[symbol].setdefault(candle.open_time_ms, candle)
            self._join(symbol)

    def fill(self, symbol: str, candles: Iterable[Candle]) -> None:
        """Take what the venue holds for a gap: times it has no candle for are accepted as missing."""
        waiting = self._waiting[symbol]
        newest = self._last[symbol]
        for candle in candles:
            if candle.open_time_ms > self._last[symbol]:
                waiting[candle.open_time_ms] = candle
                newest = max(newest, candle.open_time_ms)
        for open_time_ms in sorted(time for time in waiting if time <= newest):
            self._accept(symbol, waiting.pop(open_time_ms))
        self._join(symbol)

    def recheck(self, symbol: str, block: CandleBlock) -> None:
        """Hold what the venue says now of candles that were handed out against what was."""
        self._unlooked.discard(symbol)
        changed = self.recent.changes(symbol, block)
        if len(changed):
            self._changed[symbol] = told(changed, self.recent.holes(symbol))
            self.recent.replace(symbol, changed)

    @property
    def changed(self) -> frozenset[str]:
        """The symbols with a change that no batch has told of yet."""
        return frozenset(self._changed)

    def second_looks(self, close_time_ms: int) -> tuple[str, ...]:
        """Return the symbols of which the venue is asked again, beside all else, once candles closed at that time."""
        number = close_time_ms // self._timeframe.milliseconds
        return tuple(
            symbol
            for place, symbol in enumerate(self._last)
            if (number + place) % LOOK_EVERY == 0
            or symbol in self._unlooked
            or any(self._is_due(hole_ms, number) for hole_ms in self.recent.holes(symbol))
        )

    def _is_due(self, hole_ms: int, number: int) -> bool:
        """Whether a hole is 1, 2, 4, 8, … candles old."""
        age = number - 1 - hole_ms // self._timeframe.milliseconds
        return 0 < age < REMEMBERED and age & (age - 1) == 0

    def missing(self, close_time_ms: int) -> tuple[str, ...]:
        """Return the symbols whose candle closing at that time is not yet in order."""
        wanted = close_time_ms - self._timeframe.milliseconds
        return tuple(symbol for symbol, last in self._last.items() if last < wanted)

    def take(self, close_time_ms: int) -> CandleBatch:
        """Hand out everything that closed by then."""
        limit = close_time_ms - self._timeframe.milliseconds
        blocks: dict[str, CandleBlock] = {}
        refused: dict[str, frozenset[int]] = {}
        for symbol, candles in self._ready.items():
            due = [candle for candle in candles if candle.open_time_ms <= limit]
            if due:
                blocks[symbol] = CandleBlock.from_candles(due)
                self._ready[symbol] = candles[len(due) :]
                if found := {one.open_time_ms for one in due} & self._refused.get(symbol, set()):
                    refused[symbol] = frozenset(found)
                    self._refused[symbol] -= found
        changed, self._changed = self._changed, {}
        late = self.missing(close_time_ms)
        return CandleBatch(close_time_ms=close_time_ms, blocks=blocks, late=late, changed=changed, refused=refused)

    def _join(self, symbol: str) -> None:
        waiting = self._waiting[symbol]
        while waiting:
            following = self._last[symbol] + self._timeframe.milliseconds
            if following not in waiting:
                return
            self._accept(symbol, waiting.pop(following))

    def _accept(self, symbol: str, candle: Candle) -> None:
        self._ready[symbol].append(candle)
        self.recent.add(symbol, CandleBlock.from_candles([candle]))
        self._last[symbol] = candle.open_time_ms
        if candle.open_time_ms in self.recent.refused(symbol):
            self._refused.setdefault(symbol, set()).add(candle.open_time_ms)
        else:
            self._on_closed(symbol, candle)


def told(changed: CandleBlock, holes: Collection[int]) -> str:
    """Say which candle came late or was corrected, the first of several."""
    opened = int(changed.open_time_ms[0])
    moment = str(np.datetime64(opened, "ms")).replace("T", " ")[:16]
    more = f" (and {len(changed) - 1} more)" if len(changed) > 1 else ""
    return f"the candle of {moment}{more} {'came late' if opened in holes else 'was corrected'}"
