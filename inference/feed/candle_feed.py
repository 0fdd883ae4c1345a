"""The live feed: candles of all symbols by WebSocket, REST where that is silent, late or broken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Collection
from dataclasses import replace
from typing import Any

from feature_store.candle import Candle, CandleBlock, Timeframe
from feature_store.errors import QuantumError
from inference.exchange.candle_connections import kind_of_connection
from inference.exchange.capabilities import CAPABILITIES, Capabilities
from inference.exchange.venue_clock import VenueClock
from inference.feed.batches import BatchAssembler, CandleBatch
from inference.feed.candle_stream import CandleStream
from inference.feed.history import closed_candles
from inference.feed.lateness import Lateness
from inference.feed.pool import Openings, spread
from inference.feed.recent import REMEMBERED
from inference.telemetry.logs import logger

_log = logger("feed")

_REST_AT_ONCE = 8
# How often a venue is asked again that says a candle has not closed yet.
_SHORTEST_WAIT, _LONGEST_WAIT = 0.1, 1.0
_QUEUE = 64


class CandleFeed:
    """
    Follows closed candles of one timeframe, in order, each once per symbol.

    ccxt drops the venue's "closed" flag, so a streamed candle counts as closed once a later one of its symbol has
    arrived over the same unbroken connection; what was being streamed when a connection broke is read by REST.
    Symbols are spread over as many connections as the venue's `capabilities` ask for; one for which there is no room
    in any, or whose connection is silent, is read by REST.
    `on_close` is told each close time as it passes, before its candles are here. It has passed by the word of the
    venue, which `ask_time` asks for its time: our reckoning of it may run ahead. `on_price` is told each last price
    that a stream brings, `on_running` of the candle that it is part of. `closed_seconds` says for how long the venue
    wants to hear nothing, connections included.
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
        on_price: Callable[[str, float], None] = lambda *_: None,
        on_running: Callable[[str, Candle], None] = lambda *_: None,
        capabilities: Capabilities = CAPABILITIES["binanceusdm"],
        closed_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._exchange = exchange
        self._closed_seconds = closed_seconds
        self._on_close = on_close
        self._assembler = assembler
        self._timeframe = timeframe
        self._clock = clock
        self._monotonic = monotonic
        self._ask_time = ask_time
        self._news = asyncio.Event()
        self._began = monotonic()
        self._rest = asyncio.Semaphore(_REST_AT_ONCE)
        self._closed = asyncio.Event()
        self._closed_ms = 0
        self.batches: asyncio.Queue[CandleBatch] = asyncio.Queue(_QUEUE)
        self.lateness = Lateness(timeframe)
        self.candles_by_rest = 0
        self._on_running = on_running
        self.streams = self._make_streams(capabilities, on_price)
        self._stream_of = {symbol: stream for stream in self.streams for symbol in stream.symbols}

    @property
    def reconnects(self) -> int:
        """How often a connection was opened anew."""
        return sum(stream.reconnects for stream in self.streams)

    @property
    def candles_streamed(self) -> int:
        """How many closed candles came by a stream."""
        return sum(stream.candles for stream in self.streams)

    @property
    def silence_seconds(self) -> float:
        """How long ago the most silent connection last brought anything, on our clock."""
        silences = [stream.silence_seconds for stream in self.streams]
        return max(silences, default=self._monotonic() - self._began)

    async def run(self) -> None:
        """Follow the market until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            for stream in self.streams:
                tasks.create_task(stream.run(), name=f"feed-stream-{stream.number}")
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
            await self.batches.put(self._dated(self._assembler.take(close)))
            self._closed_ms = close
            self._closed.set()
            # After an outage the latest close is the one to decide on; its blocks bring what was missed.
            close = max(close + length, self._timeframe.floor_ms(self._now_ms()))

    async def _gather(self, close: int) -> None:
        """Wait for the stream, then ask by REST for what it did not bring, within a short deadline."""
        candle_seconds = self._clock.wall_seconds(self._timeframe.milliseconds)
        await self._wait_for_stream(lambda: self._awaited(close), min(1.5, 0.15 * candle_seconds))
        missing = self._assembler.missing(close)
        if not missing:
            self._note_fetched(missing, close)
            return
        deadline = min(5.0, 0.25 * candle_seconds)
        reads = [asyncio.create_task(self._read(symbol, close)) for symbol in missing]
        _, pending = await asyncio.wait(reads, timeout=deadline)
        for read in pending:
            read.cancel()
        await asyncio.gather(*reads, return_exceptions=True)
        self._note_fetched(missing, close)

    def _awaited(self, close: int) -> list[str]:
        """Return the symbols whose candle may still come by a stream that lives."""
        silent = {stream.number for stream in self.streams if stream.is_silent}
        streams = {symbol: self._stream_of.get(symbol) for symbol in self._assembler.missing(close)}
        return [symbol for symbol, one in streams.items() if one is not None and one.number not in silent]

    async def _wait_for_stream(self, waiting: Callable[[], Collection[str]], patience: float) -> None:
        until = self._monotonic() + patience
        while waiting() and (left := until - self._monotonic()) > 0:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                # Not `wait_for`, which loses a cancellation that comes with the news: the feed would not stop.
                async with asyncio.timeout(left):
                    await self._news.wait()

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
            await self._wait_for_stream(lambda: self._assembler.missing(close), pause)

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
        for open_time_ms in block.open_time_ms.tolist():
            self._came(symbol, open_time_ms)
        self._assembler.fill(symbol, block.candles())

    def _came(self, symbol: str, open_time_ms: int) -> None:
        self.lateness.came(symbol, open_time_ms, now_ms=self._now_ms())

    def _dated(self, batch: CandleBatch) -> CandleBatch:
        """Return a batch that says of each of its newest candles how late it came."""
        now_ms = self._now_ms()
        late = {
            symbol: self.lateness.handed_out(symbol, block.open_time_ms.tolist(), now_ms=now_ms)
            for symbol, block in batch.blocks.items()
        }
        return replace(batch, late_ms=late)

    def _note_fetched(self, missing: Collection[str], close: int) -> None:
        for stream in self.streams:
            stream.note_fetched(missing, close)

    def _make_streams(
        self, capabilities: Capabilities, on_price: Callable[[str, float], None]
    ) -> tuple[CandleStream, ...]:
        connection = kind_of_connection(self._exchange, capabilities)
        if connection is None:
            return ()
        pool = spread(
            self._assembler.symbols,
            per_connection=capabilities.streams_per_connection,
            connections=capabilities.connections,
        )
        if pool.left_over:
            _log.warning("candles_not_streamed", symbols=len(pool.left_over), consequence="they are read by REST")
        openings = Openings(capabilities.connections_per_minute)
        return tuple(
            CandleStream(
                self._exchange,
                group,
                number=number,
                connection=connection(self._exchange, group, self._timeframe.value, number=number),
                openings=openings,
                may_be_quiet=capabilities.quiet_candles,
                closed_seconds=self._closed_seconds,
                assembler=self._assembler,
                timeframe=self._timeframe,
                clock=self._clock,
                monotonic=self._monotonic,
                on_news=self._news.set,
                on_candle=self._came,
                on_price=on_price,
                on_running=self._on_running,
            )
            for number, group in enumerate(pool.groups)
        )

    def _now_ms(self) -> int:
        return self._clock.now_ms(self._monotonic())

    async def _sleep_until(self, venue_ms: int) -> None:
        while (left := venue_ms - self._now_ms()) > 0:  # noqa: ASYNC110 - the venue's clock may change its pace meanwhile
            await asyncio.sleep(min(self._clock.wall_seconds(left) + 0.001, 1.0))
