"""Mark and last price part, as ccxt sees it: what triggers on one, what is liquidated by the other."""

from __future__ import annotations

from contextlib import asynccontextmanager

import ccxt.async_support as ccxt
import pytest

from infra.prove.own_venue import own_venue
from infra.sandbox.faults import FaultError
from tests.sandbox_support import ccxt_options, point

COIN, NATIVE = "SOL/USDT:USDT", "SOLUSDT"


@asynccontextmanager
async def holding(*, isolated: bool = False):
    """Start a venue whose time stands still, and buy something there."""
    async with own_venue(symbols=("BTCUSDT", NATIVE)) as venue:
        exchange = point(ccxt.binanceusdm(ccxt_options() | {"enableRateLimit": False}), venue.url)
        try:
            await exchange.load_markets()
            await venue.do(op="stand_still")
            await exchange.set_leverage(10 if isolated else 3, COIN)
            if isolated:
                await exchange.set_margin_mode("isolated", COIN)
            await exchange.create_order(COIN, "market", "buy", 10)
            yield venue, exchange
        finally:
            await exchange.close()


async def stop(exchange, factor: float, working_type: str) -> str:
    """Place a stop below the price, triggered by last or mark price."""
    last = (await exchange.fetch_ticker(COIN))["last"]
    given = {
        "stopLossPrice": exchange.price_to_precision(COIN, last * factor),
        "reduceOnly": True,
        "workingType": working_type,
    }
    return (await exchange.create_order(COIN, "market", "sell", 1, None, given))["id"]


async def statuses(exchange, *ids: str) -> list[str]:
    """Return what has become of conditional orders."""
    return [(await exchange.fetch_order(one, COIN, {"trigger": True}))["info"]["algoStatus"] for one in ids]


async def test_a_wick_fires_a_stop_on_the_last_price_and_none_on_the_mark():
    """One trade far away moves the last price alone; that which the mark follows too fires both."""
    async with holding() as (venue, exchange):
        by_last, by_mark = await stop(exchange, 0.97, "CONTRACT_PRICE"), await stop(exchange, 0.97, "MARK_PRICE")
        await venue.do(op="price", symbol=NATIVE, factor=0.95)
        assert await statuses(exchange, by_last, by_mark) == ["FINISHED", "NEW"]

        await venue.do(op="price", symbol=NATIVE, factor=0.95, also_mark=True)

        assert await statuses(exchange, by_last, by_mark) == ["FINISHED", "FINISHED"]


async def test_a_mark_that_is_pulled_away_is_told_everywhere_and_ends_with_the_intervention():
    """Premium index, position and profit follow it; the last price and the candles do not."""
    async with holding() as (venue, exchange):
        last = (await exchange.fetch_ticker(COIN))["last"]
        await venue.do(op="mark", symbol=NATIVE, factor=0.9)
        (position,) = await exchange.fetch_positions([COIN])
        rate = await exchange.fetch_funding_rate(COIN)

        assert position["markPrice"] == pytest.approx(last * 0.9)
        assert position["unrealizedPnl"] == pytest.approx((last * 0.9 - position["entryPrice"]) * 10, rel=1e-6)
        assert (rate["markPrice"], rate["indexPrice"]) == (pytest.approx(last * 0.9), pytest.approx(last))
        assert (await exchange.fetch_ticker(COIN))["last"] == last

        await venue.do(op="mark", symbol=NATIVE, on=False)
        (position,) = await exchange.fetch_positions([COIN])
        assert position["markPrice"] == pytest.approx(last)


async def test_the_mark_liquidates_and_a_wick_of_the_last_price_does_not():
    """At ten times leverage a fall of three tenths ends an isolated position, if it is the mark that falls."""
    async with holding(isolated=True) as (venue, exchange):
        await venue.do(op="price", symbol=NATIVE, factor=0.7)
        assert len(await exchange.fetch_positions([COIN])) == 1

        await venue.do(op="mark", factor=0.7)
        await venue.do(op="advance", for_s=60)

        assert await exchange.fetch_positions([COIN]) == []
        assert (await exchange.fapiPrivateGetForceOrders({"symbol": NATIVE}))[0]["side"] == "SELL"


@pytest.mark.parametrize("told", [{"factor": 0}, {"factor": "much"}, {"symbol": "NOSUCH", "factor": 1.1}, {"on": 3}])
async def test_a_mark_that_makes_no_sense_is_refused(told):
    """Nothing is pulled away by what is no factor."""
    async with own_venue() as venue:
        with pytest.raises(FaultError):
            await venue.do(op="mark", **told)
        assert venue.sandbox.venue.exchange.state.mark_factors == {}
