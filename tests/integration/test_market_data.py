"""The market data facade with unmodified ccxt at the real sandbox: several connections, deaths, fallbacks, caches."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any

import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.clock import monotonic
from feature_store.venue.errors import VenueError
from feature_store.venue.factory import create_exchange
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from inference.exchange.watching import is_private
from inference.feed.batches import CandleBatch
from inference.feed.candle_feed import CandleFeed
from inference.feed.history import closed_candles
from inference.feed.market_data import BOOK_BOUND_MS, QUOTE_BOUND_MS, MarketData
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

M1 = Timeframe.M1
STEP = M1.milliseconds
BTC = "BTC/USDT:USDT"
FEW = replace(CAPABILITIES["binanceusdm"], streams_per_connection=3)


@dataclass
class Desk:
    """One facade and what is below it; `ahead_ms` moves what it holds to be now."""

    market: MarketData
    exchange: Any
    symbols: tuple[str, ...]
    start: int
    clock: VenueClock
    seconds: float = 0.0

    def now(self) -> float:
        """Return our clock, moved ahead by hand."""
        return monotonic() + self.seconds

    @property
    def feed(self) -> CandleFeed:
        """The feed below the facade."""
        feed = self.market._feed
        assert feed is not None
        return feed


@asynccontextmanager
async def desk_at(sandbox, *, capabilities=FEW, follows=True):
    """Yield a facade that follows all symbols."""
    exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
    clock = VenueClock(accelerated=True)
    gateway = CcxtGateway(exchange, clock=clock, monotonic=monotonic, leverage=3)
    task = None
    try:
        await gateway.connect()
        symbols = gateway.tradable_symbols()
        start = M1.last_closed_open_ms(clock.now_ms(monotonic()))
        desk = Desk(None, exchange, symbols, start, clock)  # type: ignore[arg-type]
        desk.market = MarketData(
            exchange, gateway, timeframe=M1, clock=clock, monotonic=desk.now, capabilities=capabilities
        )
        if follows:
            desk.market.follow(dict.fromkeys(symbols, start))
            task = asyncio.create_task(desk.market.run())
        yield desk
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await gateway.close()


async def collect(desk, *, candles: int) -> tuple[dict[str, CandleBlock], list[CandleBatch]]:
    """Return each symbol's candles until every one has so many more, and the batches they came in."""
    blocks: dict[str, list[CandleBlock]] = {symbol: [] for symbol in desk.symbols}
    batches = []
    async with asyncio.timeout(200):
        while any(sum(map(len, found)) < candles for found in blocks.values()):
            batch = await desk.market.batches.get()
            batches.append(batch)
            for symbol, block in batch.blocks.items():
                blocks[symbol].append(block)
    return {symbol: CandleBlock.empty().concat(*found) for symbol, found in blocks.items()}, batches


async def check_against_history(desk, taken) -> None:
    """Check that what came is, to the bit and without a gap, what the venue's history says."""
    for symbol, block in taken.items():
        assert block.open_time_ms.tolist() == [desk.start + (n + 1) * STEP for n in range(len(block))], symbol
        closed_by = desk.start + (len(block) + 1) * STEP
        history = await closed_candles(desk.exchange, symbol, M1, after_ms=desk.start, closed_by_ms=closed_by)
        assert block.equals(history), symbol


def connections(desk) -> list[str]:
    """Return the addresses of the market's connections that are open."""
    return sorted(url for url in desk.exchange.clients if not is_private(url))


async def until(holds, *, seconds=60.0) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(seconds):
        while not holds():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.02)


async def test_more_streams_than_one_connection_carries(tmp_path):
    """
    The venue takes three streams on a connection, and there are eight symbols: three connections carry them all.

    On one connection, as ccxt would have it by itself, the venue refuses the subscription and nothing is streamed.
    """
    async with running_sandbox(symbols=8, speed=60, seed=5, state=tmp_path / "s") as sandbox:
        await sandbox.ctl(op="limits", streams=3)
        async with desk_at(sandbox) as desk:
            await until(lambda: len(connections(desk)) == 3)
            taken, batches = await collect(desk, candles=4)
            await check_against_history(desk, taken)
            figures = desk.market.figures()
            streamed = [stream.candles for stream in desk.feed.streams]
            groups = [stream.symbols for stream in desk.feed.streams]
        async with desk_at(sandbox, capabilities=CAPABILITIES["binanceusdm"]) as alone:
            alone_taken, _ = await collect(alone, candles=2)
            await check_against_history(alone, alone_taken)
            refused = alone.feed.candles_streamed

    assert [len(group) for group in groups] == [2, 3, 3]
    assert sorted(symbol for group in groups for symbol in group) == sorted(taken)
    assert all(count > 0 for count in streamed)
    assert (figures["connections"], refused) == (3, 0)
    for batch in batches:
        assert set(batch.late_ms) == set(batch.blocks)
        assert all(late >= 0 for late in batch.late_ms.values())
    assert figures["late_ms_p50"] <= figures["late_ms_p99"] <= figures["late_ms_worst"] < STEP


@pytest.mark.filterwarnings("ignore")
async def test_one_of_several_connections_dies_without_a_word(tmp_path):
    """Its symbols are read by REST and it alone is opened anew; the other goes on undisturbed; nothing is lost."""
    async with (
        running_sandbox(symbols=6, speed=60, seed=6, state=tmp_path / "s") as sandbox,
        desk_at(sandbox) as desk,
    ):
        before, _ = await collect(desk, candles=1)
        dead, alive = sorted(desk.feed.streams, key=lambda one: BTC not in one.symbols)
        kept = desk.exchange.clients[next(url for url in connections(desk) if url.endswith(f"/{alive.number}"))]
        reconnects = (dead.reconnects, alive.reconnects)
        frozen = (await sandbox.ctl(op="freeze_ws", symbol="BTCUSDT"))["frozen"]
        died = monotonic()
        await until(lambda: dead.reconnects > reconnects[0])
        noticed_s = monotonic() - died
        alive_silence = alive.silence_seconds
        after, _ = await collect(desk, candles=3)
        taken = {symbol: before[symbol].concat(after[symbol]) for symbol in before}
        await check_against_history(desk, taken)
        await until(lambda: not dead.is_silent and dead.silence_seconds < 1.0)
        still = kept in desk.exchange.clients.values()
        figures = desk.market.figures()

    assert frozen == 1
    assert noticed_s <= 10.0
    assert alive_silence < alive.silence_limit()
    assert alive.reconnects == reconnects[1]
    assert still
    assert figures["connections_silent"] == 0


@pytest.mark.filterwarnings("ignore")
async def test_where_no_stream_speaks_candles_come_by_rest_and_streams_come_back(tmp_path):
    """All connections silent: each candle still once and in order, later than by stream; then streams go on."""
    async with (
        running_sandbox(symbols=6, speed=60, seed=7, state=tmp_path / "s") as sandbox,
        desk_at(sandbox) as desk,
    ):
        before, _ = await collect(desk, candles=1)
        by_rest = desk.feed.candles_by_rest
        await sandbox.ctl(op="freeze_ws", market=True, user=False)
        await until(lambda: desk.market.figures()["connections_silent"] == 2)
        during, _ = await collect(desk, candles=3)
        read = desk.feed.candles_by_rest - by_rest
        await sandbox.ctl(op="clear")
        streamed = desk.feed.candles_streamed
        await until(lambda: desk.feed.candles_streamed >= streamed + len(desk.symbols))
        after, _ = await collect(desk, candles=1)
        taken = {one: before[one].concat(during[one], after[one]) for one in before}
        await check_against_history(desk, taken)

    assert read >= 2 * len(taken)


async def test_a_venue_without_streams_is_followed_by_rest(tmp_path):
    """Where its capabilities say so, no connection is opened, and every candle comes."""
    async with (
        running_sandbox(symbols=2, speed=60, seed=8, state=tmp_path / "s") as sandbox,
        desk_at(sandbox, capabilities=replace(FEW, streams=frozenset())) as desk,
    ):
        taken, _ = await collect(desk, candles=2)
        await check_against_history(desk, taken)
        found = (connections(desk), desk.feed.candles_streamed, desk.feed.streams)

    assert found == ([], 0, ())


async def asked(sandbox, path: str) -> int:
    """Return how often one address was asked for."""
    return (await sandbox.ctl(op="log"))["met"].get(f"GET {path}", [0, 0])[0]


async def test_prices_are_answered_from_memory_within_the_bound_and_never_beyond(tmp_path):
    """Quotes, single quotes and books: asked once within their bounds, anew behind them, and an error without."""
    tickers, depth = "/fapi/v1/ticker/bookTicker", "/fapi/v1/depth"
    async with (
        running_sandbox(symbols=3, speed=1, seed=9, state=tmp_path / "s") as sandbox,
        desk_at(sandbox, follows=False) as desk,
    ):
        market = desk.market
        await sandbox.ctl(op="clear")
        every = await market.quotes()
        again = (await market.quotes(), await market.quote(BTC), await market.price(BTC))
        books = [await market.book(BTC, 10), await market.book(BTC, 5)]
        within = (await asked(sandbox, tickers), await asked(sandbox, depth))
        desk.seconds += BOOK_BOUND_MS / 1000
        await market.book(BTC, 5)
        desk.seconds += QUOTE_BOUND_MS / 1000
        await market.quotes()
        behind = (await asked(sandbox, tickers), await asked(sandbox, depth))
        desk.seconds += 60
        await sandbox.ctl(op="fault", path="/fapi/v1/", method="GET", p=1, status=502, body="")
        for question in (market.quotes, lambda: market.quote(BTC), lambda: market.price(BTC)):
            with pytest.raises(VenueError):
                await question()
        with pytest.raises(VenueError):
            await market.book(BTC)

    assert set(every) == set(desk.symbols)
    assert again == (every, every[BTC], every[BTC].mid)
    assert books[0].first(5) == books[1]
    assert [len(book.bids) for book in books] == [10, 5]
    assert books[0].bids[0][0] < books[0].asks[0][0]
    assert (within, behind) == ((1, 1), (2, 2))


async def test_the_last_price_comes_by_the_stream(tmp_path):
    """While its stream speaks, a symbol's price costs no request; it is the close of the candle that runs."""
    async with (
        running_sandbox(symbols=3, speed=1, seed=10, state=tmp_path / "s") as sandbox,
        desk_at(sandbox) as desk,
    ):
        prices = desk.market._traded
        await until(lambda: len(prices) == 3)
        await sandbox.ctl(op="clear")
        # Its symbol trades each second: there is always one that is young enough, or soon will be.
        await until(lambda: prices.get(BTC, now_ms=desk.market._now_ms()) is not None)
        price = await desk.market.price(BTC)
        met = await asked(sandbox, "/fapi/v1/ticker/bookTicker")
        low, high = (float(desk.exchange.ohlcvs[BTC]["1m"][-1][place]) for place in (3, 2))

    assert met == 0
    assert low <= float(price) <= high


async def test_candles_of_the_past_come_from_memory_only_while_the_newest_is_the_last_that_closed(tmp_path):
    """What was followed is answered without a request; a memory that is one candle behind is not answered from."""
    klines = "/fapi/v1/klines"
    async with (
        running_sandbox(symbols=2, speed=20, seed=11, state=tmp_path / "s") as sandbox,
        desk_at(sandbox) as desk,
    ):
        await collect(desk, candles=3)
        async with asyncio.timeout(60):
            # On a slow machine the next candle may close before it is asked.
            while not desk.market.remembered:
                known = await desk.market.candles(BTC, 2)
        remembered = desk.market.remembered
        last = int(known.open_time_ms[-1])
        before = await asked(sandbox, klines)
        # Three candles' time later, by a clock of ours that runs ahead: memory is behind, the venue knows better.
        desk.seconds += 3 * STEP / 1000 / 20
        anew = await desk.market.candles(BTC, 2)
        after = await asked(sandbox, klines)
        closed_by = int(anew.open_time_ms[-1]) + STEP
        history = await closed_candles(desk.exchange, BTC, M1, after_ms=last - 2 * STEP, closed_by_ms=closed_by)
        venue_ms = (await sandbox.get("/sandbox/status"))["now_ms"]

    assert remembered == 1
    assert len(known) == len(anew) == 2
    assert known.equals(history[:2])
    assert anew.equals(history[-2:])
    assert after > before
    assert closed_by <= venue_ms
