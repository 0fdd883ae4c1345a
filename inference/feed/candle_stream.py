"""One connection's candles: read from ccxt's caches, watched for silence, opened anew where it fell silent."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Collection
from typing import Any

from feature_store.candle import Candle, CandleBlock, Timeframe, validate
from feature_store.errors import BadInputError
from inference.exchange.candle_connections import Connection
from inference.exchange.venue_clock import VenueClock
from inference.exchange.watching import Interrupted, Nothing, Watcher, close_clients, pause_seconds
from inference.feed.batches import BatchAssembler
from inference.feed.pool import Openings
from inference.telemetry.logs import logger

_log = logger("feed")

DEBOUNCE_SECONDS = 0.02
"""ccxt hands out one symbol per wake-up and coalesces bursts, so its caches are read, and no more often than this."""

# A stream that brings nothing for so long is dead, whatever it answers; a busy market is never silent for a second.
_SHORTEST_SILENCE, _LONGEST_SILENCE = 2.0, 6.0
# Where a venue tells a candle only when somebody trades, a market may be as quiet as a dead stream: one that was opened
# anew and brought nothing but where it starts from is given twice as long, up to this much.
_QUIET_SILENCE = 30.0
_LONGEST_PAUSE = 5.0
# A series that REST had to bring so often in a row, while others came by the stream, is dead in it.
_REST_IN_A_ROW = 2


class CandleStream:
    """
    Follows some symbols over a connection of its own, and offers their closed candles to the assembler.

    `on_news` is told that something came, `on_candle` of each closed candle, `on_price` of each change of the last
    price, and `on_running` of the candle that it is part of. What dies here, dies here alone: other connections go on.
    """

    def __init__(
        self,
        exchange: Any,
        symbols: tuple[str, ...],
        *,
        number: int,
        connection: Connection,
        assembler: BatchAssembler,
        timeframe: Timeframe,
        clock: VenueClock,
        monotonic: Callable[[], float],
        on_news: Callable[[], None] = lambda: None,
        on_candle: Callable[[str, int], None] = lambda *_: None,
        on_price: Callable[[str, float], None] = lambda *_: None,
        on_running: Callable[[str, Candle], None] = lambda *_: None,
        openings: Openings | None = None,
        may_be_quiet: bool = False,
        closed_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.symbols = symbols
        self.number = number
        self.reconnects = 0
        self.candles = 0
        self._exchange = exchange
        self._assembler = assembler
        self._timeframe = timeframe
        self._clock = clock
        self._monotonic = monotonic
        self._on_news = on_news
        self._on_candle = on_candle
        self._on_price = on_price
        self._on_running = on_running
        self._untrusted: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._prices: dict[str, tuple[int, float, float]] = {}
        self._connection = connection
        self._openings = openings or Openings()
        self._may_be_quiet = may_be_quiet
        self._closed_seconds = closed_seconds
        self._client: Any = None
        self._opened = monotonic()
        self._quiet_openings = 0
        self._failures = 0
        self._fetched: dict[str, int] = {}
        self._dead: str | None = None
        self._last_data = monotonic()

    @property
    def silence_seconds(self) -> float:
        """How long ago it last brought anything, on our clock."""
        return self._monotonic() - self._last_data

    @property
    def is_silent(self) -> bool:
        """Whether it has brought nothing for longer than a living one would."""
        return self.silence_seconds > self.silence_limit()

    def silence_limit(self) -> float:
        """Return after how many seconds of silence, on our clock, it is held to be dead."""
        usual = self._usual_silence()
        return max(usual, min(_QUIET_SILENCE, usual * 2.0 ** min(self._quiet_openings, 10)))

    async def run(self) -> None:
        """Follow until cancelled."""
        watcher = Watcher(self._connection.watch)
        try:
            await asyncio.sleep(self._openings.wait_s(self._monotonic()))
            self._opened = self._last_data = self._monotonic()
            while True:
                news = await watcher.next(within=self.silence_limit())
                if isinstance(news, Nothing):
                    await watcher.drop()
                    self._note_silence()
                    await self._reconnect("silent")
                elif isinstance(news, Interrupted):
                    await self._reconnect(news.reason)
                else:
                    self._read_caches()
                    if self._dead is not None:
                        await self._reconnect(f"it brings nothing of {self._dead}")
                await asyncio.sleep(DEBOUNCE_SECONDS)
        finally:
            await watcher.drop()

    def note_fetched(self, missing: Collection[str], close: int) -> None:
        """Remember which series REST had to bring because the stream showed nothing of them, though of others."""
        still = set(self._assembler.missing(close))
        began = close - self._timeframe.milliseconds
        mine = [one for one in self.symbols if one in missing]
        unseen = [one for one in mine if one not in still and self._newest.get(one, 0) < began]
        self._fetched = {symbol: self._fetched.get(symbol, 0) + 1 for symbol in unseen}
        if len(unseen) < len(self.symbols):
            self._dead = next((one for one, times in self._fetched.items() if times >= _REST_IN_A_ROW), None)

    def _read_caches(self) -> None:
        self._notice_new_connection()
        self._last_data = self._monotonic()
        self._failures = 0
        if self._last_data - self._opened > self._usual_silence():
            self._quiet_openings = 0
        for symbol in self.symbols:
            cache = self._exchange.ohlcvs.get(symbol, {}).get(self._timeframe.value)
            if cache is not None:
                self._read_cache(symbol, cache.hashmap)
                # Says that it was read: a cache remembers the time of each candle that nobody has asked for.
                cache.getLimit(symbol, None)
        self._on_news()

    def _read_cache(self, symbol: str, rows: dict[int, list[float]]) -> None:
        # Of an empty snapshot ccxt makes a row without a time.
        times = [time for time in rows if time is not None]
        newest = max(times, default=0)
        self._newest[symbol] = newest
        self._read_price(symbol, rows.get(newest))
        # Candles up to the one that a break interrupted may lack their end.
        after = max(self._assembler.last_open_ms(symbol), self._untrusted.get(symbol, 0))
        for open_time_ms in sorted(time for time in times if after < time < newest):
            candle = Candle(open_time_ms, *rows[open_time_ms][1:6])
            if self._is_possible(candle):
                self.candles += 1
                self._on_candle(symbol, open_time_ms)
                self._assembler.offer(symbol, candle)

    def _read_price(self, symbol: str, row: list[float] | None) -> None:
        if row is None or row[4] is None or row[5] is None:
            return
        # With each trade the volume grows, at whatever price.
        told, known = (int(row[0]), float(row[4]), float(row[5])), self._prices.get(symbol)
        self._prices[symbol] = told
        # What a stream of a quiet market begins with may have been traded at long ago.
        is_news = known is not None or not self._may_be_quiet
        if told != known and is_news:
            self._on_price(symbol, told[1])
            self._on_running(symbol, Candle(told[0], *row[1:6]))

    def _is_possible(self, candle: Candle) -> bool:
        """Whether a market could have made it; one that it could not is left to REST."""
        try:
            validate(CandleBlock.from_candles([candle]), self._timeframe)
        except BadInputError:
            return False
        return True

    def _notice_new_connection(self) -> None:
        clients = self._exchange.clients.items()
        now = next((client for url, client in clients if self._connection.is_mine(url)), None)
        if now is None:
            return
        if self._client not in (None, now):
            self._distrust()
        self._client = now

    def _note_silence(self) -> None:
        if self._may_be_quiet and self._last_data - self._opened <= self._usual_silence():
            self._quiet_openings += 1

    def _usual_silence(self) -> float:
        candle_seconds = self._clock.wall_seconds(self._timeframe.milliseconds)
        return min(_LONGEST_SILENCE, max(_SHORTEST_SILENCE, 0.5 * candle_seconds))

    def _distrust(self) -> None:
        self._untrusted.update(self._newest)
        if self._may_be_quiet:
            self._prices.clear()
        self.reconnects += 1

    async def _reconnect(self, reason: str) -> None:
        _log.warning("candle_stream_interrupted", connection=self.number, symbols=len(self.symbols), reason=reason)
        self._distrust()
        self._client = None
        self._fetched.clear()
        self._dead = None
        # Else what still waits on it fails with it, and looks like the end of the next one.
        await self._connection.drop()
        await close_clients(self._exchange, which=self._connection.is_mine)
        pause = pause_seconds(self._failures, random.random(), shortest=0.1, longest=_LONGEST_PAUSE)
        # A venue that wants to hear nothing counts connections too, and a ban grows with each.
        await asyncio.sleep(max(pause, self._closed_seconds()))
        await asyncio.sleep(self._openings.wait_s(self._monotonic()))
        self._opened = self._monotonic()
        self._failures += 1
