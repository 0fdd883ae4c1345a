"""Features of other symbols and longer timeframes: live equals batch, nothing of the future, nothing too old."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.candle import CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.extensions.expansion import Expansion, Known, LiveExpansion, coarsened, expand
from feature_store.features.definition import INDEX, MODEL_INPUT_NAMES, fingerprint
from feature_store.features.engine import FeatureEngine, model_inputs
from infra.prove.markets import gapped
from tests.feature_support import STEP, T0, market, same, without

BTC, ETH, XRP = "BTC/USDT:USDT", "ETH/USDT:USDT", "XRP/USDT:USDT"
M5, M15, H1 = Timeframe.M5, Timeframe.M15, Timeframe.H1
BOTH = Expansion(names=("candle_body", "log_return_6", "rsi", "close"), symbols=(BTC, ETH), timeframes=(M15, H1))


def _world(seed: int, candles: int) -> dict[str, Known]:
    """Return three series with gaps whose candles arrive late by chance, each series in order."""
    rng = np.random.default_rng(seed)
    world = {}
    for number, symbol in enumerate((BTC, ETH, XRP)):
        block = market(candles, seed=seed + number, price=10.0 ** (number + 1))
        block = gapped(block, seed + number) if number else block
        late = np.where(rng.random(len(block)) < 0.2, rng.integers(0, 4 * STEP, len(block)), rng.integers(0, 900))
        known = np.maximum.accumulate(block.open_time_ms + STEP + late)
        world[symbol] = Known(block, known)
    return world


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 10_000), max_age=st.integers(0, 5), restart=st.booleans())
def test_live_equals_batch_however_candles_arrive(seed, max_age, restart):
    """Candle after candle, each as late as it comes, with a restart: the row of every decision is that of batch."""
    expansion = Expansion(names=BOTH.names, symbols=BOTH.symbols, timeframes=BOTH.timeframes, max_age=max_age)
    world = _world(seed, 420)
    batch = {
        symbol: expand(expansion, M5, one.block, one.known_ms, own=one, others=world) for symbol, one in world.items()
    }
    live = LiveExpansion(expansion, list(world), M5)
    moments = np.unique(np.concatenate([one.known_ms for one in world.values()])).tolist()
    seen, compared = dict.fromkeys(world, 0), 0
    for number, moment in enumerate(moments):
        if restart and number == len(moments) // 2:
            live = LiveExpansion(expansion, list(world), M5)
            for name, one in world.items():
                live.advance(name, one.block[: seen[name]], one.known_ms[: seen[name]])
        arrived = {name: int((one.known_ms <= moment).sum()) for name, one in world.items()}
        fresh = [name for name in world if arrived[name] > seen[name]]
        for name in fresh:
            live.advance(name, world[name].block[seen[name] : arrived[name]], moment)
        # Decided once all that is known at this moment has been taken in, as the worker decides by batches.
        for name in fresh:
            assert same(live.row(name, moment), batch[name][arrived[name] - 1])
            compared += 1
        seen = arrived
    assert seen == {name: len(one.block) for name, one in world.items()}
    assert compared > 500


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), cut=st.floats(0.05, 0.95))
def test_what_comes_later_changes_nothing(seed, cut):
    """Without the candles that arrived after a moment, rows decided by then are the same: no look-ahead."""
    world = _world(seed, 400)
    one = world[XRP]
    whole = expand(BOTH, M5, one.block, one.known_ms, own=one, others=world)
    moment = int(np.quantile(one.known_ms, cut))
    early = {name: Known(_until(each, moment), each.known_ms[each.known_ms <= moment]) for name, each in world.items()}
    mine = early[XRP]
    rows = expand(BOTH, M5, mine.block, mine.known_ms, own=mine, others=early)

    assert same(rows, whole[: len(mine.block)])


def _until(one: Known, moment: int) -> CandleBlock:
    return one.block[: int((one.known_ms <= moment).sum())]


def test_an_hour_is_known_only_after_its_close():
    """The hour's close shows from the candle that closes with the hour on, and stays until the next hour closes."""
    block = market(600, seed=5, start_ms=T0 - T0 % H1.milliseconds)
    expansion = Expansion(names=("close",), timeframes=(H1,), max_age=0)
    own = Known.at_close(block, M5)
    column = expand(expansion, M5, block, own.known_ms, own=own, others={})[:, 0]
    expected = np.full(600, np.nan)
    for row in range(11, 600):
        expected[row] = block.close[row - (row + 1) % 12]

    np.testing.assert_array_equal(column, expected)


def test_a_symbol_that_stands_still_is_known_until_it_is_too_old():
    """The last known value counts for max_age more candles; then there is none, and again when it comes back."""
    block = market(300, seed=6)
    other = without(block, slice(200, 210))
    expansion = Expansion(names=("close",), symbols=(BTC,), max_age=3)
    own = Known.at_close(block, M5)
    column = expand(expansion, M5, block, own.known_ms, own=own, others={BTC: Known.at_close(other, M5)})[:, 0]

    np.testing.assert_array_equal(column[:200], block.close[:200])
    assert (column[200:203] == block.close[199]).all()
    assert np.isnan(column[203:210]).all()
    np.testing.assert_array_equal(column[210:], block.close[210:])


def test_a_candle_that_came_later_than_the_decision_does_not_count():
    """Where BTC's candle arrives after the decision, the decision saw the one before."""
    block = market(100, seed=7)
    decided = block.open_time_ms + STEP + 500
    late = Known(block, np.maximum.accumulate(block.open_time_ms + STEP + np.where(np.arange(100) == 90, 900, 100)))
    expansion = Expansion(names=("close",), symbols=(BTC,), max_age=1)
    column = expand(expansion, M5, block, decided, own=Known.at_close(block, M5), others={BTC: late})[:, 0]

    assert column[90] == block.close[89]
    np.testing.assert_array_equal(np.delete(column, 90), np.delete(block.close, 90))


def test_a_candle_that_came_after_a_later_one_never_counts():
    """The two that overtook it are known as they came, computed without it; nothing waits for it, as live."""
    block = market(100, seed=7)
    closes = block.open_time_ms + STEP
    overtaken = Known(block, closes + np.where(np.arange(100) == 90, 2 * STEP + 1, 0))
    expansion = Expansion(names=("close", "log_return_1"), symbols=(BTC,), max_age=1)
    rows = expand(expansion, M5, block, closes, own=Known.at_close(block, M5), others={BTC: overtaken})
    unseen = FeatureEngine(M5).advance(without(block, slice(90, 91)))

    assert rows[90, 0] == block.close[89]
    np.testing.assert_array_equal(np.delete(rows[:, 0], 90), np.delete(block.close, 90))
    assert rows[91, 1] == model_inputs(unseen)[90, MODEL_INPUT_NAMES.index("log_return_1")]


def test_columns_hold_what_the_engine_says_of_the_others():
    """A column is the other's own feature or model input, to the bit, and the coarser ones those of the coarser."""
    block, other = market(800, seed=8), market(800, seed=9)
    own = Known.at_close(block, M5)
    columns = expand(BOTH, M5, block, own.known_ms, own=own, others={BTC: Known.at_close(other, M5)})
    at = BOTH.columns.index
    features = FeatureEngine(M5).advance(other)
    hours = coarsened(block, H1, whole_from_ms=int(block.open_time_ms[0]))
    of_hours = FeatureEngine(H1).advance(hours)
    rsi = MODEL_INPUT_NAMES.index("rsi")
    ends = np.flatnonzero(np.isin(block.open_time_ms + STEP, hours.open_time_ms + H1.milliseconds))

    assert same(columns[:, at(f"close@{BTC}")], features[:, INDEX["close"]])
    assert same(columns[:, at(f"rsi@{BTC}")], model_inputs(features)[:, rsi].astype(np.float64))
    assert same(columns[ends, at("rsi@1h")], model_inputs(of_hours)[: len(ends), rsi].astype(np.float64))
    assert np.isnan(columns[:, at(f"close@{ETH}")]).all()


def test_coarse_candles_add_up():
    """Open of the first, close of the last, extremes and sum of all; one that began before is left out."""
    block = market(50, seed=10, start_ms=T0 - T0 % H1.milliseconds + 2 * STEP)
    hours = coarsened(block, H1, whole_from_ms=int(block.open_time_ms[0]))
    first = block[10:22]

    assert hours.open_time_ms[0] == first.open_time_ms[0]
    assert hours.values[0].tolist() == [
        first.values[0, 0], first.values[:, 1].max(), first.values[:, 2].min(), first.values[-1, 3],
        sum(first.values[:, 4].tolist()),
    ]  # fmt: skip


def test_columns_are_named_and_fingerprinted():
    """Names say what, whose and of which timeframe; whatever changes a column changes the fingerprint."""
    assert BOTH.columns[:8] == (
        "candle_body@15m", "log_return_6@15m", "rsi@15m", "close@15m",
        "candle_body@1h", "log_return_6@1h", "rsi@1h", "close@1h",
    )  # fmt: skip
    assert BOTH.columns[-1] == "close@ETH/USDT:USDT@1h"
    assert len(BOTH.columns) == 4 * 8
    prints = {
        one.fingerprint()
        for one in (
            BOTH,
            Expansion(names=BOTH.names, symbols=BOTH.symbols, timeframes=BOTH.timeframes, max_age=1),
            Expansion(names=BOTH.names, symbols=BOTH.symbols[::-1], timeframes=BOTH.timeframes),
            Expansion(names=BOTH.names[::-1], symbols=BOTH.symbols, timeframes=BOTH.timeframes),
        )
    }
    assert len(prints) == 4
    assert fingerprint() not in prints


@pytest.mark.parametrize(
    "fields",
    [
        {"names": ()}, {"names": ("nothing",)}, {"names": ("rsi", "rsi")}, {"symbols": (), "timeframes": ()},
        {"symbols": (BTC, BTC)}, {"timeframes": (H1, H1)}, {"max_age": -1}, {"max_age": 10_000},
        {"names": MODEL_INPUT_NAMES, "symbols": tuple(f"S{n}" for n in range(60))},
    ],
)  # fmt: skip
def test_expansions_that_cannot_be_are_refused(fields):
    """No names, unknown or repeated ones, nothing to take them from, or far too many columns."""
    with pytest.raises(BadInputError):
        Expansion(**({"names": ("rsi",), "symbols": (BTC,), "timeframes": (H1,)} | fields))


def test_timeframes_must_be_longer_and_symbols_known():
    """A shorter or equal timeframe cannot be made, and a stranger's candle is not taken in."""
    with pytest.raises(BadInputError, match="cannot be made"):
        LiveExpansion(Expansion(names=("rsi",), timeframes=(M5,)), [BTC], M5)
    with pytest.raises(BadInputError, match="cannot be made"):
        LiveExpansion(Expansion(names=("rsi",), timeframes=(M15,)), [BTC], H1)
    live = LiveExpansion(BOTH, [XRP], M5)
    with pytest.raises(BadInputError, match="not among"):
        live.advance("DOGE/USDT:USDT", market(3, seed=1), 0)
    assert np.isnan(live.row(XRP, 10**15)).all()


def test_moments_must_be_as_many_as_candles():
    """Candles without a moment each cannot be placed in time."""
    with pytest.raises(BadInputError, match="moments"):
        Known(market(3, seed=1), np.zeros(2, np.int64))
