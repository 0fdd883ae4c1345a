from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe, validate
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.features import native
from feature_store.features.live import LiveFeatures
from tests.feature_support import STEP, T0, market, same

SYMBOLS = ("A/USDT:USDT", "B/USDT:USDT", "C/USDT:USDT", "D/USDT:USDT")
LENGTH = 200
numbers = st.one_of(st.floats(allow_nan=True, allow_infinity=True), st.sampled_from([0.0, -1.0, 1.0, 2.0, 1e-300]))


def _equal(left: LiveFeatures, right: LiveFeatures) -> bool:
    return all(
        same(array, right._engines[symbol].state.arrays()[name])
        for symbol in left.symbols
        for name, array in left._engines[symbol].state.arrays().items()
    )


@settings(max_examples=25, deadline=None)
@given(data=st.data())
def test_all_at_once_is_each_by_itself(data):
    """With gaps short and long, repeats, impossible candles and several at once: the same states to the bit."""
    together, alone = LiveFeatures(SYMBOLS), LiveFeatures(SYMBOLS)
    markets = {symbol: market(LENGTH, seed=place) for place, symbol in enumerate(SYMBOLS)}
    at = dict.fromkeys(SYMBOLS, 0)
    for symbol in SYMBOLS:
        first = data.draw(st.integers(0, 120))
        at[symbol] = first
        for live in (together, alone):
            live.advance(symbol, markets[symbol][:first])
    for _ in range(12):
        blocks = {}
        for symbol in data.draw(st.permutations(SYMBOLS))[: data.draw(st.integers(0, 4))]:
            skip, size = (
                data.draw(st.sampled_from([0, 0, 0, 1, 64, 65, -1])),
                data.draw(st.sampled_from([1, 1, 1, 3, 0])),
            )
            begin = min(max(at[symbol] + skip, 0), LENGTH - 3)
            block = markets[symbol][begin : begin + size]
            if size and data.draw(st.integers(0, 9)) == 0:
                block = CandleBlock(block.open_time_ms, -block.values)
            else:
                at[symbol] = max(at[symbol], begin + size)
            blocks[symbol] = block
        found = together.advance_all(blocks)
        assert found.keys() == blocks.keys()
        for symbol, block in blocks.items():
            outcome = found[symbol]
            if isinstance(outcome, BadInputError):
                with pytest.raises(BadInputError, match=re.escape(str(outcome))):
                    alone.advance(symbol, block)
            else:
                assert same(np.ascontiguousarray(outcome), np.ascontiguousarray(alone.advance(symbol, block)))
    assert _equal(together, alone)


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(st.tuples(st.integers(-2, 3), st.integers(0, 1), *[numbers] * 5), min_size=1, max_size=6))
def test_the_kernel_refuses_what_the_written_rules_refuse(rows):
    """A block is refused by the compiled check exactly if `validate` refuses it."""
    times = T0 + np.cumsum([step * STEP + odd for step, odd, *_ in rows])
    block = CandleBlock(times, np.array([row[2:] for row in rows]))
    try:
        validate(block, Timeframe.M5)
        refused = False
    except BadInputError:
        refused = True

    wrong, _ = native.check(block.open_time_ms, block.values, STEP)

    assert (wrong > 0) == refused


@settings(max_examples=200, deadline=None)
@given(odd=st.integers(0, 1), values=st.tuples(*[numbers] * 5))
def test_a_single_candle_is_refused_by_the_same_rules(odd, values):
    """What `advance` refuses, `advance_rows` refuses, and neither changes anything then."""
    live = LiveFeatures(SYMBOLS[:1])
    block = CandleBlock(np.array([T0 + odd]), np.array([values]))
    try:
        validate(block, Timeframe.M5)
        refused = False
    except BadInputError:
        refused = True

    _, taken = live.advance_rows(np.zeros(1, np.int64), block.open_time_ms, block.values)

    assert (taken[0] == -1) == refused
    assert live.continuity(SYMBOLS[0]).candles == int(not refused)


def test_an_unknown_symbol_changes_nothing():
    """One name that is not ours refuses the whole call."""
    live = LiveFeatures(SYMBOLS)

    with pytest.raises(UnknownSymbolError):
        live.advance_all({SYMBOLS[0]: market(1), "E/USDT:USDT": market(1)})

    assert live.last_open_time_ms(SYMBOLS[0]) is None


@pytest.mark.parametrize("place", [-1, 4])
def test_a_place_that_is_not_ours_never_reaches_the_code(place):
    """Machine code has no bounds of its own, so the door in front of it does."""
    block = market(1)

    with pytest.raises(BadInputError, match="places among 4"):
        LiveFeatures(SYMBOLS).advance_rows(np.array([place]), block.open_time_ms, block.values)


def test_no_candles_are_no_work():
    """An empty call answers with nothing."""
    assert LiveFeatures(SYMBOLS).advance_all({}) == {}
