"""Recorded trades and books beside recorded candles: shown as they were, served in their order, equal on both roads."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from decimal import Decimal
from pathlib import Path
from urllib.parse import urlencode

import aiohttp
import numpy as np
import pytest

from feature_store.kinds.definition import BOOK, TRADES
from feature_store.kinds.partition import folder_of
from infra.sandbox.engine.model import OrderRequest, OrderType, Side, TimeInForce
from infra.sandbox.in_process import InProcess
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.serve import OptionError, Options, build
from tests.flow_support import (
    BOOKS,
    MINUTE_MS,
    SOL,
    START_MS,
    TRADED,
    books_of,
    candles_of,
    trades_of,
    write_candles,
    write_recording,
    write_unchecked,
)
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

ORDER, ALGO = "/fapi/v1/order", "/fapi/v1/algoOrder"
# A venue over the wire has begun before anybody can lead it.
EARLIER_MS = START_MS - 10 * MINUTE_MS
SYMBOL = {"symbol": "SOLUSDT"}
LIMIT = SYMBOL | {"type": "LIMIT", "timeInForce": "GTC"}
BUY_998 = LIMIT | {"side": "BUY", "price": "99.8", "quantity": "3", "newClientOrderId": "buy-998"}


def options(folder: Path, start_ms: int = START_MS) -> Options:
    """Return a venue that replays a folder, from where its trades begin unless told otherwise."""
    return Options(
        host="127.0.0.1", port=0, symbols=(), symbol_count=1, seed=7, edge=0.0, speed=900.0, start_ms=0,
        history_days=1, balance=Decimal(10_000), taker_fee=Decimal("0.0005"), maker_fee=Decimal("0.0002"),
        spread_bps=Decimal(1), credentials=Credentials(API_KEY, API_SECRET), replay=folder, replay_start_ms=start_ms,
    )  # fmt: skip


def replayed(folder: Path, start_ms: int = START_MS) -> InProcess:
    """Return the venue of a folder in process."""
    return InProcess(build(options(folder, start_ms)).venue)


def lead(client: InProcess, after_ms: int) -> None:
    """Let time pass until so long after the start."""
    client.venue.advance(START_MS + after_ms, wall_ms=0.0)


def shown(at: int) -> dict[str, list[list[str]]]:
    """Return a recorded book as the venue writes it."""
    return {
        name: [[f"{price:.1f}", f"{quantity:.2f}"] for price, quantity in side]
        for name, side in (("bids", BOOKS[at].bids), ("asks", BOOKS[at].asks))
    }


def depth(client: InProcess) -> dict[str, list[list[str]]]:
    """Return the bids and asks that a client is told."""
    found = client.ask("GET", "/fapi/v1/depth", **SYMBOL, limit=5)
    return {name: found[name] for name in ("bids", "asks")}


def test_the_recorded_book_is_what_clients_are_told(tmp_path):
    """Depth, best bid and ask, and what a taker pays come of the newest snapshot; nothing of a later one is told."""
    client = replayed(write_recording(tmp_path))
    told = []
    for after_ms in (10_000, 20_000, 60_000, 70_000, 100_000):
        lead(client, after_ms)
        told.append(depth(client))
    best = client.ask("GET", "/fapi/v1/ticker/bookTicker", **SYMBOL)
    order = client.ask(
        "POST", ORDER, **SYMBOL, side="BUY", type="MARKET", quantity="6", newOrderRespType="RESULT"
    )  # fmt: skip

    assert told == [shown(0), shown(1), shown(1), shown(2), shown(3)]
    assert (best["bidPrice"], best["askPrice"]) == ("99.7", "99.9")
    assert Decimal(order["cumQuote"]) == 4 * Decimal("99.9") + 2 * Decimal("100.1")


def test_recorded_trades_are_told_as_they_were(tmp_path):
    """Number, price, quantity, time and side are the recorded ones, none before its time; candles are made of them."""
    client = replayed(write_recording(tmp_path))
    lead(client, 50_000)
    early = client.ask("GET", "/fapi/v1/aggTrades", **SYMBOL)
    begun = client.ask("GET", "/fapi/v1/klines", **SYMBOL, interval="1m", startTime=START_MS)
    lead(client, 2 * MINUTE_MS)
    late = client.ask("GET", "/fapi/v1/aggTrades", **SYMBOL)
    page = client.ask("GET", "/fapi/v1/trades", **SYMBOL, limit=3)
    after = client.ask("GET", "/fapi/v1/aggTrades", **SYMBOL, fromId=7_000_004, limit=2)
    whole = client.ask("GET", "/fapi/v1/klines", **SYMBOL, interval="1m", startTime=START_MS)

    expected = [
        (7_000_000 + number, Decimal(str(price)), Decimal(str(quantity)), START_MS + at, sold)
        for number, (at, price, quantity, sold) in enumerate(TRADED)
    ]
    assert [(t["a"], Decimal(t["p"]), Decimal(t["q"]), t["T"], t["m"]) for t in late] == expected
    assert early == late[:6]
    assert [t["id"] for t in page] == [7_000_009, 7_000_010, 7_000_011]
    assert [t["a"] for t in after] == [7_000_004, 7_000_005]
    assert [float(begun[0][k]) for k in range(1, 6)] == [100.0, 100.1, 99.8, 99.9, 17.0]
    assert [[float(one[k]) for k in range(1, 6)] for one in whole] == [list(row[4:]) for row in candles_of(TRADED)]
    assert [one[8] for one in whole] == [7, 5]


def test_a_resting_order_waits_for_all_that_was_before_it(tmp_path):
    """Of ten displayed before it, four and five were traded: not until the tenth does ours fill, at its own price."""
    client = replayed(write_recording(tmp_path))
    lead(client, 10_000)
    ours = client.ask("POST", ORDER, **BUY_998)["orderId"]
    ahead, filled = [], []
    for after_ms in (10_000, 20_000, 30_000, 70_000, 80_000):
        lead(client, after_ms)
        ahead.append(client.venue.exchange.state.ahead.get(ours))
        filled.append(client.venue.exchange.state.orders[ours].filled)
    fill = client.ask("GET", "/fapi/v1/userTrades", **SYMBOL)[0]

    assert ahead == [10, 6, 1, 1, None]
    assert filled == [0, 0, 0, 0, 3]
    assert (fill["price"], fill["qty"], fill["maker"]) == ("99.8", "3", True)


def test_a_level_that_shrinks_takes_the_queue_with_it(tmp_path):
    """What is cancelled before us is gone: nobody is further back than all that the recorded book shows."""
    client = replayed(write_recording(tmp_path))
    lead(client, 10_000)
    ours = client.ask("POST", ORDER, **BUY_998 | {"price": "99.7"})["orderId"]
    ahead = []
    for after_ms in (10_000, 60_000, 70_000, 90_000, 100_000):
        lead(client, after_ms)
        ahead.append(client.venue.exchange.state.ahead[ours])

    assert ahead == [40, 40, 12, 10, 3]


def test_trades_of_before_an_order_do_not_fill_it(tmp_path):
    """Between two ticks trades are told together; one that was made before an order came means nothing to it."""
    client = replayed(write_recording(tmp_path))
    lead(client, 10_000)
    early = client.ask("POST", ORDER, **LIMIT, side="BUY", price="99.9", quantity="20")["orderId"]
    exchange = client.venue.exchange
    lead(client, 14_000)
    request = OrderRequest("SOLUSDT", Side.BUY, OrderType.LIMIT, Decimal(20), Decimal("99.9"), TimeInForce.GTC)
    late = exchange.submit(request, now_ms=START_MS + 14_000).order_id
    lead(client, 20_000)
    states = exchange.state.orders

    assert states[early].filled == states[early].quantity
    assert states[late].filled == 0


def test_what_was_not_recorded_stays_what_it_was(tmp_path):
    """A minute whose trades are not all there follows its candle; a folder without trades is a replay as before."""
    write_candles(tmp_path / "half")
    write_unchecked(tmp_path / "half", TRADES, trades_of(TRADED[:6] + TRADED[7:]))
    half, plain = replayed(tmp_path / "half"), (write_candles(tmp_path / "plain"), replayed(tmp_path / "plain"))[1]
    prices = []
    for client in (half, plain):
        seen = []
        for after_ms in range(10_000, 60_000, 10_000):
            lead(client, after_ms)
            seen.append(client.ask("GET", "/fapi/v2/ticker/price", **SYMBOL)["price"])
        prices.append(seen)
    lead(half, 2 * MINUTE_MS)

    assert prices[0] == prices[1]
    assert [t["a"] for t in half.ask("GET", "/fapi/v1/aggTrades", **SYMBOL)] == [7_000_006 + k for k in range(5)]
    assert half.venue.exchange.state.rules.queue
    assert not plain.venue.exchange.state.rules.queue


def _changed(kind, column, value):
    """Return a recording of a kind in which one value is another."""
    records = trades_of(TRADED) if kind is TRADES else books_of(BOOKS)
    columns = {name: np.array(values) for name, values in records.columns.items()}
    times = np.array(records.time_ms)
    (times if column == "time_ms" else columns[column])[3] = value
    return type(records)(kind, times, columns)


@pytest.mark.parametrize(
    ("kind", "column", "value", "says"),
    [
        (TRADES, "price", float("nan"), "trades of SOLUSDT: expected each price above 0, found price nan"),
        (TRADES, "price", -1.0, "expected each price above 0, found price -1.0"),
        (TRADES, "quantity", -4.0, "expected each quantity above 0, found quantity -4.0"),
        (TRADES, "quantity", float("inf"), "expected each quantity above 0, found quantity inf"),
        (TRADES, "time_ms", START_MS + 50_000, "trades of SOLUSDT: expected times in order"),
        (BOOK, "price", 100.2, "book of SOLUSDT: expected the best bid below the best ask, found price 100.2"),
        (BOOK, "quantity", -2.0, "book of SOLUSDT: expected each quantity above 0"),
        (BOOK, "price", float("nan"), "book of SOLUSDT: expected each price above 0"),
        (BOOK, "time_ms", START_MS + 90_000, "book of SOLUSDT: expected times in order"),
    ],
)
def test_what_no_market_can_have_said_is_refused(tmp_path, kind, column, value, says):
    """Crossed books, times out of order, and what is not above zero end the start with what was found and where."""
    write_candles(tmp_path)
    write_unchecked(tmp_path, kind, _changed(kind, column, value))
    with pytest.raises(OptionError, match="(?i)" + says) as refusal:
        replayed(tmp_path)
    assert "2026-01-05" in str(refusal.value)


def test_levels_out_of_their_order_are_refused(tmp_path):
    """A second bid above the first is a torn book."""
    write_candles(tmp_path)
    records = books_of(BOOKS)
    price = np.array(records["price"])
    price[5] = 99.95
    write_unchecked(tmp_path, BOOK, type(records)(BOOK, records.time_ms, {**records.columns, "price": price}))
    with pytest.raises(OptionError, match="expected levels from the best to the worst"):
        replayed(tmp_path)
    assert price[4] < price[5]


def test_a_damaged_file_is_refused_by_name(tmp_path):
    """A file cut short says which it is."""
    write_recording(tmp_path)
    damaged = next(Path(str(folder_of(tmp_path, TRADES, SOL))).glob("*.parquet"))
    damaged.write_bytes(damaged.read_bytes()[:200])
    with pytest.raises(OptionError, match="trades of SOLUSDT cannot be read") as refusal:
        replayed(tmp_path)
    assert damaged.name in str(refusal.value)


# -- over the wire ----------------------------------------------------------------------------------------------------


class OverTheWire:
    """Asks a venue in lockstep over HTTP."""

    def __init__(self, sandbox, session) -> None:
        self.sandbox, self.session = sandbox, session

    async def ask(self, method: str, path: str, **values: object) -> object:
        """Return the answer."""
        now_ms = await self.held_ms()
        query = urlencode({name: str(value) for name, value in values.items()} | {"timestamp": now_ms})
        signature = hmac.new(API_SECRET.encode(), query.encode(), hashlib.sha256).hexdigest()
        address = f"{self.sandbox.url}{path}?{query}&signature={signature}"
        async with self.session.request(method, address, headers={"X-MBX-APIKEY": API_KEY}) as answer:
            return await answer.json()

    async def held_ms(self) -> int:
        """Return the time at which the venue stands still, once it does."""
        while (held_ms := (await self.sandbox.get("/sandbox/status"))["held_ms"]) is None:  # noqa: ASYNC110 - HTTP tells nobody
            await asyncio.sleep(0.005)
        return held_ms

    async def go_on(self) -> int:
        """Let time pass until the venue stands still again, and return the time."""
        await self.sandbox.ctl(op="go_on")
        return await self.held_ms()


class Here:
    """The same questions, asked in process."""

    def __init__(self, folder: Path) -> None:
        self.inner = replayed(folder, EARLIER_MS)

    async def ask(self, method: str, path: str, **values: object) -> object:
        """Return the answer as a client reads it: JSON."""
        return json.loads(json.dumps(self.inner.ask(method, path, **values)))

    async def go_on(self) -> int:
        """Let time pass until something matters."""
        return self.inner.go_on()


async def trade(client) -> list[object]:
    """Queue on both sides, hold a stop, take at the end of the first minute; return every answer."""
    while await client.go_on() < START_MS:
        pass
    told: list[object] = [await client.ask("POST", ORDER, **BUY_998)]
    told.append(await client.ask("POST", ORDER, **LIMIT, side="BUY", price="99.7", quantity="2", newClientOrderId="l"))
    told.append(
        await client.ask("POST", ORDER, **LIMIT, side="SELL", price="100.2", quantity="1", newClientOrderId="h")
    )
    stop = SYMBOL | {"side": "SELL", "type": "STOP_MARKET", "algoType": "CONDITIONAL", "quantity": "2"}
    told.append(await client.ask("POST", ALGO, **stop, triggerPrice="99.7", clientAlgoId="s"))
    while (now_ms := await client.go_on()) < START_MS + 2 * MINUTE_MS:
        told += [now_ms, await client.ask("GET", "/fapi/v1/depth", **SYMBOL, limit=5)]
        if now_ms == START_MS + MINUTE_MS:
            told.append(await client.ask("POST", ORDER, **SYMBOL, side="BUY", type="MARKET", quantity="5"))
    for path in ("/fapi/v1/userTrades", "/fapi/v1/allOrders", "/fapi/v1/allAlgoOrders"):
        told.append(await client.ask("GET", path, **SYMBOL))
    told.append(await client.ask("GET", "/fapi/v1/aggTrades", **SYMBOL))
    told.append(await client.ask("GET", "/fapi/v3/account"))
    return told


async def test_both_transports_play_the_recording_alike(tmp_path):
    """Over HTTP and in process the same recording gives the same queue, fills, stops and balances; streams tell it."""
    folder = write_recording(tmp_path)
    start = str(np.datetime64(EARLIER_MS, "ms")) + "Z"
    heard: list[dict] = []

    async def listen(socket) -> None:
        async for message in socket:
            heard.append(json.loads(message.data))  # noqa: PERF401 - what was heard so far is looked at meanwhile

    async with (
        running_sandbox(replay=folder, replay_start=start, seed=7, speed=900, lockstep=True) as sandbox,
        aiohttp.ClientSession() as session,
        asyncio.timeout(120),
    ):
        await sandbox.ctl(op="lead")
        streams = "solusdt@aggTrade/solusdt@kline_1m/solusdt@depth5@100ms"
        async with session.ws_connect(f"{sandbox.ws_url}/stream?streams={streams}") as socket:
            listening = asyncio.create_task(listen(socket))
            over_wire = await trade(OverTheWire(sandbox, session))
            while not any(one["stream"].endswith("kline_1m") and one["data"]["k"]["t"] > START_MS for one in heard):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            await asyncio.sleep(0.5)
            listening.cancel()
    here = await trade(Here(folder))

    def without_clock(told: list[object]) -> list[object]:
        return [{k: v for k, v in one.items() if k != "E"} if isinstance(one, dict) else one for one in told]

    assert without_clock(over_wire) == without_clock(here)
    fills = here[-5]
    assert {one["maker"] for one in fills} == {True, False}
    prints = [one["data"] for one in heard if one["stream"].endswith("@aggTrade")]
    assert [(one["a"], one["T"], one["m"]) for one in prints] == [
        (7_000_000 + number, START_MS + at, sold) for number, (at, _, _, sold) in enumerate(TRADED)
    ]
    closed = [one["data"]["k"] for one in heard if one["stream"].endswith("kline_1m") and one["data"]["k"]["x"]]
    rows = [[float(one[name]) for name in "ohlcv"] for one in closed if one["t"] >= START_MS]
    assert rows == [list(row[4:]) for row in candles_of(TRADED)]
    books = [one["data"] for one in heard if one["stream"].endswith("depth5@100ms")]
    assert {"bids": books[-1]["b"], "asks": books[-1]["a"]} == shown(3)
