"""Margin at the Bitfinex front as its users know it: a position has collateral of its own, by its order's leverage."""

from __future__ import annotations

import ccxt
import pytest

from tests.contract.test_bitfinex_ccxt import COIN, client
from tests.sandbox_support import ccxt_options, point, running_sandbox


async def test_a_position_has_collateral_of_its_own_that_its_holder_sets():
    """Notional by leverage; more and less by hand, never more than the wallet has or less than the position needs."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        await exchange.create_order(COIN, "market", "buy", 10, None, {"lev": 5})
        (position,) = await exchange.fetch_positions()
        needed = position["entryPrice"] * 10 / 5
        (wallet,) = await exchange.privatePostAuthRWallets()
        for wanted in (needed + 100, needed + 50, needed + 50):
            assert (await exchange.set_margin(COIN, wanted))["status"] == "ok"
            (changed,) = await exchange.fetch_positions()
            assert changed["collateral"] == pytest.approx(wanted, rel=1e-6)
        (after,) = await exchange.privatePostAuthRWallets()
        for symbol, wanted in ((COIN, needed * 0.5), (COIN, 1e7), (COIN, 0), (COIN, -1), ("ETH/USDT:USDT", 10)):
            with pytest.raises(ccxt.ExchangeError, match="collateral"):
                await exchange.set_margin(symbol, wanted)
        for body in ({}, {"symbol": ["x"], "collateral": 1}, {"symbol": "tSOLF0:USTF0", "collateral": "1e99"}):
            with pytest.raises(ccxt.BaseError, match="invalid"):
                await exchange.privatePostAuthWDerivCollateralSet(body)

    assert (position["marginMode"], position["leverage"]) == ("isolated", 5.0)
    assert position["collateral"] == pytest.approx(needed)
    # What is bound is still the account's; what is free is less by what was added.
    assert after[2] == wallet[2]
    assert wallet[4] - after[4] == pytest.approx(50, abs=1.0)


async def test_a_refused_order_leaves_margin_and_leverage_as_they_were():
    """Too large, or with a leverage that there is not: nothing of it stays."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        theirs = point(ccxt.async_support.binanceusdm(ccxt_options()), sandbox.url)
        try:
            for lev, amount in ((5, 1e6), (101, 1), (0, 1), (7, 0)):
                with pytest.raises(ccxt.BaseError):
                    await exchange.create_order(COIN, "market", "buy", amount or 1e-9, None, {"lev": lev})
            found = await theirs.fetch_leverage(COIN)
        finally:
            await theirs.close()

    assert (found["marginMode"], found["longLeverage"]) == ("cross", 20)


async def test_a_position_of_the_other_front_goes_on_as_it_is():
    """What shares the wallet there shares it here too, and has no collateral that could be set."""
    async with running_sandbox(symbols=3, history_days=2, speed=1) as sandbox, client(sandbox.url) as exchange:
        theirs = point(ccxt.async_support.binanceusdm(ccxt_options()), sandbox.url)
        try:
            await theirs.create_order(COIN, "market", "buy", 10)
            await exchange.create_order(COIN, "market", "buy", 1, None, {"lev": 20})
            mode = (await theirs.fetch_leverage(COIN))["marginMode"]
        finally:
            await theirs.close()
        (position,) = await exchange.fetch_positions()
        with pytest.raises(ccxt.ExchangeError, match="collateral"):
            await exchange.set_margin(COIN, 100)

    assert mode == "cross"
    assert float(position["info"][2]) == 11.0
    assert position["collateral"] == pytest.approx(position["entryPrice"] * 11 / 20, rel=0.01)
