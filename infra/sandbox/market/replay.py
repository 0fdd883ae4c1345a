"""
A market that replays recorded candles.

Inside a candle only four prices are known, so the ticks between follow a stated path that knows nothing of our
positions: open, the extreme nearer to the open, the other extreme, close, with straight lines between, and volume
spread evenly. (Nearer-first finds the right order of high and low in about four of five candles.) The path is known
to be smoother than a market: nothing shorter than the recorded timeframe should be traded or measured on it.
Where candles of a minute were recorded too, and agree, they tell the inside, and each of them follows that path.
Where trades were recorded too, and make up the candle, they are its prices and volumes, each at its own time.
Between candles prices jump as recorded. A candle that is missing stays missing: no tick, no price, and after a while
no trading. Where the recording ends, time stands still and the market is halted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal

import numpy as np

from infra.sandbox.engine import path
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.recorded import in_ticks, recorded_instrument
from infra.sandbox.market.minutes import detailed_paths, paths
from infra.sandbox.market.recorded_flow import Flow, begins_of, read_flows
from infra.sandbox.market.recording import Recorded, Recording, RecordingError, read_recording
from infra.sandbox.market.series import (
    DAY_MS,
    MINUTE_MS,
    TICK_MS,
    TICKS_PER_DAY,
    Candles,
    Floats,
    Ints,
    TickBlock,
    empty_candles,
    quote_unit,
)
from infra.sandbox.market.tape import Snapshots, Tape

__all__ = ["RecordingError", "ReplayMarket", "read_flows", "read_recording"]

KEPT_DAYS = 3


class ReplayMarket:
    """Recorded candles behind the same door as the synthetic market."""

    kind = "replay"
    edge = 0.0

    def __init__(
        self,
        recording: Recording,
        *,
        start_ms: int | None,
        history_days: int,
        minutes: Recording | None = None,
        flows: Mapping[str, Flow] | None = None,
    ) -> None:
        """
        Replay a recording; `minutes` tells of the inside of its candles, as far as both were recorded and agree.

        `flows` are trades and books by symbol: trades take the place of the candles that they make up, books are
        shown as they were.

        Raises:
            RecordingError: `start_ms` lies outside the recording.
        """
        self.base_ms = recording.timeframe_ms
        self.dropped = recording.dropped
        self._series = recording.series
        told = [(flows or {}).get(one.symbol, Flow()) for one in recording.series]
        self.instruments = tuple(
            recorded_instrument(one.symbol, one.base, _prices(one, flow))
            for one, flow in zip(recording.series, told, strict=True)
        )
        self._candles = [_candles(one, i) for one, i in zip(recording.series, self.instruments, strict=True)]
        self._tapes: list[Tape | None] = [None] * len(told)
        # Opens of the candles that trades make up, by instrument.
        self._made_up: list[frozenset[int]] = [frozenset()] * len(told)
        for index, flow in enumerate(told):
            if flow.trades is not None:
                self._take_trades(index, flow)
        self._snapshots = [
            None if flow.books is None else _snapshots(flow, one)
            for flow, one in zip(told, self.instruments, strict=True)
        ]
        inside = {one.symbol: one for one in minutes.series} if minutes is not None else {}
        self._minutes = [
            _candles(inside[one.symbol], one) if one.symbol in inside else empty_candles() for one in self.instruments
        ]
        # Candles whose minutes were played, by day and instrument.
        self._detailed: dict[int, dict[int, frozenset[int]]] = {}
        self.first_ms = min(int(one.open_time[0]) for one in recording.series)
        self.end_ms: int | None = max(int(one.open_time[-1]) for one in recording.series) + self.base_ms
        self.start_ms = self._start(start_ms, history_days)
        self._ticks: dict[int, TickBlock] = {}
        # Candles that were bent, by instrument and open: from which tick on, and which way. A day is drawn again.
        self._bent: dict[tuple[int, int], tuple[int, bool]] = {}

    def is_trading(self, index: int, now_ms: int) -> bool:
        """Whether a candle was recorded not long ago: a quiet one does not halt the market, an outage does."""
        times = self._candles[index].open_time
        place = int(np.searchsorted(times, now_ms, side="right")) - 1
        if place < 0:
            return False
        patience = max(3 * self.base_ms, 15 * MINUTE_MS)
        return now_ms < int(times[place]) + self.base_ms + (patience if place < len(times) - 1 else 0)

    def listed_ms(self, index: int) -> int:
        """Return when the first candle of an instrument was recorded."""
        return int(self._candles[index].open_time[0])

    def ticks(self, day: int) -> TickBlock:
        """Ticks of one UTC day, counted from 1970."""
        known = self._ticks.get(day)
        if known is not None:
            return known
        count = len(self.instruments)
        price = np.zeros((TICKS_PER_DAY, count), np.int64)
        volume = np.zeros((TICKS_PER_DAY, count), np.int64)
        for index in range(count):
            self._draw(index, day * DAY_MS, price[:, index], volume[:, index])
        block = TickBlock(day * DAY_MS, price, volume)
        for (index, open_ms), (tick_ms, falls_first) in self._bent.items():
            if open_ms // DAY_MS == day:
                self._bend(block, index, tick_ms, falls_first=falls_first)
        self._ticks[day] = block
        while len(self._ticks) > KEPT_DAYS:
            oldest = next(iter(self._ticks))
            self._detailed.pop(oldest, None)
            self._ticks.pop(oldest)
        return block

    def tape(self, index: int) -> Tape | None:
        """Return the trades of an instrument that make up candles, None where there are none."""
        return self._tapes[index]

    def snapshots(self, index: int) -> Snapshots | None:
        """Return the recorded books of an instrument, None where there are none."""
        return self._snapshots[index]

    def is_traded(self, index: int, open_ms: int) -> bool:
        """Whether recorded trades make up a candle."""
        return open_ms in self._made_up[index]

    def is_detailed(self, index: int, open_ms: int) -> bool:
        """Whether recorded minutes tell the prices inside a candle."""
        day = open_ms // DAY_MS
        self.ticks(day)
        return open_ms in self._detailed.get(day, {}).get(index, ())

    def extremes(self, index: int, open_ms: int) -> tuple[Decimal, Decimal] | None:
        """Return the lowest and the highest price of a candle, None where there is none."""
        candle = self.history(index, open_ms, open_ms + self.base_ms)
        if not len(candle):
            return None
        instrument = self.instruments[index]
        return instrument.price(int(candle.low[0])), instrument.price(int(candle.high[0]))

    def lean(self, index: int, tick_ms: int, *, falls_first: bool) -> bool:
        """
        Let the rest of a candle, from the tick at `tick_ms` on, fall or rise first; say whether it was early enough.

        Open, high, low and close stay what they are, and what was already played stays as it was.
        """
        open_ms = tick_ms - tick_ms % self.base_ms
        if self.is_traded(index, open_ms):
            return False
        if not self._bend(self.ticks(open_ms // DAY_MS), index, tick_ms, falls_first=falls_first):
            return False
        self._bent[index, open_ms] = tick_ms, falls_first
        return True

    def _bend(self, block: TickBlock, index: int, tick_ms: int, *, falls_first: bool) -> bool:
        open_ms = tick_ms - tick_ms % self.base_ms
        candle = self.history(index, open_ms, open_ms + self.base_ms)
        count = self.base_ms // TICK_MS
        first, second, last = path.corners(count)
        played = (tick_ms - open_ms) // TICK_MS - 1
        if not len(candle) or not 0 <= played < first:
            return False
        high, low, close = (int(one[0]) for one in (candle.high, candle.low, candle.close))
        column = block.price[:, index]
        row = open_ms % DAY_MS // TICK_MS
        corners = ((first, low), (second, high)) if falls_first else ((first, high), (second, low))
        start, price = played, int(column[row + played])
        for ends, target in (*corners, (last, close)):
            steps = np.arange(1, ends - start + 1)
            column[row + start + 1 : row + ends + 1] = path.between(price, target, steps, ends - start)
            start, price = ends, target
        return True

    def history(self, index: int, start_ms: int, end_ms: int) -> Candles:
        """Recorded candles of one symbol that open in [start_ms, end_ms)."""
        candles = self._candles[index]
        start, stop = np.searchsorted(candles.open_time, [start_ms, max(start_ms, end_ms)])
        return candles.slice(int(start), int(stop))

    def _draw(self, index: int, midnight_ms: int, price: Ints, volume: Ints) -> None:
        candles = self.history(index, midnight_ms, midnight_ms + DAY_MS)
        if self._made_up[index]:
            # Trades are told one by one, by `tape`.
            candles = candles.take(~np.isin(candles.open_time, list(self._made_up[index])))
        if not len(candles):
            return
        count = self.base_ms // TICK_MS
        ticks = paths(candles, count)
        agrees, inside = detailed_paths(candles, self._minutes[index], self.base_ms)
        if agrees.any():
            ticks[:, agrees] = inside
            within = self._detailed.setdefault(midnight_ms // DAY_MS, {})
            within[index] = frozenset(candles.open_time[agrees].tolist())
        shares = np.repeat((candles.volume // count)[None, :], count, axis=0)
        shares[-1] += candles.volume - shares.sum(axis=0)
        rows = ((candles.open_time - midnight_ms) // TICK_MS)[None, :] + np.arange(count)[:, None]
        price[rows.ravel()] = ticks.ravel()
        volume[rows.ravel()] = shares.ravel()

    def _take_trades(self, index: int, flow: Flow) -> None:
        """Let trades take the place of the candles that they make up: none is missing of those, and none too many."""
        tape, exact = _tape(flow, self.instruments[index])
        candles = self._candles[index]
        rows = np.searchsorted(candles.open_time, tape.time_ms - tape.time_ms % self.base_ms)
        inside = candles.open_time[rows % len(candles)] == tape.time_ms - tape.time_ms % self.base_ms
        tape, exact = tape.take(inside), exact[inside]
        made = tape.grouped(self.instruments[index], self.base_ms)
        places = np.searchsorted(candles.open_time, made.open_time)
        recorded = self._series[index].values[places, 4]
        opens = tape.time_ms - tape.time_ms % self.base_ms
        traded = np.add.reduceat(exact, np.flatnonzero(np.append([True], np.diff(opens) > 0))) if len(exact) else exact
        agrees = np.isclose(traded, recorded, rtol=1e-6, atol=0.0)
        for name in ("open", "high", "low", "close"):
            agrees &= getattr(made, name) == getattr(candles, name)[places]
        agreed = made.open_time[agrees]
        if not len(agreed):
            return
        tape = tape.take(np.isin(opens, agreed))
        self._made_up[index] = frozenset(agreed.tolist())
        self._tapes[index] = tape
        volume, quote, trades = candles.volume.copy(), candles.quote.copy(), candles.trades.copy()
        for column, known in ((volume, made.volume), (quote, made.quote), (trades, made.trades)):
            column[places[agrees]] = known[agrees]
        self._candles[index] = replace(candles, volume=volume, quote=quote, trades=trades)

    def _start(self, wanted_ms: int | None, history_days: int) -> int:
        assert self.end_ms is not None
        if wanted_ms is not None:
            if not self.first_ms < wanted_ms < self.end_ms:
                raise RecordingError(
                    f"--replay-start must lie inside the recording, between {_iso(self.first_ms)} and "
                    f"{_iso(self.end_ms)}, was {_iso(wanted_ms)}."
                )
            return wanted_ms - wanted_ms % self.base_ms
        # Where most instruments have begun, so that a late listing does not hide the others' history.
        first = int(np.median([int(one.open_time[0]) for one in self._series]))
        span = self.end_ms - first
        if span > (history_days + 1) * DAY_MS:
            start = first + history_days * DAY_MS
        elif span > 31 * DAY_MS:
            start = first + 30 * DAY_MS
        else:
            start = first + span * 3 // 4
        return start - start % self.base_ms


def _candles(recorded: Recorded, instrument: Instrument) -> Candles:
    scaled = in_ticks(recorded.values[:, :4], instrument)
    opened, high, low, close = (np.ascontiguousarray(column) for column in scaled.T)
    volume = np.rint(recorded.values[:, 4] * 10.0**instrument.quantity_decimals).astype(np.int64)
    quote = (opened + high + low + close) / 4.0 * volume * quote_unit(instrument)
    trades = np.full(len(volume), 1, np.int64)
    return Candles(recorded.open_time, opened, high, low, close, volume, quote, trades)


def _prices(recorded: Recorded, flow: Flow) -> Floats:
    """Return every price that was recorded of an instrument: its tick has to hold all of them."""
    told = [one["price"] for one in (flow.trades, flow.books) if one is not None]
    return np.concatenate([recorded.values[:, :4].ravel(), *told]) if told else recorded.values[:, :4]


def _tape(flow: Flow, instrument: Instrument) -> tuple[Tape, Floats]:
    """Return trades in ticks and steps, and their quantities as recorded."""
    trades = flow.trades
    assert trades is not None
    # Rounded as a running sum, so that trades of less than a step add up.
    summed = np.rint(np.cumsum(trades["quantity"]) * 10.0**instrument.quantity_decimals).astype(np.int64)
    steps = np.diff(summed, prepend=0)
    price = in_ticks(trades["price"], instrument)
    tape = Tape(trades.time_ms, trades["trade_id"], price, steps, trades["is_buyer_maker"])
    return tape, np.asarray(trades["quantity"], np.float64)


def _snapshots(flow: Flow, instrument: Instrument) -> Snapshots:
    books = flow.books
    assert books is not None
    begins = begins_of(books)
    steps = np.rint(books["quantity"] * 10.0**instrument.quantity_decimals).astype(np.int64)
    price = in_ticks(books["price"], instrument)
    return Snapshots(books.time_ms[begins[:-1]], begins, books["is_bid"], price, steps)


def _iso(time_ms: int) -> str:
    return str(np.datetime64(time_ms, "ms")) + "Z"
