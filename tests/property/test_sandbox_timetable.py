"""Halts, maintenance and delistings laid over a market: what trades in them and what candles say."""

from __future__ import annotations

from decimal import Decimal
from functools import lru_cache

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.sandbox.engine import state as states
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.model import OrderRequest, OrderType, Side
from infra.sandbox.market.series import DAY_MS, TICK_MS, candles_between, from_ticks, group, open_times
from infra.sandbox.market.synthetic import SyntheticMarket
from infra.sandbox.market.timetable import TimetabledMarket, end_interruption, interrupt, under_maintenance
from infra.sandbox.venue import Venue

START = 1_767_571_200_000
D = Decimal
INTERVALS = ["1m", "5m", "1h"]


@lru_cache
def synthetic() -> SyntheticMarket:
    """A market of two symbols."""
    return SyntheticMarket(symbols=2, seed=7, edge=0.3, start_ms=START, history_days=1)


def opened() -> Venue:
    """A venue at its first tick, with an account."""
    source, state = synthetic(), states.new_state(D(10_000))
    market = TimetabledMarket(source, state)
    venue = Venue(market, Exchange(market.instruments, state), 7)
    venue.begin(START)
    return venue


@given(
    start=st.integers(0, 3 * 3_600_000),
    length=st.integers(1, 2 * 3_600_000) | st.none(),
    symbol=st.sampled_from(["", "BTCUSDT", "ETHUSDT"]),
    interval=st.sampled_from(INTERVALS),
)
@settings(max_examples=80, deadline=None)
def test_candles_are_made_of_the_ticks_that_are_left(start, length, symbol, interval):
    """Whatever is interrupted, every candle is what its remaining ticks say, and none is without a tick."""
    state = states.new_state(D(1))
    market = TimetabledMarket(synthetic(), state)
    from_ms = START + start + 1
    until = None if length is None else from_ms + length
    interrupt(state, symbol, from_ms=from_ms, to_ms=until)
    end = START + 6 * 3_600_000
    for index, instrument in enumerate(market.instruments):
        found = candles_between(market, index, interval, START, end, now_ms=end - 1)
        ticks = from_ticks(market, index, START, end)
        expected = group(ticks, open_times(interval, ticks.open_time))
        for name in ("open_time", "open", "high", "low", "close", "volume", "trades"):
            assert np.array_equal(getattr(found, name), getattr(expected, name)), name
        hit = symbol in {"", instrument.symbol}
        inside = (ticks.open_time >= from_ms) & (ticks.open_time < (until or end))
        assert not (hit and inside.any())
        source = from_ticks(synthetic(), index, START, end)
        kept = (source.open_time < from_ms) | (source.open_time >= (until or end)) | (not hit)
        assert np.array_equal(ticks.open_time, source.open_time[kept])
        assert np.array_equal(ticks.close, source.close[kept])


@given(steps=st.lists(st.tuples(st.sampled_from(["halt", "go", "wait"]), st.integers(1, 40)), min_size=1, max_size=12))
@settings(max_examples=60, deadline=None)
def test_the_past_is_never_rewritten(steps):
    """Halting and going on again, in whatever order, changes no candle that was closed before."""
    state = states.new_state(D(1))
    market = TimetabledMarket(synthetic(), state)
    now, seen = START, {}
    for what, ticks in steps:
        if what == "halt":
            interrupt(state, "BTCUSDT", from_ms=now + 1)
        elif what == "go":
            end_interruption(state, "BTCUSDT", at_ms=now + 1)
        known = candles_between(market, 0, "1m", START, now - now % 60_000, now_ms=now)
        told = dict(zip(known.open_time.tolist(), known.close.tolist(), strict=True))
        assert {at: told.get(at) for at in seen} == seen
        seen = told
        now += ticks * TICK_MS
    assert sum(1 for one in state.interruptions if one.to_ms is None) <= 1


def test_a_market_without_interruptions_is_the_same_market():
    """Nothing is copied or changed where nothing was halted."""
    market = TimetabledMarket(synthetic(), states.new_state(D(1)))

    assert market.ticks(START // DAY_MS) is synthetic().ticks(START // DAY_MS)
    assert market.is_trading(0, START)


def test_nothing_fills_or_triggers_in_a_halt():
    """The price of a halted symbol stands still, its resting orders wait, and both go on afterwards."""
    venue = opened()
    venue.touch("BTCUSDT")
    exchange = venue.exchange
    last = venue.last_price("BTCUSDT")
    tick = venue.instrument("BTCUSDT").tick
    for side in Side:
        price = (last * (1 - side.sign * D("0.0005"))).quantize(tick)
        exchange.submit(OrderRequest("BTCUSDT", side, OrderType.LIMIT, D("0.01"), price=price), now_ms=START)
    interrupt(exchange.state, "BTCUSDT", from_ms=venue.ticked_ms + 1)
    venue.advance(START + 6 * 3_600_000, wall_ms=0)

    assert len(exchange.open_orders()) == 2
    assert venue.last_price("BTCUSDT") == last
    assert venue.status("BTCUSDT", venue.ticked_ms) == "BREAK"
    assert venue.status("ETHUSDT", venue.ticked_ms) == "TRADING"
    end_interruption(exchange.state, "BTCUSDT", at_ms=venue.ticked_ms + 1)
    venue.advance(START + 18 * 3_600_000, wall_ms=0)
    assert venue.last_price("BTCUSDT") != last
    assert len(exchange.open_orders()) < 2


def test_maintenance_begins_at_once_and_ends_by_itself():
    """From the moment it is asked for until it is over the venue is shut, at no other time."""
    venue = opened()
    now = venue.ticked_ms
    interrupt(venue.exchange.state, "", from_ms=now + 1, to_ms=now + 60_001)

    assert [under_maintenance(venue.exchange.state, now + at) for at in (0, 30_000, 59_999, 60_000)] == [
        True, True, True, False,
    ]  # fmt: skip
    assert not venue.is_trading("BTCUSDT", now)
    assert venue.is_trading("BTCUSDT", now + 60_000)


def test_a_delisted_symbol_is_settled_at_the_average_of_its_last_hour():
    """At the announced time, once, at the mean of the hour's prices; then there is no candle any more."""
    venue = opened()
    venue.touch("BTCUSDT")
    exchange = venue.exchange
    exchange.submit(OrderRequest("BTCUSDT", Side.BUY, OrderType.MARKET, D("0.01")), now_ms=START)
    at = START + 2 * 3_600_000 + 1
    exchange.state.delistings["BTCUSDT"] = at
    venue.advance(at + DAY_MS // 4, wall_ms=0)
    settlement = exchange.state.trades[-1]
    hour = from_ticks(synthetic(), venue.index["BTCUSDT"], at - 3_600_000, at).close
    unit = venue.instrument("BTCUSDT")

    assert settlement.client_order_id.startswith("settlement_autoclose-")
    assert len(exchange.state.trades) == 2
    assert abs(settlement.price - unit.price(int(hour.sum())) / len(hour)) <= unit.tick
    assert exchange.state.open_positions() == []
    assert venue.status("BTCUSDT", venue.ticked_ms) == "CLOSE"
    after = candles_between(venue.market, venue.index["BTCUSDT"], "1m", at, at + DAY_MS // 4, now_ms=venue.ticked_ms)
    assert len(after) == 0


def test_a_saved_timetable_is_read_back():
    """Interruptions, delistings and what was settled survive a restart with the account."""
    state = states.new_state(D(1))
    interrupt(state, "BTCUSDT", from_ms=5)
    interrupt(state, "", from_ms=7, to_ms=9)
    state.delistings["ETHUSDT"] = 11
    state.settled.add("ETHUSDT")

    assert states.decode(states.encode(state)) == state


def test_funding_is_settled_at_the_boundaries_of_each_symbol():
    """In a day, a symbol of one hour pays 24 times, one of eight hours three times, on the mark of the moment."""
    source, state = synthetic(), states.new_state(D(100_000))
    market = TimetabledMarket(source, state, funding_hours={"BTCUSDT": 1})
    venue = Venue(market, Exchange(market.instruments, state), 7)
    venue.begin(START)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        venue.touch(symbol)
        venue.exchange.submit(OrderRequest(symbol, Side.BUY, OrderType.MARKET, D("0.1")), now_ms=START)
    venue.advance(START + DAY_MS, wall_ms=0)
    paid = [one for one in state.incomes if one.kind == "FUNDING_FEE"]

    assert {s: sum(one.symbol == s for one in paid) for s in ("BTCUSDT", "ETHUSDT")} == {"BTCUSDT": 24, "ETHUSDT": 3}
    assert all(one.time_ms % 3_600_000 == 0 for one in paid)
