"""The live feed: candles of all symbols over one WebSocket, REST where it is silent, late or broken."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import Awaitable, Callable
from typing import Any

from feature_store.candle import Candle, CandleBlock, Timeframe, validate
from feature_store.errors import BadInputError, QuantumError
from inference.exchange.venue_clock import VenueClock
from inference.exchange.watching import Interrupted, Nothing, Watcher, close_clients, is_private, pause_seconds
from inference.feed.batches import BatchAssembler, CandleBatch
from inference.feed.history import closed_candles
from inference.feed.recent import REMEMBERED
from inference.telemetry.logs import logger

_log = logger("feed")

# ccxt hands out one symbol per wake-up and coalesces bursts, so its caches are read, and no more often than this.
_PAUSE_SECONDS = 0.02
_REST_AT_ONCE = 8
# How often a venue is asked again that says a candle has not closed yet.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 1.0
_QUEUE = 64
# A stream that brings nothing for so long is dead, whatever it answers; a busy market is never silent for a second.
_SHORTEST_SILENCE, _LONGEST_SILENCE = 2.0, 6.0
_LONGEST_PAUSE = 5.0
# A series that REST had to bring so often in a row, while others came by the stream, is dead in it.
_REST_IN_A_ROW = 2


class CandleFeed:
    """
    Follows closed candles of one timeframe, in order, each once per symbol.

    ccxt drops the venue's "closed" flag, so a streamed candle counts as closed once a later one of its symbol has
    arrived over the same unbroken connection; what was being streamed when a connection broke is read by REST.
    `on_close` is told each close time as it passes, before its candles are here. It has passed by the word of the
    venue, which `ask_time` asks for its time: our reckoning of it may run ahead.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        assembler: BatchAssembler,
        timeframe: Timeframe,
        clock: VenueClock,
        monotonic: Callable[[], float],
        ask_time: Callable[[], Awaitable[int]],
        on_close: Callable[[int], None] = lambda _: None,
    ) -> None:
        self._exchange = exchange
        self._on_close = on_close
        self._assembler = assembler
        self._timeframe = timeframe
        self._clock = clock
        self._monotonic = monotonic
        self._ask_time = ask_time
        self._news = asyncio.Event()
        self._untrusted: dict[str, int] = {}
        self._newest: dict[str, int] = {}
        self._connections: list[Any] = []
        self._failures = 0
        self._fetched: dict[str, int] = {}
        self._dead: str | None = None
        self._last_data = monotonic()
        self._rest = asyncio.Semaphore(_REST_AT_ONCE)
        self._closed = asyncio.Event()
        self._closed_ms = 0
        self.batches: asyncio.Queue[CandleBatch] = asyncio.Queue(_QUEUE)
        self.reconnects = 0
        self.candles_streamed = 0
        self.candles_by_rest = 0

    @property
    def silence_seconds(self) -> float:
        """How long ago the stream last brought anything, on our clock."""
        return self._monotonic() - self._last_data

    async def run(self) -> None:
        """Follow the market until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            if self._exchange.has.get("watchOHLCVForSymbols"):
                tasks.create_task(self._stream(), name="feed-stream")
            tasks.create_task(self._close_candles(), name="feed-close")
            tasks.create_task(self._look_again(), name="feed-look-again")

    def changes_left(self) -> frozenset[str]:
        """Return, once it has ended, the symbols of which candles have changed without anybody having been told."""
        left = set(self._assembler.changed)
        while not self.batches.empty():
            left.update(self.batches.get_nowait().changed)
        return frozenset(left)

    async def _close_candles(self) -> None:
        length = self._timeframe.milliseconds
        close = self._timeframe.floor_ms(self._now_ms()) + length
        oldest = min(self._assembler.last_open_ms(symbol) for symbol in self._assembler.symbols)
        if oldest + 2 * length < close:
            close -= length
        while True:
            await self._sleep_until(close)
            await self._wait_for_venue(close)
            self._on_close(close)
            await self._gather(close)
            await self.batches.put(self._assembler.take(close))
            self._closed_ms = close
            self._closed.set()
            # After an outage the latest close is the one to decide on; its blocks bring what was missed.
            close = max(close + length, self._timeframe.floor_ms(self._now_ms()))

    async def _gather(self, close: int) -> None:
        """Wait for the stream, then ask by REST for what it did not bring, within a short deadline."""
        candle_seconds = self._clock.wall_seconds(self._timeframe.milliseconds)
        patience = 0.0 if self._is_silent() else min(1.5, 0.15 * candle_seconds)
        await self._wait_for_stream(close, patience)
        missing = self._assembler.missing(close)
        if not missing:
            self._fetched.clear()
            return
        deadline = min(5.0, 0.25 * candle_seconds)
        reads = [asyncio.create_task(self._read(symbol, close)) for symbol in missing]
        _, pending = await asyncio.wait(reads, timeout=deadline)
        for read in pending:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        self._note_fetched(missing, close)

    async def _wait_for_stream(self, close: int, patience: float) -> None:
        until = self._monotonic() + patience
        while self._assembler.missing(close) and (left := until - self._monotonic()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def _wait_for_venue(self, close: int) -> None:
        """Wait until the venue says that the candle has closed, unless the stream brings it before."""
        while self._assembler.missing(close):
            try:
                async with asyncio.timeout(_LONGEST_WAIT):
                    left_ms = close - await self._ask_time()
            except (QuantumError, TimeoutError) as error:
                _log.warning("venue_time_not_read", error=str(error)[:200])
                return
            if left_ms <= 0:
                return
            pause = min(max(self._clock.wall_seconds(left_ms), _SHORTEST_WAIT), _LONGEST_WAIT)
            await self._wait_for_stream(close, pause)

    async def _read(self, symbol: str, close: int) -> None:
        async with self._rest:
            try:
                block = await closed_candles(
                    self._exchange,
                    symbol,
                    self._timeframe,
                    after_ms=self._assembler.last_open_ms(symbol),
                    closed_by_ms=close,
                )
            except QuantumError as error:
                _log.warning("candles_not_read", symbol=symbol, error=str(error)[:200])
                return
        self._fill(symbol, block)

    async def _look_again(self) -> None:
        """Ask once more for candles that were handed out, a few series after each close: some come late, or change."""
        while True:
            await self._closed.wait()
            self._closed.clear()
            for symbol in self._assembler.second_looks(self._closed_ms):
                await self._look_at(symbol)

    async def _look_at(self, symbol: str) -> None:
        # The newest one may be a moment old, and the venue's history behind its own stream.
        until = self._assembler.last_open_ms(symbol)
        after = until - REMEMBERED * self._timeframe.milliseconds
        async with self._rest:
            try:
                block = await closed_candles(
                    self._exchange, symbol, self._timeframe, after_ms=after, closed_by_ms=until
                )
            except QuantumError as error:
                _log.warning("candles_not_checked", symbol=symbol, error=str(error)[:200])
                return
        self._assembler.recheck(symbol, block)

    def _fill(self, symbol: str, block: CandleBlock) -> None:
        self.candles_by_rest += len(block)
        self._assembler.fill(symbol, block.candles())

    async def _stream(self) -> None:
        wanted = [[symbol, self._timeframe.value] for symbol in self._assembler.symbols]
        watcher = Watcher(lambda: self._exchange.watch_ohlcv_for_symbols(wanted))
        try:
            while True:
                news = await watcher.next(within=self._silence_limit())
                if isinstance(news, Nothing):
                    await watcher.drop()
                    await self._reconnect("silent")
                elif isinstance(news, Interrupted):
                    await self._reconnect(news.reason)
                else:
                    self._read_caches()
                    if self._dead is not None:
                        await self._reconnect(f"it brings nothing of {self._dead}")
                await asyncio.sleep(_PAUSE_SECONDS)
        finally:
            await watcher.drop()

    def _read_caches(self) -> None:
        self._notice_new_connection()
        self._last_data = self._monotonic()
        self._failures = 0
        for symbol in self._assembler.symbols:
            cache = self._exchange.ohlcvs.get(symbol, {}).get(self._timeframe.value)
            if cache is not None:
                self._read_cache(symbol, cache.hashmap)
                # Says that it was read: a cache remembers the time of each candle that nobody has asked for.
                cache.getLimit(symbol, None)
        self._news.set()

    def _read_cache(self, symbol: str, rows: dict[int, list[float]]) -> None:
        newest = max(rows, default=0)
        self._newest[symbol] = newest
        # Candles up to the one that a break interrupted may lack their end.
        after = max(self._assembler.last_open_ms(symbol), self._untrusted.get(symbol, 0))
        for open_time_ms in sorted(time for time in rows if after < time < newest):
            candle = Candle(open_time_ms, *rows[open_time_ms][1:6])
            if self._is_possible(candle):
                self.candles_streamed += 1
                self._assembler.offer(symbol, candle)

    def _is_possible(self, candle: Candle) -> bool:
        """Whether a market could have made it; one that it could not is left to REST."""
        try:
            validate(CandleBlock.from_candles([candle]), self._timeframe)
        except BadInputError:
            return False
        return True

    def _notice_new_connection(self) -> None:
        now = [client for url, client in self._exchange.clients.items() if not is_private(url)]
        if self._connections and any(client not in self._connections for client in now):
            self._distrust()
        self._connections = now

    def _distrust(self) -> None:
        self._untrusted.update(self._newest)
        self.reconnects += 1

    async def _reconnect(self, reason: str) -> None:
        _log.warning("candle_stream_interrupted", reason=reason)
        self._distrust()
        self._connections = []
        self._fetched.clear()
        self._dead = None
        await close_clients(self._exchange, which=lambda url: not is_private(url))
        await asyncio.sleep(pause_seconds(self._failures, random.random(), shortest=0.1, longest=_LONGEST_PAUSE))
        self._failures += 1

    def _note_fetched(self, missing: tuple[str, ...], close: int) -> None:
        """Remember which series REST had to bring because the stream showed nothing of them, though of others."""
        still = set(self._assembler.missing(close))
        began = close - self._timeframe.milliseconds
        unseen = [one for one in missing if one not in still and self._newest.get(one, 0) < began]
        self._fetched = {symbol: self._fetched.get(symbol, 0) + 1 for symbol in unseen}
        if len(unseen) < len(self._assembler.symbols):
            self._dead = next((one for one, times in self._fetched.items() if times >= _REST_IN_A_ROW), None)

    def _silence_limit(self) -> float:
        candle_seconds = self._clock.wall_seconds(self._timeframe.milliseconds)
        return min(_LONGEST_SILENCE, max(_SHORTEST_SILENCE, 0.5 * candle_seconds))

    def _is_silent(self) -> bool:
        return self.silence_seconds > self._silence_limit()

    def _now_ms(self) -> int:
        return self._clock.now_ms(self._monotonic())

    async def _sleep_until(self, venue_ms: int) -> None:
        while (left := venue_ms - self._now_ms()) > 0:  # noqa: ASYNC110 - the venue's clock may change its pace meanwhile
            await asyncio.sleep(min(self._clock.wall_seconds(left) + 0.001, 1.0))
