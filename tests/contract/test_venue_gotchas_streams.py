"""What ccxt.pro makes of the venue's streams where it surprises, seen at the sandbox; and what we do about it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager, suppress

import ccxt
import ccxt.pro
import pytest

from feature_store.clock import monotonic
from feature_store.venue.factory import create_exchange
from inference.exchange.user_stream import UserStream
from inference.exchange.watching import close_clients
from infra.prove.own_venue import own_venue
from infra.sandbox.market.universe import characters
from tests.sandbox_support import API_KEY, API_SECRET, ccxt_options, point, point_spot

COIN = "SOL/USDT:USDT"
MANY = tuple(one.symbol for one in characters(20, 7))
RENEWED = "PUT /fapi/v1/listenKey"


@asynccontextmanager
async def streaming(*, symbols=("BTCUSDT", "SOLUSDT"), speed=20.0, **options: object):
    """Start a venue, at whose speed each candle changes twice a second, and a client of it."""
    async with own_venue(symbols=symbols, speed=speed) as venue:
        given = ccxt_options()
        given["options"] |= options
        exchange = point(ccxt.pro.binanceusdm(given), venue.url)
        try:
            await exchange.load_markets()
            yield venue, exchange
        finally:
            await venue.do(op="clear")
            await exchange.close()


@asynccontextmanager
async def following(watch):
    """Watch in the background."""

    async def follow() -> None:
        while True:
            await watch()

    task = asyncio.create_task(follow())
    try:
        yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, ccxt.BaseError):
            await task


async def until(holds, within: float = 30.0) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(within):
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.02)


async def candles_until(exchange, within: float) -> None:
    """Watch candles until that fails or the time is over."""
    async with asyncio.timeout(within):
        while True:
            await exchange.watch_ohlcv(COIN, "1m")


def is_private_and_open(exchange) -> bool:
    """Whether the account's stream is open."""
    return any("listenKey" in url and one.isConnected for url, one in exchange.clients.items())


@pytest.mark.parametrize(
    "frame",
    ['{"e":"kline",', "[]", '{"e":"kline","E":1,"s":"SOLUSDT"}'],
    ids=["malformed", "empty-list", "kline-without-k"],
)
async def test_one_bad_frame_deafens_a_socket_for_life(frame):
    """Nothing is raised, nothing comes any more, though the venue goes on sending; a new socket hears it (G8)."""
    async with streaming() as (venue, exchange):
        await exchange.watch_ohlcv(COIN, "1m")
        await venue.do(op="push", frame=frame, to="market")
        with suppress(TimeoutError):
            await candles_until(exchange, 2)
        (deaf,) = list(exchange.clients.values())
        with pytest.raises(TimeoutError):
            await candles_until(exchange, 2)

        assert deaf.isConnected
        await close_clients(exchange, which=lambda _: True)
        assert await asyncio.wait_for(exchange.watch_ohlcv(COIN, "1m"), 20)


async def test_a_frozen_stream_raises_nothing_and_pongs_look_like_life():
    """A venue that sends nothing but pongs is watched for ever; the last message was a pong of just now (G8)."""
    async with streaming(ws={"keepAlive": 300}) as (venue, exchange):
        await exchange.watch_ohlcv(COIN, "1m")
        await venue.do(op="freeze_ws")
        (socket,) = exchange.clients.values()
        before = socket.lastPong
        with pytest.raises(TimeoutError):
            await candles_until(exchange, 2)

        assert socket.isConnected
        assert socket.lastPong > before


async def test_a_black_hole_is_noticed_only_by_missing_pongs():
    """After two pongs that did not come: minutes by ccxt's own interval, seconds by a short one (G8)."""
    async with streaming(ws={"keepAlive": 500}) as (venue, exchange):
        await exchange.watch_ohlcv(COIN, "1m")
        await venue.do(op="black_hole")
        with pytest.raises(ccxt.RequestTimeout, match="ping-pong"):
            await candles_until(exchange, 20)
    usual = ccxt.pro.binanceusdm()
    ours = create_exchange("sandbox", url="http://127.0.0.1:9")
    await usual.close()
    await ours.close()

    assert usual.streaming["keepAlive"] == 180_000
    assert ours.options["ws"]["keepAlive"] == 15_000


@pytest.mark.parametrize("hard", [False, True], ids=["closed", "cut"])
async def test_an_end_that_is_said_is_an_error_and_the_next_watch_connects(hard):
    """A farewell (the venue's day is over) and a cut are both NetworkErrors at once (G8)."""
    async with streaming() as (venue, exchange):
        await exchange.watch_ohlcv(COIN, "1m")
        await venue.do(op="kill_ws", hard=hard)
        with pytest.raises(ccxt.NetworkError):
            await candles_until(exchange, 20)

        assert await asyncio.wait_for(exchange.watch_ohlcv(COIN, "1m"), 20)


async def test_a_refused_handshake_waits_as_long_as_it_was_told():
    """After a 429 the next attempt goes out no sooner than Retry-After says (G8)."""
    async with streaming() as (venue, exchange):
        await venue.do(op="wsfault", handshake=429, times=1, secs=1.0)
        began = monotonic()
        with pytest.raises(ccxt.NetworkError, match="429"):
            await exchange.watch_ohlcv(COIN, "1m")
        assert await asyncio.wait_for(exchange.watch_ohlcv(COIN, "1m"), 20)

        assert monotonic() - began >= 0.9


async def test_an_expired_key_ends_nothing_at_the_client():
    """The client passes over `listenKeyExpired`: no error, and its key stays the one that is void (G8)."""
    async with streaming() as (venue, exchange), following(exchange.watch_orders):
        await until(lambda: is_private_and_open(exchange))
        key = exchange.options["linear"]["listenKey"]
        heard = []
        take = exchange.handle_message
        for one in exchange.clients.values():
            one.on_message_callback = lambda client, message: (heard.append(message), take(client, message))
        await venue.do(op="expire_key")
        await until(lambda: any(one.get("e") == "listenKeyExpired" for one in heard))

        assert exchange.options["linear"]["listenKey"] == key
        assert venue.sandbox.listen_keys.key is None


async def test_the_client_renews_its_key_once_and_never_again():
    """Whatever interval it was given, ccxt's own keep-alive makes one PUT (G9)."""
    async with streaming(listenKeyRefreshRate=200) as (venue, exchange), following(exchange.watch_orders):
        await until(lambda: venue.sandbox.faults.met.get(RENEWED))
        # Ten times the interval.
        await asyncio.sleep(2.0)

        assert venue.sandbox.faults.met[RENEWED] == [1, 0]


async def test_our_stream_goes_on_renewing_and_replaces_a_key_that_is_lost():
    """Its own PUTs come as long as it lives; one that is answered with -1125 leads to a new key (G9)."""
    async with own_venue() as venue:
        exchange = create_exchange("sandbox", url=venue.url, api_key=API_KEY, api_secret=API_SECRET)
        gaps = []
        stream = UserStream(exchange, on_report=id, on_fill=id, on_gap=gaps.append, monotonic=monotonic,
                            keep_alive_seconds=0.2)  # fmt: skip
        await exchange.load_markets()
        running = asyncio.create_task(stream.run())
        try:
            await until(lambda: venue.sandbox.faults.met.get(RENEWED, [0])[0] >= 5)
            key = exchange.options["linear"]["listenKey"]
            reconnects = stream.reconnects
            await venue.do(op="expire_key", silent=True)
            await until(lambda: exchange.options["linear"]["listenKey"] not in {None, key} and stream.is_connected)
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await exchange.close()

        assert reconnects == 0
        assert stream.reconnects >= 1
        assert any("listen key lost" in one for one in gaps)


async def test_candles_of_many_symbols_are_handed_out_one_by_one_and_not_all_of_them():
    """Of a burst one symbol is returned, without a word on whether its candle is closed; the caches are whole (G10)."""
    async with streaming(symbols=MANY) as (_, exchange):
        came, returned, wanted = 0, [], [[symbol, "1m"] for symbol in exchange.symbols]
        take = exchange.handle_message

        def count(client, message) -> None:
            nonlocal came
            came += isinstance(message, dict) and message.get("e") == "kline"
            take(client, message)

        exchange.handle_message = count
        async with asyncio.timeout(60):
            while came < 10 * len(MANY):
                returned.append(await exchange.watch_ohlcv_for_symbols(wanted))
        caches = [exchange.ohlcvs[symbol]["1m"] for symbol in exchange.symbols]

    assert {len(one) for one in returned} == {1}
    assert len(returned) < came / 2
    assert len({symbol for one in returned for symbol in one}) < len(MANY)
    assert {one[-1][0] for one in caches} == {caches[0][-1][0]}
    assert {len(row) for one in caches for row in one} == {6}


async def test_news_that_comes_late_undoes_what_the_client_knew():
    """An event twice is told twice, and a NEW after the fill leaves an open order with nothing filled (G12)."""
    async with streaming() as (venue, exchange), following(exchange.watch_orders):
        await until(lambda: is_private_and_open(exchange))
        heard = []
        take = exchange.handle_message
        for one in exchange.clients.values():
            one.on_message_callback = lambda client, message: (heard.append(message), take(client, message))
        await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "late"})
        await until(lambda: any(one.get("o", {}).get("X") == "FILLED" for one in heard))
        filled = dict(exchange.orders[-1])
        new = next(one for one in heard if one.get("o", {}).get("X") == "NEW")
        before = len(heard)
        for _ in range(2):
            await venue.do(op="push", frame=json.dumps(new), to="user")
        await until(lambda: len(heard) >= before + 2)
        undone = dict(exchange.orders[-1])

    assert (filled["clientOrderId"], filled["status"], filled["filled"]) == ("late", "closed", 1.0)
    assert (undone["clientOrderId"], undone["status"], undone["filled"]) == ("late", "open", 0.0)


async def test_spot_at_an_address_without_its_word_is_taken_for_contracts():
    """Its candles are kept under the contract's name, and whoever watches the spot symbol waits for ever (G19)."""
    async with own_venue(symbols=("BTCUSDT", "SOLUSDT"), speed=20) as venue:
        exchange = point_spot(ccxt.pro.binance(ccxt_options()), venue.url)
        exchange.urls["api"]["ws"]["spot"] = venue.url.replace("http", "ws") + "/ws"
        try:
            await exchange.load_markets()
            watching = asyncio.create_task(exchange.watch_ohlcv("SOL/USDT", "1m"))
            await until(lambda: COIN in exchange.ohlcvs)
            await asyncio.wait([watching], timeout=1.0)

            assert not watching.done()
            assert list(exchange.ohlcvs) == [COIN]
        finally:
            watching.cancel()
            await exchange.close()
