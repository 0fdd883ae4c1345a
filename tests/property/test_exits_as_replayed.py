"""Today's barriers as a profile end every trade of a backtest when and why the engines end it, on any path."""

from __future__ import annotations

from dataclasses import replace as with_fields
from decimal import Decimal

import numpy as np
import pytest
from msgspec.structs import replace

from flows.replay import compiled_exits as twin
from flows.replay.fast import FastEngine
from flows.replay.fills import half_spread
from flows.replay.market import Intrabar, ScoredMarket, VenueCosts
from flows.replay.outcome import END_OF_DATA, BacktestTrade
from flows.replay.ways import holding_way
from inference.domain.exit_profile import ExitProfile, barriers_profile
from inference.domain.exit_state import CandleClosed, ExitCause, ExitState, Held, TradeFacts
from inference.domain.policy import Policy
from inference.exits.brain import opened, step
from inference.exits.intrabar import OPEN, Prices, candle_exits, shown_price
from infra.prove.backtest_market import make_market
from infra.sandbox.engine import path
from tests.exit_support import instrument

D = Decimal
REASONS = {ExitCause.STOP: "STOP", ExitCause.TARGET: "TARGET", ExitCause.TIME_STOP: "TIME_BARRIER"}
POLICIES = {
    "usual": Policy(),
    "tight": Policy(stop_atr_multiple=D("0.5"), target_atr_multiple=D("0.7")),
    "short": Policy(max_holding_candles=2, stop_atr_multiple=D(1), target_atr_multiple=D("1.5")),
}
SPREAD_E4 = 10_000


def _newest(market: ScoredMarket, row: int, place: int) -> int:
    """Return the price in force as a candle opens."""
    if market.open[row, place]:
        return int(market.open[row, place])
    return next(int(one) for one in market.close[:row, place][::-1] if one)


def _facts(market: ScoredMarket, trade: BacktestTrade, row: int, place: int) -> TradeFacts:
    traded = market.instruments[place]
    last, sign = _newest(market, row, place), 1 if trade.direction == "LONG" else -1
    return TradeFacts(
        direction=trade.direction,
        reference_price=traded.price(last + sign * half_spread(last, SPREAD_E4)),
        atr=D(str(float(market.atr[row - 1, place]))),
        instrument=with_fields(instrument(), price_tick=traded.tick, quantity_step=traded.step),
        fee=D("0.0005"),
        timeframe_ms=market.timeframe_ms,
        horizon_candles=12,
        planned_ms=int(market.open_time_ms[row]),
    )


def _prices(market: ScoredMarket, row: int, place: int) -> Prices:
    opens, high, low, close = (market.instruments[place].price(int(one)) for one in market.prices[row, place])
    close_ms = int(market.open_time_ms[row]) + market.timeframe_ms
    return Prices(open=opens, high=high, low=low, close=close, close_ms=close_ms)


def _through(profile: ExitProfile, state: ExitState, market: ScoredMarket, row: int, place: int, intrabar: Intrabar):
    """Show the prices of a candle one by one; return what was left by then, and the first fill with its step."""
    traded = market.instruments[place]
    prices = _prices(market, row, place)
    closing = state.closing
    state, fills = shown_price(profile, replace(state, closing=None), prices.open, OPEN)
    if closing is not None and not fills:
        return None, (closing, 0)
    stop = int(state.stop_price / traded.tick)
    way = holding_way(market, row, place, state.facts.direction, intrabar, stop_ticks=lambda _: stop)
    for number, ticks in [] if fills else way:
        state, fills = shown_price(profile, state, traded.price(ticks), number)
        if fills:
            break
    if fills:
        return None, (fills[0].cause, fills[0].moment)
    return step(profile, state, CandleClosed(close_ms=prices.close_ms, close=prices.close))[0], None


def _ends(profile, state, market, row, place, intrabar):
    """Return when, and why, a position that was entered in a row ends."""
    while row < len(market):
        now_ms = int(market.open_time_ms[row])
        if market.open[row, place]:
            state, end = _through(profile, state, market, row, place, intrabar)
        else:
            end = None if state.closing is None else (state.closing, 0)
            state, _ = step(profile, state, CandleClosed(close_ms=now_ms + market.timeframe_ms, close=None))
        if end is not None:
            return REASONS[end[0]], now_ms + end[1] * path.STEP_MS
        row += 1
    return END_OF_DATA, None


@pytest.mark.parametrize("intrabar", list(Intrabar))
@pytest.mark.parametrize("name", POLICIES)
def test_barriers_as_a_profile_end_each_trade_as_the_engines_do(name, intrabar):
    """Why and when, to the step of a candle, gaps and missing candles included."""
    policy = POLICIES[name]
    market = make_market(symbols=5, candles=200, seed=7, missing=0.02)
    run = FastEngine(market).run(policy, balance=D(10_000), costs=VenueCosts(spread_bps=D(1)), intrabar=intrabar)
    profile = barriers_profile(policy)
    compared = set()
    for trade in run.trades:
        row = int(np.searchsorted(market.open_time_ms, trade.opened_ms))
        place = market.symbols.index(trade.symbol)
        entry = Held(entered=trade.quantity, cost=trade.quantity * trade.entry_price)
        state, _ = step(profile, opened(profile, _facts(market, trade, row, place)), entry)
        reason, closed_ms = _ends(profile, state, market, row, place, intrabar)

        assert reason == trade.reason
        if reason != END_OF_DATA:
            assert closed_ms == trade.closed_ms
            compared.add(reason)

    assert compared >= {"STOP", "TARGET"}
    # Near barriers leave nothing for the time to end.
    assert name == "tight" or "TIME_BARRIER" in compared


def test_the_candle_of_the_oracle_is_the_pessimistic_one():
    """`candle_exits`, and its compiled twin, end what the pessimistic backtest ends, around the price it was shown."""
    policy = POLICIES["short"]
    market = make_market(symbols=5, candles=200, seed=11)
    run = FastEngine(market).run(policy, balance=D(10_000), costs=VenueCosts(spread_bps=D(1)),
                                 intrabar=Intrabar.PESSIMISTIC)  # fmt: skip
    profile = barriers_profile(policy)
    rules = twin.exit_rules(profile, fee=D("0.0005"), timeframe_ms=market.timeframe_ms, horizon_candles=12)
    steps = (0, *path.corners(market.timeframe_ms // path.STEP_MS))
    ended = [one for one in run.trades if one.reason != END_OF_DATA]
    for trade in ended:
        row = int(np.searchsorted(market.open_time_ms, trade.opened_ms))
        place = market.symbols.index(trade.symbol)
        traded = market.instruments[place]
        facts = _facts(market, trade, row, place)
        entry = Held(entered=trade.quantity, cost=trade.quantity * trade.entry_price)
        state, _ = step(profile, opened(profile, facts), entry)
        exits, reach = np.zeros((1, twin.EXIT_COLUMNS), np.int64), float(facts.atr / traded.tick)
        assert twin.open_exits(
            0, exits, facts.sign, int(facts.reference_price / traded.tick), reach, 0.0, facts.planned_ms, rules
        )
        twin.hold(0, exits, int(trade.quantity / traded.step), 1, reach, 1, 0, rules)
        out, count, fills = np.zeros((twin.MOST_FILLS, twin.FILL_COLUMNS), np.int64), 0, ()
        while not fills:
            prices = _prices(market, row, place)
            state, fills = candle_exits(profile, state, prices)
            count = twin.exit_candle(
                0, exits, reach, *(int(one) for one in market.prices[row, place]), prices.close_ms, out, rules
            )
            row += 1
        left = fills[0]

        assert REASONS[left.cause] == trade.reason
        assert left.quantity == trade.quantity
        assert market.open_time_ms[row - 1] + steps[left.moment] * path.STEP_MS == trade.closed_ms
        # The engine fills around it: spread, and further levels of the book.
        assert float(trade.exit_price) == pytest.approx(float(left.price), rel=1e-3)
        assert count == 1
        assert out[0, twin.F_PRICE] * traded.tick == left.price
        assert out[0, twin.F_MOMENT] == left.moment

    assert len(ended) > 50
