"""The gateway and a symbol that the venue lists no more."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.venue.errors import OrderRefusedError
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import TimeSample, VenueClock

GONE = "GONE/USDT:USDT"


@pytest.fixture
def gateway() -> CcxtGateway:
    clock = VenueClock(accelerated=False)
    clock.add(TimeSample(sent=0.0, received=0.0, venue_ms=1_750_000_000_000))
    return CcxtGateway(SimpleNamespace(markets={}), clock=clock, monotonic=lambda: 0.0, leverage=3)


@pytest.mark.parametrize("order_type", [OrderType.MARKET, OrderType.STOP_MARKET])
async def test_a_journaled_trade_in_a_delisted_symbol_can_come_to_its_end(gateway, order_type):
    """The venue has no order and no execution in what it does not list, and takes none."""
    intent = OrderIntent(
        client_order_id="qt-a-S1",
        trade_id="a",
        trace_id="",
        symbol=GONE,
        side=Side.SELL,
        order_type=order_type,
        purpose=Purpose.STOP,
        quantity=Decimal(1),
        trigger_price=Decimal(1),
    )

    assert await gateway.query(intent) is None
    assert await gateway.cancel(intent) is None
    assert await gateway.fills(GONE, 0) == []
    with pytest.raises(OrderRefusedError, match=GONE):
        await gateway.submit(intent)


async def test_a_position_in_what_we_cannot_trade_is_not_ours_to_flatten(gateway):
    """A position in a contract that the gateway cannot name, a dated future say, is left alone."""

    async def positions() -> list[dict[str, str]]:
        row = {"positionAmt": "1", "entryPrice": "1", "markPrice": "1"}
        return [row | {"symbol": "BTCUSDT"}, row | {"symbol": "BTCUSDT_261225"}]

    gateway._exchange.fapiPrivateV3GetPositionRisk = positions
    gateway._symbols = {"BTCUSDT": "BTC/USDT:USDT"}

    assert [one.symbol for one in await gateway.positions()] == ["BTC/USDT:USDT"]
