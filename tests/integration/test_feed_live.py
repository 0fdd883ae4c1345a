"""The live feed at the real sandbox: every closed candle once, in order, whatever happens to the stream."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager

import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.clock import monotonic
from feature_store.venue.factory import create_exchange
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from inference.feed.batches import BatchAssembler
from inference.feed.candle_feed import CandleFeed
from inference.feed.history import closed_candles
from tests.sandbox_support import running_sandbox

M5 = Timeframe.M5
STEP = M5.milliseconds


@asynccontextmanager
async def following(sandbox):
    """Yield a running feed over all symbols, with the client and clock it uses."""
    exchange = create_exchange("sandbox", url=sandbox.url, api_key="sandbox-key", api_secret="sandbox-secret")
    clock = VenueClock(accelerated=True)
    gateway = CcxtGateway(exchange, clock=clock, monotonic=monotonic, leverage=3)
    task = None
    try:
        await gateway.connect()
        symbols = gateway.tradable_symbols()
        start = M5.last_closed_open_ms(clock.now_ms(monotonic()))
        assembler = BatchAssembler(last_open_ms=dict.fromkeys(symbols, start), timeframe=M5)
        feed = CandleFeed(
            exchange,
            assembler=assembler,
            timeframe=M5,
            clock=clock,
            monotonic=monotonic,
            ask_time=gateway.sync_clock,
        )
        task = asyncio.create_task(feed.run())
        yield feed, exchange, start
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await gateway.close()


async def collect(feed, *, candles: int):
    """Return the blocks of each symbol until every one has so many candles, and the batches they came in."""
    blocks: dict[str, list[CandleBlock]] = {symbol: [] for symbol in feed._assembler.symbols}
    batches = []
    async with asyncio.timeout(200):
        while any(sum(map(len, found)) < candles for found in blocks.values()):
            batch = await feed.batches.get()
            batches.append(batch)
            for symbol, block in batch.blocks.items():
                blocks[symbol].append(block)
    return {symbol: CandleBlock.empty().concat(*found) for symbol, found in blocks.items()}, batches


async def check_against_history(exchange, taken, start) -> None:
    """Check that what the feed gave is, to the bit, what the venue's history says, from the start without a gap."""
    for symbol, block in taken.items():
        expected = [start + (number + 1) * STEP for number in range(len(block))]
        assert block.open_time_ms.tolist() == expected, symbol
        closed_by = expected[-1] + STEP
        history = await closed_candles(exchange, symbol, M5, after_ms=start, closed_by_ms=closed_by)
        assert block.equals(history), symbol


async def test_every_candle_of_twenty_symbols_once_and_in_order(tmp_path):
    """At sixty times the wall's speed nothing is lost, repeated or changed; each batch says what it lacks."""
    async with running_sandbox(symbols=20, speed=60, seed=5, state=tmp_path / "s") as sandbox:
        async with following(sandbox) as (feed, exchange, start):
            taken, batches = await collect(feed, candles=3)
            await check_against_history(exchange, taken, start)

        closes = [batch.close_time_ms for batch in batches]
        assert closes == sorted(set(closes))
        for batch in batches:
            newest = {symbol: int(block.open_time_ms[-1]) for symbol, block in batch.blocks.items()}
            whole = {symbol for symbol, open_ms in newest.items() if open_ms == batch.close_time_ms - STEP}
            assert set(batch.late) == set(taken) - whole
        assert feed.candles_streamed > 0


@pytest.mark.parametrize(
    "trouble",
    [
        pytest.param([{"op": "kill_ws", "hard": True}], id="sockets-cut"),
        pytest.param([{"op": "freeze_ws", "market": True, "user": False}], id="stream-silent-for-ever"),
        pytest.param([{"op": "push", "frame": "{not json"}], id="malformed-frame"),
        pytest.param([{"op": "push", "frame": '{"e":"kline","E":1,"s":"BTCUSDT"}'}], id="kline-without-k"),
        pytest.param([{"op": "push", "frame": "[]"}], id="empty-list-frame"),
    ],
)
@pytest.mark.filterwarnings("ignore")
async def test_trouble_on_the_stream_loses_nothing(tmp_path, trouble):
    """Cut off, silent or fed rubbish, the feed falls back to REST and gives every candle as the venue has it."""
    async with running_sandbox(symbols=4, speed=120, seed=6, state=tmp_path / "s") as sandbox:
        async with following(sandbox) as (feed, exchange, start):
            before, _ = await collect(feed, candles=1)
            for operation in trouble:
                answer = await sandbox.ctl(**operation)
                assert answer.get("ok"), answer
            after, batches = await collect(feed, candles=3)
            taken = {symbol: before[symbol].concat(after[symbol]) for symbol in before}
            await check_against_history(exchange, taken, start)

        assert batches
