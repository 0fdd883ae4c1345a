"""A venue is led to a later moment and back to an earlier one, and its chance is drawn again, as ccxt sees it."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from itertools import pairwise

import aiohttp
import ccxt.async_support as ccxt
import pytest

from infra.prove.own_venue import own_venue
from infra.sandbox.faults import FaultError
from infra.sandbox.moments import MOST_SNAPSHOTS
from tests.sandbox_support import ccxt_options, point

COIN = "SOL/USDT:USDT"
HOUR_MS = 3_600_000


@asynccontextmanager
async def trading(**options: object):
    """Start a venue and a client of it."""
    async with own_venue(symbols=("BTCUSDT", "SOLUSDT"), **options) as venue:
        exchange = point(ccxt.binanceusdm(ccxt_options() | {"enableRateLimit": False}), venue.url)
        try:
            await exchange.load_markets()
            yield venue, exchange
        finally:
            await exchange.close()


async def day(venue, exchange) -> str:
    """Trade from where time stands still, let it pass, and tell all that the account and the market say then."""
    await exchange.create_order(COIN, "market", "buy", 3, None, {"clientOrderId": "in"})
    last = (await exchange.fetch_ticker(COIN))["last"]
    for kind, factor in (("stopLossPrice", 0.97), ("takeProfitPrice", 1.03)):
        price = exchange.price_to_precision(COIN, last * factor)
        given = {kind: price, "reduceOnly": True, "clientOrderId": kind}
        await exchange.create_order(COIN, "market", "sell", 3, None, given)
    await venue.do(op="advance", for_s=10 * 3600)
    told = venue.audit() | {
        "orders_told": await exchange.fapiPrivateGetAllOrders({"symbol": "SOLUSDT"}),
        "trades_told": await exchange.fapiPrivateGetUserTrades({"symbol": "SOLUSDT"}),
        "incomes_told": await exchange.fapiPrivateGetIncome({}),
        "candles_told": await exchange.fetch_ohlcv(COIN, "5m", limit=50),
    }
    # Protection is counted on the wall.
    return json.dumps({name: value for name, value in told.items() if "wall" not in str(value)}, default=str)


async def test_time_is_led_to_a_moment_and_everything_on_the_way_happens():
    """Ten hours at once: candles without a hole, a funding settlement, and time stands still where it stood."""
    async with trading() as (venue, exchange):
        await venue.do(op="stand_still")
        await exchange.create_order(COIN, "market", "buy", 3)
        before = await exchange.fetch_time()
        done = await venue.do(op="advance", until_ms=before + 10 * HOUR_MS)
        after = await exchange.fetch_time()
        rows = await exchange.fetch_ohlcv(COIN, "1h", since=before - HOUR_MS, limit=20)
        incomes = await exchange.fetch_funding_history(COIN)
        await asyncio.sleep(0.2)
        still = await exchange.fetch_time()
        await venue.do(op="go_on")
        await asyncio.sleep(0.2)

        assert done["now_ms"] == after == still == before + 10 * HOUR_MS
        assert [b[0] - a[0] for a, b in pairwise(rows)] == [HOUR_MS] * (len(rows) - 1)
        assert len(rows) >= 10
        assert len(incomes) == 1
        assert await exchange.fetch_time() > still


async def test_time_that_ran_goes_on_running_from_the_later_moment():
    """Without standing still the clock only leaps."""
    async with trading() as (venue, exchange):
        before = await exchange.fetch_time()
        await venue.do(op="advance", for_s=3600)
        leapt = await exchange.fetch_time()
        await asyncio.sleep(0.1)

        assert 0 <= leapt - before - HOUR_MS < 60_000
        assert await exchange.fetch_time() > leapt


async def test_two_who_lead_time_at_once_lead_it_one_after_the_other():
    """Both ways are gone, and the clock runs on: neither takes the other's hold for time that stood still."""
    async with own_venue() as venue:
        before = venue.sandbox.now_ms()
        first, second = await asyncio.gather(*(venue.do(op="advance", for_s=5 * 3600) for _ in range(2)))

        assert first["now_ms"] - before >= 5 * HOUR_MS
        assert second["now_ms"] - before >= 10 * HOUR_MS
        assert venue.sandbox.clock.held_since is None


async def test_who_brings_a_venue_back_ends_who_leads_it_on():
    """Those under way and those that wait are refused, the venue is at the snapshot, and its time runs."""
    async with own_venue() as venue:
        before = (await venue.do(op="snapshot", name="here"))["now_ms"]
        leading = [asyncio.create_task(venue.do(op="advance", for_s=7 * 24 * 3600)) for _ in range(2)]
        await _under_way(venue, before)
        back = await venue.do(op="restore", name="here")
        for one in leading:
            with pytest.raises(FaultError, match="brought back"):
                await one

        assert back["now_ms"] == before
        assert venue.sandbox.now_ms() - before < HOUR_MS
        assert venue.sandbox.clock.held_since is None
        assert (await venue.do(op="advance", for_s=3600))["now_ms"] >= before + HOUR_MS


@pytest.mark.parametrize(("said", "stands"), [("stand_still", True), ("go_on", False)])
async def test_what_a_person_says_of_the_clock_while_it_is_led_holds_afterwards(said, stands):
    """Standing still ends the way there; going on is heeded at its end, though time stood still at its beginning."""
    async with own_venue() as venue:
        if said == "go_on":
            await venue.do(op="stand_still")
        before = venue.sandbox.venue.ticked_ms
        leading = asyncio.create_task(venue.do(op="advance", for_s=2 * 24 * 3600))
        await _under_way(venue, before)
        answer = await venue.do(op=said)
        done = await leading

        assert (venue.sandbox.clock.held_since is not None) is stands
        assert done["now_ms"] == answer["held_ms"] if stands else done["now_ms"] >= before + 48 * HOUR_MS


async def _under_way(venue, before: int) -> None:
    async with asyncio.timeout(20):
        while venue.sandbox.venue.ticked_ms < before + HOUR_MS:  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0)


async def test_what_follows_a_snapshot_can_be_lived_again_to_the_last_digit():
    """Orders, fills, funding, ids, candles and every balance are the same the second time, and the third."""
    async with trading() as (venue, exchange):
        await venue.do(op="stand_still")
        await exchange.create_order(COIN, "market", "buy", 1, None, {"clientOrderId": "before"})
        await venue.do(op="snapshot", name="noon")
        lives = []
        for _ in range(3):
            lives.append(await day(venue, exchange))
            await venue.do(op="restore", name="noon")
        (position,) = await exchange.fetch_positions([COIN])

        assert lives[0] == lives[1] == lives[2]
        assert '"in"' in lives[0]
        assert position["contracts"] == 1.0
        assert [one["clientOrderId"] for one in await exchange.fetch_orders(COIN)] == ["before"]


async def test_coming_back_cuts_sockets_ends_later_halts_and_answers_what_was_under_way():
    """A halt of after the snapshot is none, a request in flight is told -1007, and a stream begins anew."""
    async with trading() as (venue, exchange), aiohttp.ClientSession() as session:
        await venue.do(op="snapshot", name="well")
        async with session.ws_connect(f"{venue.url}/market/ws/solusdt@kline_1m") as socket:
            await venue.do(op="halt", symbol="SOLUSDT")
            with pytest.raises(ccxt.BaseError, match="-4108"):
                await exchange.create_order(COIN, "market", "buy", 1)
            await venue.do(op="rules", insert_ms=60_000)
            sent = asyncio.create_task(exchange.create_order("BTC/USDT:USDT", "market", "buy", 0.01))
            async with asyncio.timeout(20):
                while not venue.sandbox.venue.arrivals.in_flight():  # noqa: ASYNC110 - nobody tells
                    await asyncio.sleep(0.01)
            done = await venue.do(op="restore", name="well")
            with pytest.raises(ccxt.RequestTimeout, match="-1007"):
                await sent
            async with asyncio.timeout(20):
                while (await socket.receive()).type is aiohttp.WSMsgType.TEXT:
                    pass
        async with session.ws_connect(f"{venue.url}/market/ws/solusdt@kline_1m") as again:
            told = await again.receive_json(timeout=20)
        order = await exchange.create_order(COIN, "market", "buy", 1)

    assert done["killed"] == 1
    assert told["s"] == "SOLUSDT"
    assert order["status"] == "closed"


async def test_a_saved_venue_is_the_one_that_was_come_back_to(tmp_path):
    """What is saved after a restoration is the restored account."""
    async with trading() as (venue, exchange):
        await venue.do(op="snapshot", name="a")
        venue.sandbox.state_folder = tmp_path
        await exchange.create_order(COIN, "market", "buy", 1)
        venue.sandbox.save()
        traded = json.loads((tmp_path / "venue.json").read_text())["engine"]["trades"]
        await venue.do(op="restore", name="a")
        assert not venue.sandbox.is_saved
        venue.sandbox.save()

        assert len(traded) == 1
        assert json.loads((tmp_path / "venue.json").read_text())["engine"]["trades"] == []


async def test_chance_is_drawn_again_from_its_seed():
    """Of twenty requests the same fail; from another seed, others."""
    async with trading() as (venue, exchange):
        await venue.do(op="fault", path="/fapi/v1/openOrders", p=0.5, status=503)

        async def failed(seed: int) -> list[bool]:
            await venue.do(op="seed", seed=seed)
            outcomes = []
            for _ in range(20):
                try:
                    await exchange.fetch_open_orders(COIN)
                    outcomes.append(False)
                except ccxt.BaseError:
                    outcomes.append(True)
            return outcomes

        first, again, other = await failed(5), await failed(5), await failed(6)

    assert first == again
    assert first != other
    assert any(first)
    assert not all(first)


async def test_who_talks_too_much_is_cut_off_where_limits_are_on():
    """The eleventh message of a second ends a socket of streams, as at the live venue; without limits none does."""
    async with own_venue() as venue, aiohttp.ClientSession() as session:
        for limited in (False, True):
            await venue.do(op="limits", on=limited)
            async with session.ws_connect(f"{venue.url}/market/ws") as socket:
                for number in range(11):
                    await socket.send_json({"method": "LIST_SUBSCRIPTIONS", "params": [], "id": number})
                said = [await socket.receive(timeout=20) for _ in range(11)]

            assert (socket.close_code == aiohttp.WSCloseCode.POLICY_VIOLATION) is limited
            assert all(one.type is aiohttp.WSMsgType.TEXT for one in said) is not limited


@pytest.mark.parametrize(
    "body",
    [
        {"op": "advance", "until_ms": 5},
        {"op": "advance", "until_ms": "soon"},
        {"op": "advance", "for_s": -1},
        {"op": "advance", "for_s": 1e9},
        {"op": "snapshot"},
        {"op": "snapshot", "name": 3},
        {"op": "snapshot", "name": "x" * 61},
        {"op": "restore", "name": "never"},
        {"op": "seed", "seed": -1},
        {"op": "seed", "seed": "x"},
        {"op": "limits", "messages": 0},
    ],
    ids=lambda one: " ".join(str(value)[:10] for value in one.values()),
)
async def test_what_cannot_be_is_refused_and_changes_nothing(body):
    """A sentence, and the venue goes on as it was; there is an end to how many snapshots are kept."""
    async with own_venue() as venue:
        before = venue.sandbox.now_ms()
        with pytest.raises(FaultError):
            await venue.do(**body)
        for number in range(MOST_SNAPSHOTS):
            await venue.do(op="snapshot", name=str(number))
        with pytest.raises(FaultError, match="At most"):
            await venue.do(op="snapshot", name="one more")

        assert 0 <= venue.sandbox.now_ms() - before < 60_000
        assert len(venue.sandbox.snapshots) == MOST_SNAPSHOTS
        assert venue.sandbox.hub.most_messages is None


async def test_a_script_leads_time_and_comes_back_too():
    """Each of these can stand in a script, and none of them lasts."""
    async with own_venue() as venue:
        before = venue.sandbox.now_ms()
        steps = [{"after": 0, "op": "snapshot", "name": "s"}, {"after": 0, "op": "seed", "seed": 3},
                 {"after": 0, "op": "advance", "for_s": 7200}]  # fmt: skip
        await venue.do(op="script", steps=steps)
        async with asyncio.timeout(20):
            while venue.sandbox.now_ms() < before + 2 * HOUR_MS:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.01)
        with pytest.raises(FaultError, match="takes no time"):
            await venue.do(op="script", steps=[{"after": 0, "for": 1, "op": "restore", "name": "s"}])

        assert venue.sandbox.faults.seed == 3
        assert list(venue.sandbox.snapshots) == ["s"]
