"""Entries that rest in a backtest, price by price: what fills them, what it costs, and what becomes of the rest."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal

import numpy as np
import pytest

from feature_store.errors import BadInputError
from flows.backtest_asked import Asked
from flows.replay.fast import FastEngine
from flows.replay.market import ScoredMarket, VenueCosts
from flows.replay.outcome import BacktestRun
from flows.replay.word import replay
from flows.settings import FlowSettings
from inference.domain.policy import EntryStyle, Policy
from infra.prove.backtest_market import make_market

BALANCE = Decimal(10_000)
PRICE = 100_000
# A spread of one basis point: the best bid is five ticks below.
BID = PRICE - 5
ROW = 10
ENGINES = {
    "word": lambda market, policy: replay(market, policy, balance=BALANCE),
    "fast": lambda market, policy: FastEngine(market).run(policy, balance=BALANCE),
}


def one_entry(opened: int, high: int, low: int, close: int) -> ScoredMarket:
    """Return a market that stands still, but for one candle, at whose open a long is decided."""
    made = make_market(symbols=1, candles=16, seed=1)
    prices = np.full(made.prices.shape, PRICE, np.int64)
    prices[ROW, 0] = opened, high, low, close
    prices[ROW + 1 :] = close
    expected, rising = np.full((2, *made.atr.shape), np.nan)
    expected[ROW - 1], rising[ROW - 1] = 0.02, 0.9
    reach = np.full(made.atr.shape, 0.01 * PRICE * float(made.instruments[0].tick))
    return replace(made, prices=prices, atr=reach, expected_return=expected, probability_up=rising)


def policy(style: EntryStyle, patience: int = 200) -> Policy:
    return Policy(entry_style=style, entry_patience_seconds=patience)


def entered(run: BacktestRun, market: ScoredMarket) -> tuple[int, int]:
    """Return at which price in ticks, and how many seconds after the close, the one trade was entered."""
    (trade,) = run.trades
    return (
        int(trade.entry_price / market.instruments[0].tick),
        (trade.opened_ms - int(market.open_time_ms[ROW])) // 1000,
    )


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("style", [EntryStyle.LIMIT, EntryStyle.POST_ONLY])
def test_what_is_traded_through_fills_at_its_own_price(style, engine):
    """A price one tick beyond the limit fills it there, never better, for the fee of a maker."""
    market = one_entry(PRICE, PRICE + 50, BID - 1, PRICE)

    run = ENGINES[engine](market, policy(style))

    assert entered(run, market) == (BID, 100)
    (trade,) = run.trades
    maker, taker = trade.entry_price * Decimal("0.0002"), trade.exit_price * Decimal("0.0005")
    assert trade.fees == pytest.approx(trade.quantity * (maker + taker), abs=Decimal("1e-7"))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_touch_fills_nothing_and_the_time_out_takes(engine):
    """Where prices only touch the limit it takes at market once its time is over; post-only gives up."""
    market = one_entry(PRICE, PRICE + 50, BID, PRICE)

    taken = ENGINES[engine](market, policy(EntryStyle.LIMIT, patience=105))
    given_up = ENGINES[engine](market, policy(EntryStyle.POST_ONLY, patience=105))

    price, after_s = entered(taken, market)
    # The time is over between two prices, and noticed at the later one.
    assert after_s == 110
    assert price > BID
    assert given_up.trades == ()
    assert given_up.approved == 1


@pytest.mark.parametrize("engine", ENGINES)
def test_post_only_follows_a_price_that_leaves(engine):
    """It moves up with the best bid and fills where the price comes back through it; a limit stays and takes."""
    market = one_entry(PRICE, PRICE + 100, PRICE - 150, PRICE)

    followed = entered(ENGINES[engine](market, policy(EntryStyle.POST_ONLY, 250)), market)
    stayed = entered(ENGINES[engine](market, policy(EntryStyle.LIMIT, 50)), market)

    # Up to step ten, then down.
    assert followed[0] > BID
    assert followed[1] == 110
    assert stayed[1] == 50
    assert stayed[0] > PRICE


@pytest.mark.parametrize("engine", ENGINES)
def test_post_only_follows_no_price_beyond_its_target(engine):
    """A price that ran through the target and came back fills the order where it was before the target."""
    market = one_entry(PRICE, PRICE + 600, PRICE - 600, PRICE - 550)
    target = Decimal("0.4")

    run = ENGINES[engine](market, replace(policy(EntryStyle.POST_ONLY, 250), target_atr_multiple=target))

    price, _ = entered(run, market)
    reach = float(target) * market.atr[ROW - 1, 0] / float(market.instruments[0].tick)
    assert BID < price < PRICE + reach


@pytest.mark.parametrize(
    ("rules", "spread", "found"),
    [
        pytest.param(policy(EntryStyle.LIMIT, 291), "1", "entry_patience_seconds 291 .*choose 290", id="beyond-candle"),
        pytest.param(policy(EntryStyle.POST_ONLY, 30), "0", "entry_style post_only needs a spread", id="no-spread"),
    ],
)
def test_what_the_compiled_engine_cannot_tell_it_refuses(rules, spread, found):
    """It names what to choose instead; the matching engine replays the same."""
    market = make_market(symbols=2, candles=60, seed=2)
    costs = VenueCosts(spread_bps=Decimal(spread))

    with pytest.raises(BadInputError, match=found):
        FastEngine(market).run(rules, balance=BALANCE, costs=costs)

    run = replay(market, rules, balance=BALANCE, costs=costs)
    assert run.approved > 0
    assert run.liquidated_ms is None


def test_an_entry_may_rest_beyond_its_candle_but_not_beyond_its_approval():
    """With an hour of patience it fills at the open of the next candle at the latest, or never."""
    market = one_entry(PRICE, PRICE + 50, BID, PRICE)
    prices = market.prices.copy()
    gapped, later = prices.copy(), prices.copy()
    gapped[ROW + 1 :, 0] = BID - 20
    later[ROW + 2 :, 0] = BID - 20

    at_open = replay(replace(market, prices=gapped), policy(EntryStyle.LIMIT, 3600), balance=BALANCE)
    never = replay(replace(market, prices=later), policy(EntryStyle.LIMIT, 3600), balance=BALANCE)

    assert entered(at_open, market) == (BID, 300)
    assert never.trades == ()


@pytest.mark.parametrize("fee", ["-0.1", "1", "NaN", "two"])
def test_a_fee_that_no_venue_has_is_refused(fee):
    """What is no fee is told by its option or its name, before anything is replayed."""
    with pytest.raises(BadInputError, match="maker"):
        Asked.of(FlowSettings.of(), maker_fee=fee)
