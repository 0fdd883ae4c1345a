from __future__ import annotations

import numpy as np
import pytest

from feature_store.absences import Absence, Cause, Span, absences
from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError
from tests.feature_support import BTC, ETH, STEP, T0, market, without


def test_what_both_lack_is_an_outage_and_the_rest_is_not():
    """A gap that reaches beyond the outage is cut where the other symbol trades again."""
    whole = market(30)
    found = absences({BTC: without(whole, np.r_[10:15]), ETH: without(whole, np.r_[12:18])})

    assert found[BTC] == (
        Absence(T0 + 10 * STEP, T0 + 12 * STEP, 2, Cause.UNEXPLAINED),
        Absence(T0 + 12 * STEP, T0 + 15 * STEP, 3, Cause.OUTAGE),
    )
    assert [one.cause for one in found[ETH]] == [Cause.OUTAGE, Cause.UNEXPLAINED]


def test_one_symbol_alone_proves_no_outage():
    """With nobody else listed the cause stays unknown."""
    found = absences({BTC: without(market(30), np.r_[10:15])})
    assert [one.cause for one in found[BTC]] == [Cause.UNEXPLAINED]


def test_a_symbol_that_left_is_no_witness():
    """Once a symbol is delisted, its silence neither makes an outage nor hides one."""
    whole = market(30)
    other = Series("sandbox", "CVC/USDT:USDT", Timeframe.M5)
    blocks = {BTC: without(whole, np.r_[20:22]), ETH: without(whole, np.r_[20:22]), other: whole[:10]}

    found = absences(blocks)

    assert found[other] == ()
    assert [one.cause for one in found[BTC]] == [Cause.OUTAGE]
    still_listed = absences(blocks, {other: [Span(T0, T0 + 30 * STEP)]})
    assert still_listed[other][-1].candles == 8
    assert [one.cause for one in absences({ETH: whole[:10], BTC: blocks[BTC]})[BTC]] == [Cause.UNEXPLAINED]


def test_what_was_never_recorded_is_not_absent():
    """Between two recordings of one series nothing is known, and nothing is said."""
    whole = market(30)
    listed = {one: [Span(T0, T0 + 10 * STEP), Span(T0 + 20 * STEP, T0 + 30 * STEP)] for one in (BTC, ETH)}
    apart = without(whole, np.r_[10:20])
    assert absences({BTC: apart, ETH: apart}, listed) == {BTC: (), ETH: ()}


def test_venues_are_not_mixed():
    """Silence of one venue says nothing of another."""
    with pytest.raises(BadInputError, match="within one venue and timeframe, found kraken 5m, sandbox 5m"):
        absences({BTC: market(3), Series("kraken", "BTC/USD", Timeframe.M5): market(3)})
    assert absences({}) == {}


def test_a_gap_that_the_venue_was_not_asked_about_is_no_outage():
    """Where series were fetched, only what the venue confirmed for each of them proves an outage."""
    confirmed = {one: [Span(T0 + 4 * STEP, T0 + 5 * STEP)] for one in (BTC, ETH)}
    blocks = {one: without(market(20), slice(4, 6)) for one in (BTC, ETH)}
    assert causes(absences(blocks)[BTC]) == [(2, Cause.OUTAGE)]
    assert causes(absences(blocks, confirmed=confirmed)[BTC]) == [(1, Cause.OUTAGE), (1, Cause.UNEXPLAINED)]
    assert causes(absences(blocks, confirmed={BTC: []})[ETH]) == [(2, Cause.UNEXPLAINED)]


def test_a_venue_that_traded_by_another_timeframe_had_no_outage():
    """A single minute in the shorter timeframe proves that the venue was open while a longer candle is absent."""
    blocks = {one: without(market(20), slice(4, 6)) for one in (BTC, ETH)}
    traded = np.array([T0 + 5 * STEP + 60_000], np.int64)
    found = absences(blocks, traded_ms=traded)[BTC]
    assert causes(found) == [(1, Cause.OUTAGE), (1, Cause.UNEXPLAINED)]
    assert causes(absences(blocks, traded_ms=traded[:0])[BTC]) == [(2, Cause.OUTAGE)]


def causes(found) -> list[tuple[int, Cause]]:
    """How many candles are absent for which cause."""
    return [(one.candles, one.cause) for one in found]
