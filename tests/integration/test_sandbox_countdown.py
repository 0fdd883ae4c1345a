"""The venue's own switch: it cancels what a silent client left resting, and nothing that protects."""

from __future__ import annotations

import asyncio
from decimal import Decimal

import pytest

from feature_store.clock import monotonic
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.factory import create_exchange
from inference.domain.order import OrderIntent, OrderStatus, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from tests.sandbox_support import API_KEY, API_SECRET, running_sandbox

BTC = "BTC/USDT:USDT"


def intent(name: str, kind: OrderType, purpose: Purpose, side: Side, **prices: Decimal) -> OrderIntent:
    return OrderIntent(
        client_order_id=name,
        trade_id="a",
        trace_id="t",
        symbol=BTC,
        side=side,
        order_type=kind,
        purpose=purpose,
        quantity=Decimal("0.01"),
        **prices,
    )


async def test_the_countdown_cancels_entries_and_leaves_stops(tmp_path):
    """Renewed it does nothing; once it has run out resting orders are gone, and the stop still stands."""
    async with running_sandbox(symbols=2, speed=1, seed=8, state=tmp_path / "s") as sandbox:
        exchange = create_exchange("sandbox", url=sandbox.url, api_key=API_KEY, api_secret=API_SECRET)
        gateway = CcxtGateway(exchange, clock=VenueClock(accelerated=True), monotonic=monotonic, leverage=3)
        try:
            await gateway.connect()
            assert gateway.has_countdown
            quote = await gateway.quote(BTC)
            assert quote.bid < quote.ask
            tick = gateway.instruments([BTC])[BTC]
            far = tick.round_price(quote.bid * Decimal("0.95"))
            await gateway.submit(intent("qt-a-E1", OrderType.MARKET, Purpose.ENTRY, Side.BUY))
            await gateway.submit(intent("qt-a-S1", OrderType.STOP_MARKET, Purpose.STOP, Side.SELL, trigger_price=far))
            resting = intent("qt-a-E2", OrderType.LIMIT, Purpose.ENTRY, Side.BUY, limit_price=far)
            assert (await gateway.submit(resting)).status is OrderStatus.ACCEPTED

            await gateway.set_countdown(BTC, 1.5)
            await gateway.set_countdown(BTC, 60)
            await asyncio.sleep(2)
            assert len(await gateway.open_orders()) == 2
            await gateway.set_countdown(BTC, 1)
            await gateway.set_countdown(BTC, 0)
            await asyncio.sleep(2)
            assert len(await gateway.open_orders()) == 2

            await gateway.set_countdown(BTC, 1)
            async with asyncio.timeout(20):
                while (found := await gateway.query(resting)).status is not OrderStatus.CANCELED:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            assert found.filled == 0
            assert [one.client_order_id for one in await gateway.open_orders()] == ["qt-a-S1"]

            for query in (
                {"symbol": "BTCUSDT"},
                {"symbol": "BTCUSDT", "countdownTime": "soon"},
                {"symbol": "BTCUSDT", "countdownTime": -1},
                {"symbol": "NOSUCH", "countdownTime": 1000},
            ):
                with pytest.raises(ccxt.ExchangeError):
                    await exchange.fapiPrivatePostCountdownCancelAll(query)
            with pytest.raises(ccxt.ExchangeError, match="-5022"):
                await exchange.fapiPrivatePostOrder(
                    {"symbol": "BTCUSDT", "side": "BUY", "type": "LIMIT", "timeInForce": "GTX", "quantity": "0.01",
                     "price": str(tick.round_price(quote.ask * Decimal("1.01")))}
                )  # fmt: skip
        finally:
            await gateway.close()
