from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.absences import Span
from flows.pace import Pace, duration
from tests.feature_support import BTC, ETH, STEP, T0

SPAN = Span(T0, T0 + 1_000 * STEP)


def test_rate_and_time_left_follow_from_what_this_run_did():
    """Half of one of two series in ten seconds: three times that is left, at fifty candles a second."""
    pace = Pace(2, SPAN, started_s=0.0)
    pace.page(BTC, 500, T0 + 499 * STEP)
    assert pace.fraction == 0.25
    assert pace.text(10.0) == "500 candles, 50 a second, 30 s left"


def test_what_was_there_before_is_done_but_took_no_time():
    """A series that lacked its last tenth has come far; the rest takes as long as what was fetched tells."""
    pace = Pace(2, SPAN, started_s=0.0)
    pace.page(BTC, 100, T0 + 999 * STEP)
    pace.done(BTC)
    assert pace.fraction == 0.5
    assert pace.text(10.0) == "100 candles, 10 a second, 1 min 40 s left"


def test_nothing_to_fetch():
    """Where all is there already, no rate is told and the whole is done."""
    pace = Pace(2, SPAN, started_s=0.0)
    pace.done(BTC)
    pace.done(ETH)
    assert (pace.fraction, pace.text(5.0)) == (1.0, "0 candles")


@given(st.lists(st.tuples(st.sampled_from([BTC, ETH]), st.integers(0, 2_000), st.integers(-50, 1_500)), max_size=20))
def test_whatever_comes_the_fraction_is_one(pages):
    """Pages out of order, of nothing, or beyond the span never break the text or leave 0 to 1."""
    pace = Pace(2, SPAN, started_s=0.0)
    for series, candles, reached in pages:
        pace.page(series, candles, T0 + reached * STEP)
        assert 0.0 <= pace.fraction <= 1.0
        assert "candles" in pace.text(3.0)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3_599, "59 min 59 s"), (4_800, "1 h 20 min")],
)
def test_durations(seconds, text):
    """Seconds, minutes and hours as people say them."""
    assert duration(seconds) == text


def test_kinds_move_by_the_share_of_their_time():
    """A kind of which half was there before and a quarter came in five seconds: the rest at that pace."""
    pace = Pace(2, SPAN, started_s=0.0, unit="rows")
    pace.moved("funding of BTC", 0, 0.5)
    assert (pace.fraction, pace.text(1.0)) == (0.25, "0 rows")
    pace.moved("funding of BTC", 300, 0.75)
    assert pace.fraction == 0.375
    assert pace.text(5.0) == "300 rows, 60 a second, 25 s left"
    pace.finished("funding of BTC")
    pace.finished("filters of BTC")
    assert (pace.fraction, pace.text(5.0)) == (1.0, "300 rows, 60 a second, 0 s left")
