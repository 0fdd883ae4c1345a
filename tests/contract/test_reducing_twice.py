"""What a second stop or exit beside one in doubt rests on: of two orders that only reduce, none turns a position."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import pytest

from feature_store.clock import monotonic
from feature_store.venue.errors import AccountError, OrderRefusedError
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.gateways import gateway_of
from inference.exchange.venue_clock import VenueClock
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

BTC = "BTC/USDT:USDT"
VENUES = ["sandbox", "sandbox-bitfinex"]
QUANTITY = Decimal("0.01")
ENTRY = OrderIntent(
    client_order_id="qt-a-E1",
    trade_id="a",
    trace_id="",
    symbol=BTC,
    side=Side.BUY,
    order_type=OrderType.MARKET,
    purpose=Purpose.ENTRY,
    quantity=QUANTITY,
)
EXIT = replace(ENTRY, client_order_id="qt-a-X1", purpose=Purpose.EXIT, side=Side.SELL)


async def connected(sandbox, venue):
    """Return a gateway of a venue's front."""
    exchange = create_exchange(venue, url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
    gateway = gateway_of(venue, exchange, clock=VenueClock(accelerated=False), monotonic=monotonic, leverage=3)
    try:
        await gateway.connect()
    except BaseException:
        await gateway.close()
        raise
    return gateway


async def held(gateway):
    """Return what is held of the one symbol."""
    return sum((one.signed_quantity for one in await gateway.positions()), Decimal(0))


@pytest.mark.parametrize("venue", VENUES)
async def test_a_second_exit_of_the_whole_finds_nothing_to_reduce(tmp_path, venue):
    """The first one flattens; the second is refused, with the code that execution knows, and opens nothing."""
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox:
        gateway = await connected(sandbox, venue)
        try:
            await gateway.submit(ENTRY)
            await gateway.submit(EXIT)
            assert await held(gateway) == 0
            with pytest.raises(OrderRefusedError) as refused:
                await gateway.submit(replace(EXIT, client_order_id="qt-a-X2"))
            assert str(refused.value.code) == "-2022"
            assert await held(gateway) == 0
        finally:
            await gateway.close()


@pytest.mark.parametrize("venue", VENUES)
async def test_two_stops_for_the_whole_rest_side_by_side_and_close_it_once(tmp_path, venue):
    """Both are taken; where the price goes through both, the position is closed, not turned over."""
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox:
        gateway = await connected(sandbox, venue)
        try:
            await gateway.submit(ENTRY)
            trigger = ((await gateway.quote(BTC)).mid * Decimal("0.95")).quantize(Decimal(1))
            stop = replace(
                ENTRY, purpose=Purpose.STOP, side=Side.SELL, order_type=OrderType.STOP_MARKET, trigger_price=trigger
            )
            stops = [replace(stop, client_order_id=f"qt-a-S{attempt}") for attempt in (1, 2)]
            for one in stops:
                assert (await gateway.submit(one)).status is OrderStatus.ACCEPTED
            assert len(await gateway.open_orders()) == 2
            await sandbox.ctl(op="price", symbol="BTCUSDT", factor=0.9)
            filled = [report.filled for one in stops if (report := await gateway.query(one)) is not None]
            assert sum(filled, Decimal(0)) == QUANTITY
            assert await held(gateway) == 0
        finally:
            await gateway.close()


async def test_an_account_that_does_not_net_is_not_traded(tmp_path):
    """In hedge mode a second exit would need another flag: there is no connection to such an account."""
    async with running_sandbox(symbols=1, speed=1, state=tmp_path / "state") as sandbox:
        exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
        try:
            await exchange.load_time_difference()
            await exchange.fapiPrivatePostPositionSideDual({"dualSidePosition": "true"})
        finally:
            await exchange.close()
        with pytest.raises(AccountError, match="hedge mode"):
            await connected(sandbox, "sandbox")
