"""The compiled exits do, in ticks and steps, what the brain does in decimals: candle by candle, fill by fill."""

from __future__ import annotations

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from flows.replay import compiled_exits as twin
from inference.domain.exit_state import CandleClosed, ExitCause, ExitState
from inference.exits.brain import break_even_price, levels, opened, step
from inference.exits.intrabar import candle_exits
from inference.exits.parts import parts_of
from tests.exit_support import candles, entries, in_prices, profiles, trades

CAUSES = {None: 0, **{cause: number for number, cause in enumerate(ExitCause, 1)}}


def _opened(profile, trade):
    """Return the exits of a trade as the compiled engine holds them, whether they are usable, its rules and range."""
    rules = twin.exit_rules(
        profile, fee=trade.fee, timeframe_ms=trade.timeframe_ms, horizon_candles=trade.horizon_candles
    )
    tick = trade.instrument.price_tick
    reach = float(trade.atr / tick)
    exits = np.zeros((1, twin.EXIT_COLUMNS), np.int64)
    liquidation = float((trade.liquidation_price or 0) / tick)
    usable = twin.open_exits(
        0, exits, trade.sign, int(trade.reference_price / tick), reach, liquidation, trade.planned_ms, rules
    )
    return exits, usable, rules, reach


def _hold(exits, entry, trade, rules, reach):
    traded = trade.instrument
    steps = int(entry.entered / traded.quantity_step)
    worth = int(entry.cost / traded.quantity_step / traded.price_tick)
    value = int(traded.price_tick * traded.quantity_step * 10**8)
    twin.hold(0, exits, steps, worth, reach, value, int(traded.min_notional * 10**8), rules)
    return steps, worth


def _as_ticks(state: ExitState) -> tuple[int, ...]:
    traded = state.facts.instrument
    return (
        int(state.stop_price / traded.price_tick),
        CAUSES[state.stop_cause],
        int(state.best_close / traded.price_tick),
        int(state.open_quantity / traded.quantity_step),
        state.reached,
        state.until_ms,
        CAUSES[state.closing],
    )


def _remembered(exits) -> tuple[int, ...]:
    columns = (twin.X_STOP, twin.X_CAUSE, twin.X_BEST, twin.X_LEFT, twin.X_REACHED, twin.X_UNTIL, twin.X_CLOSING)
    return tuple(int(exits[0, column]) for column in columns)


def _check_alike(profile, trade, entry, rows, missing=()):
    exits, usable, rules, reach = _opened(profile, trade)
    given_levels = levels(profile, trade)
    assert usable == (given_levels is not None)
    assume(usable)
    state, _ = step(profile, opened(profile, trade), entry)
    _hold(exits, entry, trade, rules, reach)
    assert _remembered(exits) == _as_ticks(state)
    traded = trade.instrument
    fills = np.zeros((twin.MOST_FILLS, twin.FILL_COLUMNS), np.int64)
    for number, (row, prices) in enumerate(zip(rows, in_prices(rows, trade), strict=True)):
        if number in missing:
            twin.candle_closed(0, exits, reach, 0, prices.close_ms, rules)
            state, _ = step(profile, state, CandleClosed(close_ms=prices.close_ms, close=None))
        else:
            count = twin.exit_candle(0, exits, reach, *row, prices.close_ms, fills, rules)
            state, left = candle_exits(profile, state, prices)
            assert [tuple(int(one) for one in fill) for fill in fills[:count]] == [
                (
                    CAUSES[one.cause],
                    int(one.price / traded.price_tick),
                    int(one.quantity / traded.quantity_step),
                    one.moment,
                    one.target,
                )
                for one in left
            ]
        if state.open_quantity == 0:
            assert exits[0, twin.X_LEFT] == 0
            break
        assert _remembered(exits) == _as_ticks(state)


@settings(max_examples=400, deadline=None)
@given(st.data(), st.booleans())
def test_compiled_exits_are_the_brains(data, is_round):
    """Refusals, stops, causes, parts, fills, their order and the state after each candle are the same."""
    profile = data.draw(profiles(is_round=is_round))
    trade = data.draw(trades(is_round=is_round))
    entry, rows = data.draw(entries(trade)), data.draw(candles(wildness=data.draw(st.sampled_from([20, 60, 200]))))
    missing = data.draw(st.sets(st.integers(0, 13), max_size=2))

    _check_alike(profile, trade, entry, rows, missing)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_compiled_parts_are_the_brains(data):
    """What each target takes is the same in steps, dust and minimums included."""
    profile, trade = data.draw(profiles()), data.draw(trades())
    exits, usable, rules, reach = _opened(profile, trade)
    assume(usable)
    entry = data.draw(entries(trade))
    _hold(exits, entry, trade, rules, reach)
    given_levels = levels(profile, trade)
    parts = parts_of(profile, entry.entered, prices=given_levels.target_prices, instrument=trade.instrument)
    found = exits[0, twin.X_PARTS : twin.X_PARTS + rules.targets].tolist()

    assert found == [int(part / trade.instrument.quantity_step) for part in parts]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.integers(1, 80_000_000_000), st.integers(1, 80_000_000_000), st.integers(0, 10**6))
def test_the_compiled_break_even_is_exact(data, ticks, steps, more):
    """However large prices and quantities are, where a close loses nothing is the same tick."""
    profile = data.draw(profiles().filter(lambda one: one.break_even_after > 0))
    trade = data.draw(trades())
    _, usable, rules, _ = _opened(profile, trade)
    assume(usable)
    # Prices as they are, in quantities that a whole number can hold the worth of.
    steps = min(steps, (1 << 62) // ticks)
    worth = ticks * steps + more % steps
    traded = trade.instrument
    quantity = steps * traded.quantity_step
    state = opened(profile, trade)
    held = replace(state.held, entered=quantity, cost=worth * traded.quantity_step * traded.price_tick)
    state = replace(state, held=held)

    assert twin.even_price(trade.sign, steps, worth, rules) * traded.price_tick == break_even_price(profile, state)


def test_the_causes_have_the_brains_order():
    """The compiled numbers of causes are those of `ExitCause`, in its order."""
    numbers = (
        twin.STOP,
        twin.BREAK_EVEN,
        twin.TRAILING_STOP,
        twin.TARGET,
        twin.TIME_STOP,
        twin.LIQUIDATION_BUFFER,
        twin.EMERGENCY,
    )

    assert numbers == tuple(CAUSES[cause] for cause in ExitCause)
