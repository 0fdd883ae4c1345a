"""When symbols trade: a market with halts, maintenance windows and delistings laid over it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from infra.sandbox.engine.model import Interruption
from infra.sandbox.engine.state import EngineState
from infra.sandbox.market.series import (
    TICK_MS,
    TICKS_PER_DAY,
    Candles,
    Market,
    TickBlock,
    from_ticks,
    group,
    join,
)
from infra.sandbox.market.tape import Snapshots, Tape

KEPT_DAYS = 3
# Venue times are below this.
_FOREVER = 1 << 60


class TimetabledMarket:
    """
    Another market's prices, without those of the stretches in which the venue let nothing trade.

    The timetable lies in the engine's state, so that it is saved and restored with the account. Candles are what is
    left of their ticks, and one of which nothing is left does not exist: klines, streams and matching cannot disagree.
    """

    def __init__(self, source: Market, state: EngineState, *, funding_hours: Mapping[str, int] | None = None) -> None:
        self.source = source
        self._state = state
        hours = funding_hours or {}
        self.kind = source.kind
        self.instruments = tuple(
            replace(one, funding_hours=hours[one.symbol]) if one.symbol in hours else one for one in source.instruments
        )
        self.base_ms = source.base_ms
        self.first_ms = source.first_ms
        self.start_ms = source.start_ms
        self.end_ms = source.end_ms
        self.edge = source.edge
        self._masked: dict[tuple[int, object], TickBlock] = {}
        # What is left of recorded trades, by instrument, and by which timetable.
        self._cut: dict[int, tuple[object, Tape]] = {}
        # Tomorrow is made in a thread of its own.
        self._making = threading.Lock()

    def interruptions(self, symbol: str) -> list[tuple[int, int]]:
        """Stretches [from, to) in which a symbol does not trade, its delisting the last of them."""
        found = [
            (one.from_ms, _FOREVER if one.to_ms is None else one.to_ms)
            for one in self._state.interruptions
            if one.symbol in {"", symbol}
        ]
        if symbol in self._state.delistings:
            found.append((self._state.delistings[symbol], _FOREVER))
        return sorted(found)

    def is_trading(self, index: int, now_ms: int) -> bool:
        """Whether the instrument trades at this time."""
        state = self._state
        if state.interruptions or state.delistings:
            symbol = self.instruments[index].symbol
            # A stretch begins with the first tick it takes away, one millisecond after what was known when it began.
            if any(start <= now_ms + 1 < stop for start, stop in self.interruptions(symbol)):
                return False
        return self.source.is_trading(index, now_ms)

    def listed_ms(self, index: int) -> int:
        """Return when the instrument's candles begin."""
        return self.source.listed_ms(index)

    def tape(self, index: int) -> Tape | None:
        """Return recorded trades without those of the stretches in which nothing traded."""
        whole = self.source.tape(index)
        stretches = tuple(self.interruptions(self.instruments[index].symbol)) if whole is not None else ()
        if whole is None or not stretches:
            return whole
        known = self._cut.get(index)
        if known is None or known[0] != stretches:
            kept = np.ones(len(whole), bool)
            for start, stop in stretches:
                kept &= (whole.time_ms < start) | (whole.time_ms >= stop)
            known = self._cut[index] = (stretches, whole.take(kept))
        return known[1]

    def snapshots(self, index: int) -> Snapshots | None:
        """Return recorded books."""
        return self.source.snapshots(index)

    def ticks(self, day: int) -> TickBlock:
        """Ticks of one UTC day, counted from 1970."""
        block = self.source.ticks(day)
        state = self._state
        if not state.interruptions and not state.delistings:
            return block
        key = (day, (tuple(state.interruptions), tuple(state.delistings.items())))
        with self._making:
            known = self._masked.get(key)
            if known is None:
                known = self._masked[key] = self._mask(block)
                while len(self._masked) > KEPT_DAYS:
                    self._masked.pop(next(iter(self._masked)))
        return known

    def redraw(self) -> None:
        """Take what the source says now, where its prices to come have changed."""
        with self._making:
            self._masked.clear()

    def _mask(self, block: TickBlock) -> TickBlock:
        price = block.price.copy()
        volume = block.volume.copy()
        for index, instrument in enumerate(self.instruments):
            for start, stop in self.interruptions(instrument.symbol):
                first, last = (min(TICKS_PER_DAY, max(0, -(-(at - block.start_ms) // TICK_MS))) for at in (start, stop))
                price[first:last, index] = 0
                volume[first:last, index] = 0
        return TickBlock(block.start_ms, price, volume)

    def history(self, index: int, start_ms: int, end_ms: int) -> Candles:
        """Stored candles of one symbol that open in [start_ms, end_ms)."""
        gaps = [
            (max(start, start_ms), min(stop, end_ms))
            for start, stop in self.interruptions(self.instruments[index].symbol)
            if start < end_ms and stop > start_ms
        ]
        candles = self.source.history(index, start_ms, end_ms)
        for start, stop in gaps:
            candles = self._without(candles, index, start, stop)
        return candles

    def _without(self, candles: Candles, index: int, start_ms: int, stop_ms: int) -> Candles:
        base = self.base_ms
        first, last = start_ms - start_ms % base, -(-stop_ms // base) * base
        before, after = candles.open_time.searchsorted([first, last])
        # Only at its ends can a stretch leave something of a candle.
        edges = sorted({opened for opened, cut in ((first, start_ms % base), (last - base, stop_ms % base)) if cut})
        kept = [self._rebuilt(index, opened) for opened in edges]
        return join([candles.slice(0, int(before)), *kept, candles.slice(int(after), len(candles))])

    def _rebuilt(self, index: int, open_ms: int) -> Candles:
        left = from_ticks(self, index, open_ms, open_ms + self.base_ms)
        return group(left, left.open_time - left.open_time % self.base_ms)


def interrupt(state: EngineState, symbol: str, *, from_ms: int, to_ms: int | None = None) -> None:
    """Let a symbol, or each where none is named, not trade from a time on."""
    end_interruption(state, symbol, at_ms=from_ms)
    state.interruptions.append(Interruption(symbol, from_ms, to_ms))


def end_interruption(state: EngineState, symbol: str, *, at_ms: int) -> int:
    """End what interrupts a symbol at a time, and return how many stretches that ended."""
    ended = [one for one in state.interruptions if one.symbol == symbol and (one.to_ms is None or one.to_ms > at_ms)]
    for one in ended:
        state.interruptions.remove(one)
        # What has not begun by then never was.
        if one.from_ms < at_ms:
            state.interruptions.append(replace(one, to_ms=at_ms))
    return len(ended)


def under_maintenance(state: EngineState, now_ms: int) -> bool:
    """Whether the whole venue stands still."""
    return any(
        not one.symbol and one.from_ms <= now_ms + 1 and (one.to_ms is None or now_ms + 1 < one.to_ms)
        for one in state.interruptions
    )
