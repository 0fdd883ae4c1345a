"""Candles of Bitfinex's channels with unmodified ccxt: several connections, deaths, REST where one is silent."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from feature_store.clock import monotonic
from feature_store.venue.factory import create_exchange
from inference.exchange.bitfinex_gateway import BitfinexGateway
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.venue_clock import VenueClock
from inference.feed.market_data import MarketData
from tests.integration.test_market_data import M1, Desk, check_against_history, collect, connections, until
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

BTC = "BTC/USDT:USDT"
# A test opens more connections in a minute than the venue lets anybody.
FEW = replace(CAPABILITIES["bitfinex"], streams_per_connection=3, connections_per_minute=None)


@asynccontextmanager
async def desk_at(sandbox, *, capabilities=FEW):
    """Yield a facade that follows all symbols of the Bitfinex front."""
    exchange = create_exchange("sandbox-bitfinex", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
    clock = VenueClock(accelerated=True)
    gateway = BitfinexGateway(exchange, clock=clock, monotonic=monotonic, leverage=3)
    task = None
    try:
        await gateway.connect_public()
        symbols = gateway.tradable_symbols()
        start = M1.last_closed_open_ms(await gateway.sync_clock())
        desk = Desk(None, exchange, symbols, start, clock)  # type: ignore[arg-type]
        desk.market = MarketData(
            exchange, gateway, timeframe=M1, clock=clock, monotonic=desk.now, capabilities=capabilities
        )
        desk.market.follow(dict.fromkeys(symbols, start))
        task = asyncio.create_task(desk.market.run())
        yield desk
    finally:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await gateway.close()


async def test_candles_come_over_several_connections_each_once_and_in_order(tmp_path):
    """Three channels on a connection, eight symbols: three connections of one address, and as good as no REST."""
    async with (
        running_sandbox(symbols=8, speed=12, seed=5, state=tmp_path / "s") as sandbox,
        desk_at(sandbox) as desk,
    ):
        await until(lambda: len(connections(desk)) == 3)
        taken, batches = await collect(desk, candles=3)
        await check_against_history(desk, taken)
        status = await sandbox.get("/sandbox/status")
        figures = desk.market.figures()
        streamed = [stream.candles for stream in desk.feed.streams]
        addresses = connections(desk)

    assert [url.partition("#")[2] for url in addresses] == ["0", "1", "2"]
    assert len({url.partition("#")[0] for url in addresses}) == 1
    assert status["connections"] == 3
    assert all(count > 0 for count in streamed)
    assert sum(streamed) > figures["by_rest"]
    assert all(set(batch.late_ms) == set(batch.blocks) for batch in batches)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    "trouble",
    [
        {"op": "freeze_ws", "symbol": "BTCUSDT"},
        {"op": "kill_ws", "hard": True},
        {"op": "kill_ws"},
        {"op": "push", "frame": "{not json"},
        {"op": "push", "frame": "[]"},
        {"op": "push", "frame": '[999999999,[1,2,"x"]]'},
        {"op": "push", "frame": "[1]"},
    ],
    ids=["frozen", "cut", "closed", "no-json", "empty", "stranger", "short"],
)
async def test_a_connection_that_dies_costs_no_candle(tmp_path, trouble):
    """Frozen, cut or fed rubbish: its candles are read by REST until it is opened anew, and streams go on."""
    async with (
        running_sandbox(symbols=4, speed=60, seed=6, state=tmp_path / "s") as sandbox,
        desk_at(sandbox) as desk,
    ):
        before, _ = await collect(desk, candles=1)
        assert (await sandbox.ctl(**trouble))["ok"]
        began = monotonic()
        if trouble["op"] != "push":
            await until(lambda: desk.feed.reconnects > 0)
        noticed_s = monotonic() - began
        after, _ = await collect(desk, candles=3)
        taken = {symbol: before[symbol].concat(after[symbol]) for symbol in before}
        await check_against_history(desk, taken)
        streamed = {stream.number: stream.candles for stream in desk.feed.streams}
        await until(lambda: all(one.candles > streamed[one.number] for one in desk.feed.streams))

    assert noticed_s <= 10.0


async def test_an_account_s_stream_and_the_market_s_live_side_by_side(tmp_path):
    """By default a connection carries 25 symbols; all of a small market are on one, told from the account's."""
    async with (
        running_sandbox(symbols=3, speed=60, seed=7, state=tmp_path / "s") as sandbox,
        desk_at(sandbox, capabilities=CAPABILITIES["sandbox-bitfinex"]) as desk,
    ):
        await desk.exchange.authenticate()
        taken, _ = await collect(desk, candles=2)
        await check_against_history(desk, taken)
        found = connections(desk)
        every = len(desk.exchange.clients)
        price = await desk.market.price(BTC)

    assert (len(found), every) == (1, 2)
    assert price > 0


async def test_more_symbols_than_one_connection_of_the_venue_carries(tmp_path):
    """Of 26 the venue takes 25 on a connection and refuses the next; on two, evenly spread, all are streamed."""
    async with running_sandbox(symbols=26, speed=12, seed=9, state=tmp_path / "s") as sandbox:
        async with desk_at(sandbox, capabilities=CAPABILITIES["sandbox-bitfinex"]) as desk:
            taken, _ = await collect(desk, candles=2)
            await check_against_history(desk, taken)
            newest = [stream._newest for stream in desk.feed.streams]
        async with desk_at(sandbox, capabilities=replace(FEW, streams_per_connection=26)) as crowded:
            await until(lambda: len(crowded.feed.streams[0]._newest) > 0)
            await collect(crowded, candles=1)
            followed = sum(one > 0 for one in crowded.feed.streams[0]._newest.values())

    assert [sum(one > 0 for one in each.values()) for each in newest] == [13, 13]
    assert followed == 25
