"""Closed candles of many series put in order, each once, and handed out by close time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from feature_store.candle import Candle, CandleBlock, Timeframe


@dataclass(frozen=True, slots=True)
class CandleBatch:
    """
    What became known when candles closed at `close_time_ms`.

    A block holds the symbol's candles that were not handed out before, oldest first: one as a rule, more after a gap.
    `late` names the symbols whose newest candle did not arrive in time; it comes with a later batch.
    """

    close_time_ms: int
    blocks: Mapping[str, CandleBlock]
    late: tuple[str, ...]


class BatchAssembler:
    """Takes closed candles as they come, repeated and out of order; pure, it knows no clock and no venue."""

    def __init__(self, *, last_open_ms: Mapping[str, int], timeframe: Timeframe) -> None:
        self._timeframe = timeframe
        self._last = dict(last_open_ms)
        self._ready: dict[str, list[Candle]] = {symbol: [] for symbol in last_open_ms}
        self._waiting: dict[str, dict[int, Candle]] = {symbol: {} for symbol in last_open_ms}

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

    def missing(self, close_time_ms: int) -> tuple[str, ...]:
        """Return the symbols whose candle closing at that time is not yet in order."""
        wanted = close_time_ms - self._timeframe.milliseconds
        return tuple(symbol for symbol, last in self._last.items() if last < wanted)

    def take(self, close_time_ms: int) -> CandleBatch:
        """Hand out everything that closed by then."""
        limit = close_time_ms - self._timeframe.milliseconds
        blocks: dict[str, CandleBlock] = {}
        for symbol, candles in self._ready.items():
            due = [candle for candle in candles if candle.open_time_ms <= limit]
            if due:
                blocks[symbol] = CandleBlock.from_candles(due)
                self._ready[symbol] = candles[len(due) :]
        return CandleBatch(close_time_ms=close_time_ms, blocks=blocks, late=self.missing(close_time_ms))

    def _join(self, symbol: str) -> None:
        waiting = self._waiting[symbol]
        while waiting:
            following = self._last[symbol] + self._timeframe.milliseconds
            if following not in waiting:
                return
            self._accept(symbol, waiting.pop(following))

    def _accept(self, symbol: str, candle: Candle) -> None:
        self._ready[symbol].append(candle)
        self._last[symbol] = candle.open_time_ms
