"""The worker's gateway and stream on Binance spot: each flag of the venue against the sandbox, by real ccxt."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import replace
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.clock import monotonic
from feature_store.venue.errors import (
    AccountError,
    OrderRefusedError,
    OutcomeUnknownError,
    RateLimitedError,
    RetryableError,
)
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.capabilities import CAPABILITIES, Stream
from inference.exchange.gateways import account_stream_of, gateway_of
from inference.exchange.spot_gateway import SpotGateway
from inference.exchange.spot_stream import SpotStream
from inference.exchange.venue_clock import VenueClock
from inference.execution.ports import Gateway
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

COIN, NATIVE = "SOL/USDT", "SOLUSDT"
FLAGS = CAPABILITIES["sandbox-spot"]
D = Decimal


@asynccontextmanager
async def gateway_at(sandbox, *, secret=API_SECRET, accelerated=False):
    """Yield a connected gateway with its client."""
    exchange = create_exchange("sandbox-spot", url=sandbox.url, api_key=API_KEY, api_secret=secret)
    clock = VenueClock(accelerated=accelerated)
    gateway = gateway_of("sandbox-spot", exchange, clock=clock, monotonic=monotonic, leverage=3)
    try:
        await gateway.connect()
        yield gateway, exchange
    finally:
        await gateway.close()


@asynccontextmanager
async def venue(tmp_path, **options):
    """Yield a sandbox and a gateway connected to it."""
    told = {"symbols": 3, "history_days": 2, "speed": 1, "state": tmp_path / "state"} | options
    async with running_sandbox(**told) as sandbox, gateway_at(sandbox) as (gateway, exchange):
        yield sandbox, gateway, exchange


def intent(**changes):
    """Return a purchase of three coins at market, with changes."""
    plain = OrderIntent(
        client_order_id="qt-a-E1",
        trade_id="a",
        trace_id="",
        symbol=COIN,
        side=Side.BUY,
        order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY,
        quantity=D(3),
    )
    return replace(plain, **changes)


def sale(name="qt-a-X1", quantity="1", **changes):
    """Return an exit that sells."""
    return intent(client_order_id=name, side=Side.SELL, purpose=Purpose.EXIT, quantity=D(quantity), **changes)


async def test_markets_clock_and_quotes_are_read(tmp_path):
    """Symbols of spot with their steps and minimums, the venue's own time, best prices of one and of all."""
    async with venue(tmp_path) as (sandbox, gateway, _):
        assert isinstance(gateway, SpotGateway)
        port: Gateway = gateway
        assert port.recv_window_ms == 2_000
        assert gateway.tradable_symbols() == ("BTC/USDT", "ETH/USDT", COIN)
        one = gateway.instruments([COIN])[COIN]
        assert (one.quantity_step, one.price_tick, one.min_notional) == (D("0.0001"), D("0.001"), D(5))
        assert FLAGS.own_clock
        now_ms = (await sandbox.get("/sandbox/status"))["now_ms"]
        assert abs(await gateway.venue_now_ms() - now_ms) < 1_000
        quotes = await gateway.quotes()
        assert set(quotes) == set(gateway.tradable_symbols())
        assert (await gateway.quote(COIN)).bid < quotes[COIN].ask
        # What spot does not offer: leverage, funding, a countdown.
        assert not any((FLAGS.set_leverage, FLAGS.countdown_cancel, gateway.has_countdown, FLAGS.hedge))
        assert await gateway.funding(0) == []


async def test_a_balance_is_a_position_and_each_execution_explains_it(tmp_path):
    """What is reported as bought is what is held; commissions are fees in quote; both together are the money spent."""
    async with venue(tmp_path) as (_, gateway, _):
        assert (await gateway.positions(), await gateway.equity()) == ([], D(10_000))
        bought = await gateway.submit(intent())
        assert (bought.status, bought.filled) == (OrderStatus.FILLED, D("2.997"))
        assert await gateway.query(intent()) == bought
        (fill,) = await gateway.fills(COIN, 0)
        assert (fill.quantity, fill.venue_order_id, fill.side) == (D("2.997"), bought.venue_order_id, Side.BUY)
        assert 10_000 - await gateway.wallet() == fill.quantity * fill.price + fill.fee
        (position,) = await gateway.positions()
        assert (position.symbol, position.signed_quantity) == (COIN, D("2.997"))
        # The market moves while we ask.
        assert D(9_950) < await gateway.equity() < D(10_050)

        sold = await gateway.submit(sale(quantity="2.997"))
        assert (sold.status, sold.filled) == (OrderStatus.FILLED, D("2.997"))
        _, last = await gateway.fills(COIN, 0)
        assert last.fee == (last.quantity * last.price * D("0.001")).quantize(D("0.00000001"))
        assert await gateway.positions() == []
        entered = fill.quantity * fill.price + fill.fee
        assert await gateway.wallet() == 10_000 - entered + last.quantity * last.price - last.fee
        assert await gateway.fills(COIN, last.event_time_ms + 1) == []


async def test_a_gateway_of_another_life_finds_what_was_bought(tmp_path):
    """After a restart an order's report is the same: what it brought is read from its executions."""
    async with venue(tmp_path) as (sandbox, gateway, _):
        bought = await gateway.submit(intent())
        async with gateway_at(sandbox) as (other, _):
            assert await other.query(intent()) == bought
            assert [one.quantity for one in await other.fills(COIN, 0)] == [bought.filled]


@pytest.mark.parametrize(
    ("kind", "changes", "word"),
    [
        (OrderType.LIMIT, {"limit_price": D("100")}, "LIMIT"),
        (OrderType.LIMIT, {"limit_price": D("100"), "post_only": True}, "LIMIT_MAKER"),
    ],
)
async def test_limits_rest_and_are_cancelled(tmp_path, kind, changes, word):
    """A limit and one that only rests are at the venue as such, found by our id, and gone once cancelled."""
    async with venue(tmp_path) as (_, gateway, exchange):
        resting = intent(order_type=kind, **changes)
        assert kind in FLAGS.order_types
        assert (await gateway.submit(resting)).status is OrderStatus.ACCEPTED
        (raw,) = await exchange.privateGetOpenOrders({"symbol": NATIVE})
        assert raw["type"] == word
        (found,) = await gateway.open_orders()
        assert (found.client_order_id, found.filled) == ("qt-a-E1", D(0))
        assert (await gateway.cancel(resting)).status is OrderStatus.CANCELED
        assert (await gateway.query(resting)).status is OrderStatus.CANCELED
        assert await gateway.cancel(resting) is None
        assert await gateway.query(intent(client_order_id="qt-a-E9")) is None


async def test_a_post_only_that_would_take_is_refused_by_its_code(tmp_path):
    """What must not take is refused by the code that execution knows, and nothing was bought."""
    async with venue(tmp_path) as (_, gateway, _):
        assert FLAGS.post_only
        ask = (await gateway.quote(COIN)).ask
        with pytest.raises(OrderRefusedError) as refused:
            await gateway.submit(intent(order_type=OrderType.LIMIT, limit_price=ask, post_only=True))
        assert refused.value.code == -5022
        assert await gateway.positions() == []


@pytest.mark.parametrize(
    ("kind", "purpose", "factor", "word"),
    [
        (OrderType.STOP_MARKET, Purpose.STOP, "0.97", "STOP_LOSS"),
        (OrderType.TAKE_PROFIT_MARKET, Purpose.TARGET, "1.03", "TAKE_PROFIT"),
    ],
)
async def test_stops_and_targets_wait_at_the_venue(tmp_path, kind, purpose, factor, word):
    """Each sells at any price when its own has come, locks what it would sell, and keeps its number when it fires."""
    async with venue(tmp_path) as (sandbox, gateway, exchange):
        await gateway.submit(intent())
        tick = gateway.instruments([COIN])[COIN]
        trigger = tick.round_price((await gateway.quote(COIN)).mid * D(factor))
        waiting = sale("qt-a-S1", "2.99", order_type=kind, trigger_price=trigger)
        waiting = replace(waiting, purpose=purpose)
        placed = await gateway.submit(waiting)
        assert (placed.status, placed.child_order_id) == (OrderStatus.ACCEPTED, None)
        (raw,) = await exchange.privateGetOpenOrders({"symbol": NATIVE})
        assert raw["type"] == word
        assert (await gateway.balances())["SOL"].locked == D("2.99")
        # Held by the first, it cannot be sold by a second: the first has to be taken away before.
        with pytest.raises(OrderRefusedError) as refused:
            await gateway.submit(sale(quantity="2.99"))
        assert refused.value.code == -2010
        await sandbox.ctl(op="price", symbol=NATIVE, factor=float(factor) * (1 + (float(factor) - 1) / 5))
        fired = await gateway.query(waiting)
        assert (fired.status, fired.filled) == (OrderStatus.FILLED, D("2.99"))
        assert fired.child_order_id == fired.venue_order_id == placed.venue_order_id
        (_, fill) = await gateway.fills(COIN, 0)
        assert (fill.venue_order_id, fill.quantity) == (placed.venue_order_id, D("2.99"))
        assert await gateway.positions() == []


async def test_where_a_venue_holds_one_of_them_the_stop_is_taken_away_before_the_exit(tmp_path):
    """Cancel, then sell: within a second the position is out, and nothing rests."""
    async with venue(tmp_path) as (_, gateway, _):
        await gateway.submit(intent())
        trigger = gateway.instruments([COIN])[COIN].round_price((await gateway.quote(COIN)).mid * D("0.9"))
        stop = replace(sale("qt-a-S1", "2.997", order_type=OrderType.STOP_MARKET, trigger_price=trigger),
                       purpose=Purpose.STOP)  # fmt: skip
        await gateway.submit(stop)
        began = monotonic()
        assert (await gateway.cancel(stop)).status is OrderStatus.CANCELED
        assert (await gateway.submit(sale(quantity="2.997"))).status is OrderStatus.FILLED
        assert monotonic() - began < 1.0
        assert (await gateway.open_orders(), await gateway.positions()) == ([], [])


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        pytest.param({"side": Side.SELL}, "SHORT_NOT_OFFERED", id="entry-that-sells"),
        pytest.param({"side": Side.SELL, "purpose": Purpose.EXIT}, "SHORT_NOT_OFFERED", id="exit-of-nothing"),
        pytest.param({"purpose": Purpose.EXIT}, "REDUCE_ONLY_NOT_OFFERED", id="exit-that-buys"),
        pytest.param({"order_type": OrderType.LIMIT}, "LIMIT_PRICE_MISSING", id="limit-without-price"),
        pytest.param({"order_type": OrderType.STOP_MARKET}, "TRIGGER_PRICE_MISSING", id="stop-without-trigger"),
        pytest.param({"quantity": D(0)}, "QUANTITY_NOT_POSITIVE", id="nothing"),
        pytest.param({"client_order_id": "no id"}, "CLIENT_ID_NOT_ACCEPTED", id="id"),
    ],
)
async def test_what_spot_cannot_express_is_refused_by_code_before_it_is_sent(tmp_path, asked, code):
    """The code is ours, and no order ever reaches the venue."""
    async with venue(tmp_path) as (sandbox, gateway, _):
        await sandbox.ctl(op="log", on=True)
        with pytest.raises(OrderRefusedError) as refused:
            await gateway.submit(intent(**asked))
        log = (await sandbox.ctl(op="log", on=False))["log"]
        assert refused.value.code == code
        assert [one for one in log if one["method"] == "POST"] == []


async def test_more_than_is_held_is_not_offered_for_sale(tmp_path):
    """An exit of a little more than the account has would go short: it is denied by code before it is sent."""
    async with venue(tmp_path) as (_, gateway, _):
        await gateway.submit(intent())
        with pytest.raises(OrderRefusedError) as refused:
            await gateway.submit(sale(quantity="3"))
        assert refused.value.code == "SHORT_NOT_OFFERED"
        assert (await gateway.submit(sale(quantity="2.997"))).status is OrderStatus.FILLED


async def test_refusals_of_the_venue_carry_codes_that_execution_knows(tmp_path):
    """Too dear, too small, through its trigger: refused, each with a number; an id that rests already is no refusal."""
    async with venue(tmp_path) as (_, gateway, _):
        for asked, code in (
            (intent(quantity=D(900)), -2010),
            (intent(quantity=D("0.001")), -1013),
            (intent(quantity=D("0.00001")), -1013),
        ):
            with pytest.raises(OrderRefusedError) as refused:
                await gateway.submit(asked)
            assert refused.value.code == code
        await gateway.submit(intent())
        trigger = gateway.instruments([COIN])[COIN].round_price((await gateway.quote(COIN)).mid * D("1.1"))
        crossed = sale("qt-a-S1", order_type=OrderType.STOP_MARKET, trigger_price=trigger)
        with pytest.raises(OrderRefusedError) as refused:
            await gateway.submit(crossed)
        assert refused.value.code == -2021
        resting = intent(client_order_id="qt-a-E2", order_type=OrderType.LIMIT, limit_price=D(100))
        await gateway.submit(resting)
        with pytest.raises(OutcomeUnknownError, match="Duplicate"):
            await gateway.submit(resting)


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param({"action": "exec_then_drop"}, id="executed-then-cut-off"),
        pytest.param({"action": "exec_then_status", "status": 503, "body": ""}, id="executed-then-503"),
        pytest.param({"action": "exec_then_truncate"}, id="executed-then-half-an-answer"),
        pytest.param({"action": "status", "status": 200, "body": "<html>busy</html>"}, id="html-with-200"),
        pytest.param({"action": "status", "status": 200, "body": "{}"}, id="empty-object"),
        pytest.param({"action": "status", "status": 502, "body": "bad gateway"}, id="502"),
    ],
)
async def test_hostile_replies_leave_the_outcome_unknown(tmp_path, fault):
    """Whatever the venue answers short of proof, the outcome is unknown, and the query settles it."""
    async with venue(tmp_path) as (sandbox, gateway, _):
        await sandbox.ctl(op="fault", path="/api/v3/order", method="POST", times=1, **fault)
        with pytest.raises(OutcomeUnknownError):
            await gateway.submit(intent())
        found = await gateway.query(intent())
        assert (found is not None) is fault["action"].startswith("exec")
        assert found is None or found.filled == D("2.997")


async def test_rate_limits_skew_garbage_and_wrong_keys_have_their_one_meaning(tmp_path):
    """A moved clock is learned again, garbage is worth another try, a 429 closes the door, a wrong key is the key."""
    async with venue(tmp_path) as (sandbox, gateway, _):
        for body in ("<html>", "{}", ""):
            fault = {"op": "fault", "path": "/api/v3/account", "times": 1, "status": 200, "body": body}
            await sandbox.ctl(**fault)
            with pytest.raises(RetryableError):
                await gateway.wallet()
        await sandbox.ctl(op="skew", ms=600_000)
        assert await gateway.wallet() == 10_000
        await sandbox.ctl(op="skew", ms=0)
        await sandbox.ctl(op="fault", path="/api/v3/account", times=1, status=429, retry_after=600)
        with pytest.raises(RateLimitedError):
            await gateway.wallet()
        assert gateway.closed_seconds > 500
        with pytest.raises(AccountError, match="QT_API_KEY"):
            async with gateway_at(sandbox, secret="wrong"):
                pass


@asynccontextmanager
async def stream_of(gateway, exchange):
    """Follow the account; yield the stream, once it is open, and what it tells."""
    told = SimpleNamespace(reports=[], fills=[], gaps=[])
    stream = account_stream_of(
        gateway,
        exchange,
        on_report=told.reports.append,
        on_fill=told.fills.append,
        on_gap=told.gaps.append,
        monotonic=monotonic,
    )
    assert isinstance(stream, SpotStream)
    following = asyncio.create_task(stream.run())
    try:
        assert await stream.connected(within=30)
        yield stream, told
    finally:
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)


async def until(what, *, within=60.0):
    """Wait for something to become true, or fail."""
    async with asyncio.timeout(within):
        while not what():  # noqa: ASYNC110 - nothing here wakes us
            await asyncio.sleep(0.02)


def last_of(told, key):
    """Return the last report of an order."""
    return next((one for one in reversed(told.reports) if one.client_order_id == key), None)


async def test_the_stream_tells_of_orders_fills_and_cancellations(tmp_path):
    """A purchase, a limit and its cancellation, a stop that fires: each as the query tells it, in our names."""
    assert {Stream.ORDERS, Stream.FILLS, Stream.BALANCE} <= FLAGS.streams
    async with venue(tmp_path) as (sandbox, gateway, exchange), stream_of(gateway, exchange) as (_, told):
        await gateway.submit(intent())
        await until(lambda: told.fills and last_of(told, "qt-a-E1").status is OrderStatus.FILLED)
        assert last_of(told, "qt-a-E1").filled == told.fills[0].quantity == D("2.997")
        assert told.fills == await gateway.fills(COIN, 0) or told.fills[0].client_order_id == "qt-a-E1"
        resting = intent(client_order_id="qt-b-E1", order_type=OrderType.LIMIT, limit_price=D(100))
        await gateway.submit(resting)
        await gateway.cancel(resting)
        await until(lambda: (one := last_of(told, "qt-b-E1")) and one.status is OrderStatus.CANCELED)
        trigger = gateway.instruments([COIN])[COIN].round_price((await gateway.quote(COIN)).mid * D("0.97"))
        stop = sale("qt-a-S1", "2", order_type=OrderType.STOP_MARKET, trigger_price=trigger)
        await gateway.submit(stop)
        await sandbox.ctl(op="price", symbol=NATIVE, factor=0.96)
        await until(lambda: (one := last_of(told, "qt-a-S1")) and one.status is OrderStatus.FILLED)
        fired = last_of(told, "qt-a-S1")
        assert (fired.filled, fired.child_order_id) == (D(2), fired.venue_order_id)
        statuses = [one.status for one in told.reports if one.client_order_id == "qt-a-S1"]
        assert statuses == [OrderStatus.ACCEPTED, OrderStatus.TRIGGERED, OrderStatus.FILLED]
        assert told.fills[-1].venue_order_id == fired.venue_order_id


@pytest.mark.parametrize(
    "harm",
    [{"op": "kill_ws", "hard": True}, {"op": "expire_key"}, {"op": "expire_key", "silent": True}, {"op": "black_hole"}],
    ids=["cut", "ended", "ended-silently", "black-hole"],
)
async def test_a_stream_that_dies_is_opened_again_and_says_that_it_missed_something(tmp_path, harm):
    """However it dies, it is noticed within ten seconds, and what is bought afterwards is told."""
    async with venue(tmp_path) as (sandbox, gateway, exchange), stream_of(gateway, exchange) as (stream, told):
        assert told.gaps == ["the stream was opened"]
        began = monotonic()
        await sandbox.ctl(**harm)
        if harm.get("silent"):
            # A subscription that was forgotten answers pings; what the venue accepted and nobody told gives it away.
            sent = monotonic()
            await gateway.submit(intent(client_order_id="qt-z-E1"))
            stream.expect_event(sent)
        await until(lambda: len(told.gaps) > 1, within=10)
        assert monotonic() - began < 10
        await sandbox.ctl(op="black_hole", on=False)
        await until(lambda: told.gaps.count("the stream was opened") == 2 and stream.is_connected)
        await gateway.sync_clock(afresh=True)
        await gateway.submit(intent())
        await until(lambda: (one := last_of(told, "qt-a-E1")) and one.status is OrderStatus.FILLED)


async def test_candles_of_rest_and_stream_are_spots_own(tmp_path):
    """Candles of one and of many symbols, the book, trades and tickers stream to the client of the gateway."""
    async with venue(tmp_path, speed=60) as (_, gateway, exchange), asyncio.timeout(90):
        await gateway.sync_clock(afresh=True)
        rows = await exchange.fetch_ohlcv(COIN, "5m", limit=5)
        assert len(rows) == 5
        heard = await exchange.watch_ohlcv_for_symbols([[one, "1m"] for one in gateway.tradable_symbols()])
        assert set(heard) <= set(gateway.tradable_symbols())
        assert (await exchange.watch_ohlcv(COIN, "1m"))[-1][4] > 0
        assert (await exchange.watch_order_book(COIN))["bids"]
        assert await exchange.watch_trades(COIN)
        assert COIN in await exchange.watch_tickers([COIN])
        assert {Stream.CANDLES, Stream.CANDLES_OF_MANY, Stream.BOOK, Stream.TRADES, Stream.TICKERS} <= FLAGS.streams
        assert Stream.POSITIONS not in FLAGS.streams
