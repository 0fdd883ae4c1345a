"""The one way to candles, prices and books: streams first, REST where they are silent, caches that know their age."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from decimal import Decimal
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from feature_store.candle import CLOSE, Candle, CandleBlock, Timeframe
from inference.domain.market import Quote
from inference.exchange.capabilities import CAPABILITIES, Capabilities
from inference.exchange.venue_clock import VenueClock
from inference.feed.batches import BatchAssembler, CandleBatch
from inference.feed.candle_feed import CandleFeed
from inference.feed.fresh import FreshValues
from inference.feed.history import CandleReader, closed_candles
from inference.feed.order_book import OrderBook, order_book
from inference.feed.plausible import is_price
from inference.feed.recent import RecentCandles

QUOTE_BOUND_MS = 2_000
"""How old, in the venue's time, a price may be that is answered from memory."""
BOOK_BOUND_MS = 500
"""How old an order book may be."""
# What somebody traded at says for longer what an order met, above all where the venue's clock runs ahead of the wall's:
# a stream that brings a price each second brings one each minute there.
_TRADED_BOUND_MS, _TRADED_BOUND_WALL_S = 60_000, 2.0
_EVERY = "*"

T = TypeVar("T")


class Prices(Protocol):
    """What the venue is asked for prices, and for its time."""

    async def quotes(self) -> dict[str, Quote]: ...  # noqa: D102

    async def quote(self, symbol: str) -> Quote: ...  # noqa: D102

    async def sync_clock(self) -> int: ...  # noqa: D102


class MarketData:
    """
    Whoever reads the market reads it here, and does not learn which way it came.

    From memory it answers with nothing that is too old: quotes and last prices within `QUOTE_BOUND_MS` of the venue's
    time, books within `BOOK_BOUND_MS`, candles only where the newest one is the last that has closed. Anything else is
    asked for anew, and where that fails there is no answer, but an error.

    `on_running` hears of each candle that a stream tells while it runs, `on_closed` of each that has closed, once,
    and not of those that no market has made.
    """

    def __init__(
        self,
        exchange: Any,
        prices: Prices,
        *,
        timeframe: Timeframe,
        clock: VenueClock,
        monotonic: Callable[[], float],
        capabilities: Capabilities = CAPABILITIES["binanceusdm"],
        closed_seconds: Callable[[], float] = lambda: 0.0,
        on_running: Callable[[str, Candle], None] = lambda *_: None,
        on_closed: Callable[[str, Candle], None] = lambda *_: None,
    ) -> None:
        self._exchange = exchange
        self._on_running = on_running
        self._on_closed = on_closed
        self._closed_seconds = closed_seconds
        self._prices = prices
        self._timeframe = timeframe
        self._clock = clock
        self._monotonic = monotonic
        self._capabilities = capabilities
        self._feed: CandleFeed | None = None
        self._recent = RecentCandles(timeframe)
        self._quotes: FreshValues[Quote] = FreshValues(bound_ms=QUOTE_BOUND_MS)
        self._every: FreshValues[dict[str, Quote]] = FreshValues(bound_ms=QUOTE_BOUND_MS)
        self._traded: FreshValues[Decimal] = FreshValues(bound_ms=QUOTE_BOUND_MS)
        self._last: dict[str, tuple[int, Decimal]] = {}
        self._books: FreshValues[tuple[int, OrderBook]] = FreshValues(bound_ms=BOOK_BOUND_MS)
        self.asked = self.remembered = 0

    @property
    def past(self) -> CandleReader:
        """Where candles of the past are read, by pages."""
        reader: CandleReader = self._exchange
        return reader

    def follow(
        self,
        last_open_ms: Mapping[str, int],
        *,
        recent: RecentCandles | None = None,
        restored: Collection[str] = (),
        on_close: Callable[[int], None] = lambda _: None,
    ) -> None:
        """
        Follow the candles of some symbols, each from the one that opened last; `run` does it.

        Args:
            last_open_ms: Symbols, with the open time after which each goes on.
            recent: Their newest candles, where they are known.
            restored: Symbols whose past nobody has looked at since they were stored.
            on_close: Is told each close time as it passes, before its candles are here.
        """
        self._recent = RecentCandles(self._timeframe) if recent is None else recent
        self._feed = CandleFeed(
            self._exchange,
            assembler=BatchAssembler(
                last_open_ms=last_open_ms,
                timeframe=self._timeframe,
                recent=self._recent,
                restored=restored,
                on_closed=self._on_closed,
            ),
            timeframe=self._timeframe,
            clock=self._clock,
            monotonic=self._monotonic,
            ask_time=self._prices.sync_clock,
            on_close=on_close,
            on_price=self._note_price,
            on_running=self._hear_running,
            capabilities=self._capabilities,
            closed_seconds=self._closed_seconds,
        )

    async def run(self) -> None:
        """Follow the market until cancelled."""
        await self._followed.run()

    @property
    def is_following(self) -> bool:
        """Whether `follow` was called."""
        return self._feed is not None

    @property
    def batches(self) -> asyncio.Queue[CandleBatch]:
        """What closed, in order, each candle once."""
        return self._followed.batches

    def changes_left(self) -> frozenset[str]:
        """Return, once it has ended, the symbols of which candles have changed without anybody having been told."""
        return frozenset() if self._feed is None else self._feed.changes_left()

    async def quotes(self) -> dict[str, Quote]:
        """
        Return the best bid and ask of every symbol that has both.

        Raises:
            VenueError: What is remembered is too old, and the venue could not be asked.
        """
        known = self._counted(self._every.get(_EVERY, now_ms=self._now_ms()))
        if known is not None:
            return dict(known)
        asked_ms = self._now_ms()
        self.asked += 1
        quotes = await self._prices.quotes()
        self._every.put({_EVERY: quotes}, at_ms=asked_ms)
        self._quotes.put(quotes, at_ms=asked_ms)
        return dict(quotes)

    async def quote(self, symbol: str) -> Quote:
        """
        Return the best bid and ask of one symbol.

        Raises:
            VenueError: What is remembered is too old, and the venue could not be asked.
        """
        known = self._counted(self._quotes.get(symbol, now_ms=self._now_ms()))
        if known is not None:
            return known
        asked_ms = self._now_ms()
        self.asked += 1
        quote = await self._prices.quote(symbol)
        self._quotes.put({symbol: quote}, at_ms=asked_ms)
        return quote

    async def price(self, symbol: str) -> Decimal:
        """
        Return what a symbol last traded at, as its stream tells, or halfway between bid and ask where that is silent.

        Raises:
            VenueError: Nothing that is young enough is known, and the venue could not be asked.
        """
        traded = self._counted(self._traded.get(symbol, now_ms=self._now_ms()))
        return (await self.quote(symbol)).mid if traded is None else traded

    def traded(self, symbol: str) -> Decimal | None:
        """Return what a symbol traded at last, as its stream told within a minute of the venue's time, else None."""
        known = self._last.get(symbol)
        if known is None:
            return None
        at_ms, price = known
        bound_ms = max(_TRADED_BOUND_MS, _TRADED_BOUND_WALL_S * 1000 * self._clock.rate)
        return price if abs(self._now_ms() - at_ms) <= bound_ms else None

    async def book(self, symbol: str, levels: int = 20) -> OrderBook:
        """
        Return the first so many levels of each side of an order book.

        Raises:
            VenueError: What is remembered is too old, and the venue could not be asked.
        """
        known = self._books.get(symbol, now_ms=self._now_ms())
        if known is not None and known[0] >= levels:
            self.remembered += 1
            return known[1].first(levels)
        asked_ms = self._now_ms()
        self.asked += 1
        book = await order_book(self._exchange, symbol, levels)
        self._books.put({symbol: (levels, book)}, at_ms=asked_ms)
        return book

    async def candles(self, symbol: str, count: int) -> CandleBlock:
        """
        Return the newest so many candles that have closed, oldest first; fewer where the venue has no more.

        Raises:
            VenueError: What is remembered is too old or too little, and the venue could not be asked.
            BadInputError: It answered with candles that no market could have made.
        """
        last = self._timeframe.last_closed_open_ms(self._now_ms())
        known = self._counted(self._recent.newest(symbol, count, last_open_ms=last))
        if known is not None:
            return known
        self.asked += 1
        # By the venue's word: our reckoning may run ahead, and the candle that runs would be taken for a closed one.
        now_ms = await self._prices.sync_clock()
        after = self._timeframe.last_closed_open_ms(now_ms) - count * self._timeframe.milliseconds
        return await closed_candles(self.past, symbol, self._timeframe, after_ms=after, closed_by_ms=now_ms)

    def closes(self) -> Mapping[str, tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]]:
        """
        Return open times and closes of the newest candles of each symbol that is followed, oldest first.

        Those that no market has made are missing.
        """
        if self._feed is None:
            return {}
        blocks = {symbol: self._recent.plausible(symbol) for symbol in self._recent.symbols()}
        return {symbol: (block.open_time_ms, block.values[:, CLOSE]) for symbol, block in blocks.items()}

    def figures(self) -> Mapping[str, float]:
        """Return what the status shows."""
        told: dict[str, float] = {"asked": self.asked, "remembered": self.remembered}
        feed = self._feed
        if feed is None:
            return told
        return told | {
            "streamed": feed.candles_streamed,
            "by_rest": feed.candles_by_rest,
            "reconnects": feed.reconnects,
            "connections": len(feed.streams),
            "connections_silent": sum(stream.is_silent for stream in feed.streams),
            "silence_seconds": round(feed.silence_seconds, 2),
            **feed.lateness.figures(),
        }

    @property
    def _followed(self) -> CandleFeed:
        if self._feed is None:
            raise RuntimeError("Nothing is followed yet: call `follow` first")
        return self._feed

    def _hear_running(self, symbol: str, candle: Candle) -> None:
        before = self._recent.last_close(symbol)
        # As of closed ones: nothing is bought, stopped or judged by a price that no market has made.
        if all(is_price(one, before=before) for one in (candle.high, candle.low, candle.close)):
            self._on_running(symbol, candle)

    def _note_price(self, symbol: str, price: float) -> None:
        if not is_price(price, before=self._recent.last_close(symbol)):
            return
        traded, now_ms = Decimal(str(price)), self._now_ms()
        self._last[symbol] = now_ms, traded
        self._traded.put({symbol: traded}, at_ms=now_ms)

    def _counted(self, known: T | None) -> T | None:
        self.remembered += known is not None
        return known

    def _now_ms(self) -> int:
        return self._clock.now_ms(self._monotonic())
