"""Which candles are held to be none that a market has made: what real markets do is never among them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import CLOSE, CandleBlock, Timeframe
from feature_store.features.definition import TAIL
from inference.feed.plausible import BELIEVED_AFTER, MOST_TRADED, PRICE_TIMES, VOLUME_TIMES, sift
from inference.feed.recent import RecentCandles

STEP = 300_000
NOTHING = np.empty((0, 5))


def block_of(closes: list[float], volumes: list[float]) -> CandleBlock:
    return CandleBlock.from_rows(
        [[n * STEP, c, c, c, c, v] for n, (c, v) in enumerate(zip(closes, volumes, strict=True))]
    )


moves = st.lists(st.tuples(st.floats(0.02, 50.0), st.floats(1.0, 9_000.0)), min_size=1, max_size=150)


@given(moves)
def test_what_markets_have_ever_done_is_taken(drawn):
    """Closes that move fiftyfold and volumes ninethousandfold are beyond any seen, and none is refused."""
    closes = np.clip(np.cumprod([move for move, _ in drawn]), 1e-6, 1e6)
    block = block_of(closes.tolist(), [volume for _, volume in drawn][: len(closes)])

    assert sift(NOTHING, block).block is block


@given(st.integers(TAIL, 120), st.integers(0, 5), st.sampled_from(["volume", "up", "down", "any market"]))
def test_one_absurd_candle_is_left_out_and_no_other(length, back, kind):
    """Wherever it stands behind a full window, exactly it is refused, in one block or candle by candle."""
    closes, volumes = [100.0] * (length + 6), [2.0] * (length + 6)
    at = length + back
    if kind == "volume":
        volumes[at] = 2 * VOLUME_TIMES * 1.01
    elif kind == "any market":
        volumes[at] = MOST_TRADED
    else:
        closes[at] *= PRICE_TIMES * 1.01 if kind == "up" else 0.99 / PRICE_TIMES
    block = block_of(closes, volumes)
    whole = sift(NOTHING, block)
    taken, in_a_row, refused = CandleBlock.empty(), 0, {}
    for place in range(len(block)):
        one = sift(taken.values[-TAIL:], block[place : place + 1], refused_before=in_a_row)
        taken, refused = taken.concat(one.block), refused | dict(one.refused)
        in_a_row = 0 if len(one.block) else in_a_row + 1

    assert list(whole.refused) == [at * STEP]
    assert bool(whole.newest) == (at == len(block) - 1)
    assert refused == whole.refused
    assert taken.equals(whole.block)


def test_a_new_level_is_believed_once_it_stays():
    """After a redenomination eleven candles are refused and the twelfth is taken, then all; absurd ones never are."""
    level = sift(NOTHING, block_of([1.0] * 70 + [1000.0] * 20, [1.0] * 90))
    never = sift(NOTHING, block_of([1.0] * 90, [1.0] * 70 + [1e300] * 20))

    assert len(level.refused) == BELIEVED_AFTER - 1
    assert level.newest == ""
    assert len(never.refused) == 20


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0, 0.0])
def test_candles_that_are_none_are_left_to_who_says_what_is_wrong(bad):
    """A close that is no price passes here: taking it in refuses it with its own error."""
    block = block_of([1.0, bad], [1.0, 1.0])

    assert sift(NOTHING, block).block is block


def test_nothing_traded_before_says_nothing_of_what_trades():
    """A symbol without a trade in 64 candles may begin to trade whatever it likes."""
    block = block_of([1.0] * 65, [0.0] * 64 + [1e9])

    assert sift(NOTHING, block).refused == {}


@given(st.lists(st.floats(1e-3, 1e6), min_size=1, max_size=30), st.sets(st.integers(0, 29)))
def test_the_last_close_is_that_of_the_last_plausible_candle(closes, odd):
    """Read without a copy of all, since each price of a stream is held against it."""
    recent = RecentCandles(Timeframe.M5)
    for place, close in enumerate(closes):
        volume = MOST_TRADED * 10 / close if place in odd else 1.0
        recent.add("A", CandleBlock.from_rows([[place * STEP, close, close, close, close, volume]]))
    known = recent.plausible("A").values[:, CLOSE]

    assert recent.last_close("A") == (known[-1] if len(known) else None)
    assert recent.last_close("B") is None
