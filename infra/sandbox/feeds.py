"""Market data events, made from the ticks as they are taken."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from infra.sandbox.engine.book import LEVELS
from infra.sandbox.market.series import INTERVALS, TICK_MS, AnyInts, candles_between, next_open, open_time
from infra.sandbox.protocol import market_data, public_trades, shapes
from infra.sandbox.protocol.market_data import ticker
from infra.sandbox.streams import Hub
from infra.sandbox.venue import Venue

# Price to quantity of one side of a book.
Levels = dict[str, str]


@dataclass(slots=True)
class RunningCandles:
    """The candle in progress of every symbol for one interval; rows: open, high, low, close, volume, trades."""

    interval: str
    open_ms: int
    close_ms: int
    prices: AnyInts
    volume: AnyInts
    trades: AnyInts
    quote: Any


@dataclass(slots=True)
class Feeds:
    """
    Turn ticks into events for whoever has subscribed.

    Candles are followed tick by tick, so that each subscribed candle closes exactly once and in order, however many
    ticks a wake-up brings. Everything else is sent once per wake-up at most.
    """

    venue: Venue
    hub: Hub
    running: dict[str, RunningCandles] = field(default_factory=dict)
    _units: Any = None
    # The book each depth stream knows, with the number of its tick.
    _depth_sent: dict[str, tuple[int, Levels, Levels]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._units = np.array(
            [10.0 ** -(i.price_decimals + i.quantity_decimals) for i in self.venue.market.instruments]
        )
        self.venue.listeners.append(self.on_tick)

    def forget(self) -> None:
        """Know nothing of what was sent: candles and books are begun anew."""
        self.running.clear()
        self._depth_sent.clear()

    def watch(self) -> None:
        """Start following the intervals that somebody subscribed since the last call; forget the others."""
        wanted = {interval for _, interval in self._kline_streams()}
        for interval in wanted - self.running.keys():
            self.running[interval] = self._start(interval)
        for interval in self.running.keys() - wanted:
            del self.running[interval]
        streams = dict(self._depth_streams())
        for stream in self._depth_sent.keys() - streams.keys():
            del self._depth_sent[stream]
        for stream in streams.keys() - self._depth_sent.keys():
            self._depth_sent[stream] = (self.venue.ticked_ms // TICK_MS, *self._book(streams[stream], LEVELS))

    def on_tick(self, tick_ms: int, price: AnyInts, volume: AnyInts) -> None:
        """Take one tick of every symbol."""
        for candles in self.running.values():
            if tick_ms >= candles.close_ms:
                self._print(candles, tick_ms - TICK_MS + 1, candles.close_ms)
                self._emit_klines(candles, closed=True)
                self._reset(candles, tick_ms)
            self._print(candles, max(tick_ms - TICK_MS + 1, candles.open_ms), tick_ms + 1)
            self._add(candles, price, volume)
        if any("@aggTrade" in one or "@trade" in one for one in self.hub.by_stream):
            self._emit_trades(tick_ms, price, volume)
        self._emit_depth_changes(tick_ms)

    def on_wake(self, now_ms: int, *, slow: bool) -> None:
        """Send what is not tied to single ticks; `slow` marks the wake-ups at which statistics are due."""
        streams = [one for one in self.hub.by_stream if "@kline_" not in one]
        if slow:
            for candles in self.running.values():
                self._emit_klines(candles, closed=False)
        for stream in streams:
            self._emit(stream, now_ms, slow=slow or stream in self.hub.fresh)
        if not self.hub.frozen_market:
            self.hub.fresh.clear()

    # -- candles --------------------------------------------------------------------------------------------------

    def _kline_streams(self) -> Iterator[tuple[str, str]]:
        for stream in self.hub.by_stream:
            symbol, _, interval = stream.partition("@kline_")
            if interval in INTERVALS and symbol.upper() in self.venue.index:
                yield symbol.upper(), interval

    def _start(self, interval: str) -> RunningCandles:
        venue = self.venue
        now = venue.ticked_ms
        opened = open_time(interval, now)
        count = len(venue.market.instruments)
        candles = RunningCandles(
            interval, opened, next_open(interval, opened), np.zeros((4, count), np.int64),
            np.zeros(count, np.int64), np.zeros(count, np.int64), np.zeros(count),
        )  # fmt: skip
        for place in range(count):
            found = candles_between(venue.market, place, interval, opened, now + 1, now_ms=now)
            if len(found):
                candles.prices[:, place] = (found.open[-1], found.high[-1], found.low[-1], found.close[-1])
                candles.volume[place] = found.volume[-1]
                candles.trades[place] = found.trades[-1]
                candles.quote[place] = found.quote[-1]
        return candles

    @staticmethod
    def _reset(candles: RunningCandles, tick_ms: int) -> None:
        candles.open_ms = open_time(candles.interval, tick_ms)
        candles.close_ms = next_open(candles.interval, candles.open_ms)
        candles.prices[:] = 0
        candles.volume[:] = 0
        candles.trades[:] = 0
        candles.quote[:] = 0

    def _add(self, candles: RunningCandles, price: AnyInts, volume: AnyInts) -> None:
        there = price > 0
        opened, high, low, close = candles.prices
        began = there & (opened == 0)
        opened[began] = price[began]
        low[began] = price[began]
        np.maximum(high, price, out=high)
        low[there] = np.minimum(low, price)[there]
        close[there] = price[there]
        candles.volume += volume
        candles.trades += there
        candles.quote += price * volume.astype(np.float64) * self._units

    def _print(self, candles: RunningCandles, start_ms: int, end_ms: int) -> None:
        """Take the recorded trades of this tick that were made in [start_ms, end_ms)."""
        for place, prints in self.venue.prints.items():
            made = prints.between(start_ms, end_ms)
            if not len(made):
                continue
            opened, high, low, close = candles.prices
            if not opened[place]:
                opened[place] = low[place] = made.price[0]
            high[place] = max(high[place], made.price.max())
            low[place] = min(low[place], made.price.min())
            close[place] = made.price[-1]
            candles.volume[place] += made.quantity.sum()
            candles.trades[place] += len(made)
            candles.quote[place] += float((made.price * made.quantity.astype(np.float64)).sum()) * self._units[place]

    def _emit_klines(self, candles: RunningCandles, *, closed: bool) -> None:
        suffix = f"@kline_{candles.interval}"
        event_ms = candles.close_ms if closed else self.venue.ticked_ms
        for stream in [one for one in self.hub.by_stream if one.endswith(suffix)]:
            symbol = stream[: -len(suffix)].upper()
            place = self.venue.index.get(symbol)
            # A candle in which nothing traded does not exist.
            if place is None or not candles.prices[0, place]:
                continue
            self.hub.publish(stream, self._kline(candles, symbol, place, event_ms=event_ms, closed=closed))

    def _kline(
        self, candles: RunningCandles, symbol: str, place: int, *, event_ms: int, closed: bool
    ) -> dict[str, Any]:
        instrument = self.venue.market.instruments[place]
        opened, high, low, close = (shapes.text(instrument.price(int(one))) for one in candles.prices[:, place])
        volume, quote = instrument.quantity(int(candles.volume[place])), float(candles.quote[place])
        number = candles.open_ms // TICK_MS
        return {
            "e": "kline",
            "E": event_ms,
            "s": symbol,
            "k": {
                "t": candles.open_ms,
                "T": candles.close_ms - 1,
                "s": symbol,
                "i": candles.interval,
                "f": number,
                "L": number + int(candles.trades[place]) - 1,
                "o": opened,
                "c": close,
                "h": high,
                "l": low,
                "v": shapes.text(volume),
                "n": int(candles.trades[place]),
                "x": closed,
                "q": f"{quote:.4f}",
                "V": shapes.text(volume / 2),
                "Q": f"{quote / 2:.4f}",
                "B": "0",
            },
        }

    # -- everything else ------------------------------------------------------------------------------------------

    def _emit_trades(self, tick_ms: int, price: AnyInts, volume: AnyInts) -> None:
        for stream in list(self.hub.by_stream):
            symbol, _, kind = stream.partition("@")
            place = self.venue.index.get(symbol.upper())
            if kind not in {"aggTrade", "trade"} or place is None:
                continue
            for told in public_trades.told(self.venue, place):
                event: dict[str, Any] = {"e": kind, "E": tick_ms, "s": symbol.upper()}
                number = told.number
                event |= {"a": number, "f": number, "l": number} if kind == "aggTrade" else {"t": number, "X": "MARKET"}
                self.hub.publish(
                    stream, event | {"p": told.price, "q": told.quantity, "T": told.time_ms, "m": told.sold}
                )
            # Where trades were recorded, nothing else is told as one.
            if not price[place] or self.venue.market.tape(place) is not None:
                continue
            instrument = self.venue.market.instruments[place]
            number = tick_ms // TICK_MS
            event = {"e": kind, "E": tick_ms, "s": symbol.upper()}
            event |= {"a": number, "f": number, "l": number} if kind == "aggTrade" else {"t": number, "X": "MARKET"}
            event |= {
                "p": shapes.text(instrument.price(int(price[place]))),
                "q": shapes.text(instrument.quantity(int(volume[place]))),
                "T": tick_ms,
                "m": False,
            }
            self.hub.publish(stream, event)

    def _emit(self, stream: str, now_ms: int, *, slow: bool) -> None:
        name, _, kind = stream.partition("@")
        symbol = name.upper()
        if symbol in self.venue.index:
            if not self.venue.last[self.venue.index[symbol]]:
                return
            levels = kind.split("@")[0].removeprefix("depth")
            if kind.startswith("depth") and levels.isdigit():
                self._emit_partial_depth(stream, symbol, int(levels), now_ms)
            elif kind == "bookTicker":
                self.hub.publish(stream, _book_ticker(self.venue, symbol, now_ms))
            elif slow and kind in {"ticker", "miniTicker"}:
                self.hub.publish(stream, _ticker(self.venue, symbol, now_ms, mini=kind == "miniTicker"))
            elif slow and kind in {"markPrice", "markPrice@1s"}:
                self.hub.publish(stream, _mark_price(self.venue, symbol, now_ms))
        elif name.startswith("!"):
            self._emit_all(stream, now_ms, slow=slow)

    def _emit_all(self, stream: str, now_ms: int, *, slow: bool) -> None:
        venue = self.venue
        symbols = [one.symbol for one in venue.market.instruments if venue.last[venue.index[one.symbol]]]
        if stream == "!bookTicker":
            for symbol in symbols:
                self.hub.publish(stream, _book_ticker(venue, symbol, now_ms))
        elif slow and stream in {"!ticker@arr", "!miniTicker@arr"}:
            mini = stream == "!miniTicker@arr"
            self.hub.publish(stream, [_ticker(venue, symbol, now_ms, mini=mini) for symbol in symbols])
        elif slow and stream in {"!markPrice@arr", "!markPrice@arr@1s"}:
            self.hub.publish(stream, [_mark_price(venue, symbol, now_ms) for symbol in symbols])

    def _emit_partial_depth(self, stream: str, symbol: str, levels: int, now_ms: int) -> None:
        update = self.venue.ticked_ms // TICK_MS
        bids, asks = self._book(symbol, levels)
        self._publish_depth(stream, symbol, now_ms, ids=(update, update, update - 1), sides=(bids, asks))

    def _emit_depth_changes(self, tick_ms: int) -> None:
        # One event per tick: whoever takes a snapshot between two events must find every change since in the next.
        update = tick_ms // TICK_MS
        for stream, symbol in self._depth_streams():
            before = self._depth_sent.get(stream)
            new = self._book(symbol, LEVELS)
            self._depth_sent[stream] = (update, *new)
            if before is None or before[1:] == new:
                continue
            changed = tuple(
                {p: q for p, q in side.items() if old.get(p) != q} | dict.fromkeys(old.keys() - side.keys(), "0")
                for side, old in zip(new, before[1:], strict=True)
            )
            ids = (before[0] + 1, update, before[0])
            self._publish_depth(stream, symbol, tick_ms, ids=ids, sides=(changed[0], changed[1]))

    def _depth_streams(self) -> list[tuple[str, str]]:
        found = []
        for stream in self.hub.by_stream:
            name, _, kind = stream.partition("@")
            place = self.venue.index.get(name.upper())
            if kind.split("@")[0] == "depth" and place is not None and self.venue.last[place]:
                found.append((stream, name.upper()))
        return found

    def _book(self, symbol: str, levels: int) -> tuple[Levels, Levels]:
        venue = self.venue
        bids, asks = shapes.book_sides(venue.exchange.book, venue.instrument(symbol), venue.last_price(symbol), levels)
        return _by_price(bids), _by_price(asks)

    def _publish_depth(
        self, stream: str, symbol: str, now_ms: int, *, ids: tuple[int, int, int], sides: tuple[Levels, Levels]
    ) -> None:
        first, last, previous = ids
        self.hub.publish(
            stream,
            {
                "e": "depthUpdate",
                "E": now_ms,
                "T": self.venue.ticked_ms,
                "s": symbol,
                "U": first,
                "u": last,
                "pu": previous,
                "b": [[p, q] for p, q in sides[0].items()],
                "a": [[p, q] for p, q in sides[1].items()],
            },
        )


def _by_price(side: list[list[str]]) -> Levels:
    return {level[0]: level[1] for level in side}


def _book_ticker(venue: Venue, symbol: str, now_ms: int) -> dict[str, Any]:
    row = market_data.book_ticker(venue, symbol, now_ms)
    return {
        "e": "bookTicker",
        "u": row["lastUpdateId"],
        "E": now_ms,
        "T": now_ms,
        "s": symbol,
        "b": row["bidPrice"],
        "B": row["bidQty"],
        "a": row["askPrice"],
        "A": row["askQty"],
    }


def _ticker(venue: Venue, symbol: str, now_ms: int, *, mini: bool) -> dict[str, Any]:
    row = ticker(venue, symbol, now_ms)
    event = {
        "e": "24hrMiniTicker" if mini else "24hrTicker",
        "E": now_ms,
        "s": symbol,
        "c": row["lastPrice"],
        "o": row["openPrice"],
        "h": row["highPrice"],
        "l": row["lowPrice"],
        "v": row["volume"],
        "q": row["quoteVolume"],
    }
    if mini:
        return event
    return event | {
        "p": row["priceChange"],
        "P": row["priceChangePercent"],
        "w": row["weightedAvgPrice"],
        "Q": row["lastQty"],
        "O": row["openTime"],
        "C": row["closeTime"],
        "F": row["firstId"],
        "L": row["lastId"],
        "n": row["count"],
    }


def _mark_price(venue: Venue, symbol: str, now_ms: int) -> dict[str, Any]:
    row = market_data.premium_index(venue, symbol, now_ms)
    return {
        "e": "markPriceUpdate",
        "E": now_ms,
        "s": symbol,
        "p": row["markPrice"],
        "i": row["indexPrice"],
        "P": row["estimatedSettlePrice"],
        "r": row["lastFundingRate"],
        "T": row["nextFundingTime"],
    }
