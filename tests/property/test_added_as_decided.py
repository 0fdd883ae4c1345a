"""Added inputs of each row, whatever is corrected or late: those of the candles that were known at its decision."""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.decided_added import inputs_as_decided
from feature_store.extensions.engine import ExtensionEngine
from feature_store.extensions.expansion import Expansion, Known, expand
from feature_store.extensions.view import FeatureView, as_inputs
from feature_store.partitions import Rows
from tests.extension_support import PLAIN_NUMPY, loaded
from tests.feature_support import BTC, ETH, STEP, market, same, without

CANDLES = 400
PAIR = (BTC.symbol, ETH.symbol)
# A gap of more than 64 candles begins both afresh.
BLOCKS = {BTC.symbol: market(CANDLES, seed=5), ETH.symbol: without(market(CANDLES, seed=6), slice(120, 190))}
EXPANSION = Expansion(names=("rsi", "log_return_6"), symbols=(BTC.symbol,), timeframes=(Timeframe.M15,))
EXTENSIONS = loaded(Path(tempfile.mkdtemp()), PLAIN_NUMPY)
VIEW = FeatureView(EXTENSIONS, EXPANSION)

CHANGES = st.lists(
    st.tuples(st.integers(0, CANDLES - 130), st.integers(1, 12), st.integers(0, 90), st.sampled_from((1.01, 0.98))),
    max_size=5,
)
HELD = st.dictionaries(st.integers(0, CANDLES - 130), st.integers(1, 6), max_size=8)


def _stored(block, corrections, held):
    """Return every revision of candles: each known a second after its close, but for those that were held up."""
    known_ms = block.open_time_ms + STEP + 1_000
    for place, candles in held.items():
        known_ms[place % len(block)] += candles * STEP + 7
    parts = [Rows(block, known_ms, np.zeros(len(block), np.int32))]
    for number, (first, count, after, factor) in enumerate(corrections, 1):
        part = block[first : first + count]
        at_ms = int(known_ms[first : first + count].max()) + after * STEP // 3 + number
        revision = np.full(len(part), number, np.int32)
        parts.append(Rows(CandleBlock(part.open_time_ms, part.values * factor), np.full(len(part), at_ms), revision))
    # A lake numbers revisions as they come.
    rows = parts[0].concat(*parts[1:])
    rows = rows.take(np.lexsort((rows.revision, rows.available_at_ms, rows.block.open_time_ms)))
    return Rows(rows.block, rows.available_at_ms, np.arange(len(rows), dtype=np.int32))


def _expected(stored, symbol, place):
    """Return the added inputs of one row from nothing but what was known at its decision."""
    rows = stored[symbol]
    opened = rows.latest().block.open_time_ms
    open_ms, decided_ms = int(opened[place]), int(rows.first_known(opened[place : place + 1])[0])
    own = ExtensionEngine(EXTENSIONS, Timeframe.M5).advance(rows.latest(decided_ms).block.until(open_ms + 1))[-1:]
    known = {}
    for one, revisions in stored.items():
        block = revisions.latest(decided_ms).block
        known[one] = Known(block, revisions.first_known(block.open_time_ms)).taken_in()
    row = CandleBlock(opened[place : place + 1], np.ones((1, 5)))
    others = expand(
        EXPANSION, Timeframe.M5, row, np.array([decided_ms]), own=known[symbol], others={BTC.symbol: known[BTC.symbol]}
    )
    return as_inputs(np.concatenate([own, others], axis=1))[0]


@given(st.tuples(CHANGES, CHANGES), st.tuples(HELD, HELD), st.sampled_from((0, 200)))
@settings(max_examples=15, deadline=None)
def test_each_row_is_of_what_was_known(changes, held, first):
    """With corrections, late candles, a long gap and any start, rows are those of the revisions of their decision."""
    stored = {one: _stored(BLOCKS[one], changes[at], held[at]) for at, one in enumerate(PAIR)}
    start_ms = int(BLOCKS[BTC.symbol].open_time_ms[first])
    for symbol in PAIR:
        opened = stored[symbol].latest().block.open_time_ms
        made = inputs_as_decided(VIEW, symbol, Timeframe.M5, stored, start_ms)
        begin = int(np.searchsorted(opened, start_ms))
        for place in np.linspace(begin, len(opened) - 1, 25).astype(int).tolist():
            assert same(made[place], _expected(stored, symbol, place))


@given(CHANGES, HELD)
@settings(max_examples=15, deadline=None)
def test_beyond_a_bound_rows_are_not_told(changes, held):
    """Where a source would be computed too often, what it says of a row is exact still, or NaN."""
    stored = {one: _stored(BLOCKS[one], changes, held) for one in PAIR}
    heard: dict[int, dict[str, int]] = {512: {}, 0: {}}
    exact, bounded = (
        inputs_as_decided(
            VIEW, ETH.symbol, Timeframe.M5, stored, 0, most_replays=most, given_up=heard[most].__setitem__
        )
        for most in (512, 0)
    )
    told = np.isfinite(bounded)
    lost = (~told & np.isfinite(exact)).any(axis=1).sum()

    assert heard[512] == {}
    # Rows that had no value either way are counted too.
    assert sum(heard[0].values()) >= lost
    assert same(bounded[told], exact[told])
    assert same(bounded[:, :2], exact[:, :2])
    # The last correction comes long before the last candle.
    assert same(bounded[-1], exact[-1])


def test_without_changes_rows_are_those_of_one_pass():
    """Where nothing is late or corrected, the inputs are the view's, to the bit."""
    stored = {one: _stored(block, [], {}) for one, block in BLOCKS.items()}
    known = {one: Known(rows.block, rows.available_at_ms) for one, rows in stored.items()}
    for symbol in PAIR:
        made = inputs_as_decided(VIEW, symbol, Timeframe.M5, stored, 0)
        assert same(made, VIEW.extra_inputs(symbol, Timeframe.M5, known))
