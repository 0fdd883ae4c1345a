from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import Candle, CandleBlock, Series, Timeframe, validate
from feature_store.errors import BadInputError, UnknownTimeframeError
from tests.feature_support import STEP, T0, market


def test_timeframes_know_their_length():
    """Each timeframe is named by its length."""
    minutes = {str(timeframe): timeframe.milliseconds // 60_000 for timeframe in Timeframe}
    assert minutes == {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}


def test_an_unknown_timeframe_names_the_known_ones():
    """The error of a wrong timeframe says what to use instead."""
    with pytest.raises(UnknownTimeframeError, match="'7m'; use one of: 1m, 5m"):
        Timeframe.parse("7m")


@pytest.mark.parametrize(
    ("now_ms", "expected"),
    [
        pytest.param(10 * STEP, 9 * STEP, id="at-the-close"),
        pytest.param(10 * STEP - 1, 8 * STEP, id="just-before-the-close"),
        pytest.param(10 * STEP + 1, 9 * STEP, id="just-after-the-close"),
    ],
)
def test_last_closed_candle(now_ms, expected):
    """A candle is closed from the very moment its time is over."""
    assert Timeframe.M5.last_closed_open_ms(now_ms) == expected


def test_a_block_is_its_candles():
    """Candles survive the way into arrays and back."""
    candles = [Candle(T0, 1.0, 2.0, 0.5, 1.5, 7.0), Candle(T0 + STEP, 1.5, 1.5, 1.5, 1.5, 0.0)]
    assert list(CandleBlock.from_candles(candles).candles()) == candles
    assert candles[0].close_time_ms(Timeframe.M5) == T0 + STEP


def test_since_and_until_meet():
    """Cutting a block at a moment loses and doubles nothing."""
    block = market(50)
    cut = int(block.open_time_ms[20])
    assert len(block.until(cut)) == 20
    assert block.until(cut).concat(block.since(cut)).equals(block)


def test_an_empty_block_is_sound():
    """No candles are valid candles."""
    empty = CandleBlock.empty()
    assert len(validate(empty, Timeframe.M5)) == 0
    assert empty.first_open_time_ms is None
    assert len(CandleBlock.from_rows([])) == 0


def test_series_are_named_without_doubt():
    """The key of a series tells venue, symbol and timeframe apart."""
    assert Series("sandbox", "BTC/USDT:USDT", Timeframe.H1).key == "sandbox|BTC/USDT:USDT|1h"


def _spoiled(row: int, column: int, value: float) -> CandleBlock:
    block = market(10, flat=0)
    values = block.values.copy()
    values[row, column] = value
    return CandleBlock(block.open_time_ms, values)


@pytest.mark.parametrize(
    ("block", "expected"),
    [
        pytest.param(_spoiled(3, 0, np.nan), "finite", id="nan-open"),
        pytest.param(_spoiled(3, 1, 1.0), "low <= open", id="high-below-low"),
        pytest.param(_spoiled(3, 2, 1e9), "low <= open", id="low-above-high"),
        pytest.param(_spoiled(3, 2, 0.0), "positive", id="zero-low"),
        pytest.param(_spoiled(3, 3, np.inf), "finite", id="infinite-close"),
        pytest.param(_spoiled(3, 4, -1.0), "volume >= 0", id="negative-volume"),
        pytest.param(market(10)[::-1], "must rise", id="newest-first"),
        pytest.param(market(10).concat(market(10)[9:]), "must rise", id="twice"),
        pytest.param(market(10, start_ms=T0 + 1), "multiples of 5m", id="off-the-grid"),
    ],
)
def test_impossible_candles_are_refused(block, expected):
    """A block that no market could have made is refused with what is expected."""
    with pytest.raises(BadInputError, match=expected):
        validate(block, Timeframe.M5)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param([[T0, 1, 2, 3]], id="too-few"),
        pytest.param([[T0, None, 1, 1, 1, 1]], id="none"),
        pytest.param([[T0, "x", 1, 1, 1, 1]], id="text"),
    ],
)
def test_malformed_rows_are_refused(rows):
    """Rows that are not six numbers each are not guessed at."""
    with pytest.raises(BadInputError):
        validate(CandleBlock.from_rows(rows), Timeframe.M5)
