from __future__ import annotations

import re
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.order import OrderReport, OrderStatus, Purpose
from inference.domain.signal import Direction
from inference.execution.book import Book
from inference.execution.client_order_id import OrderKey, client_order_id, order_key, trade_id_of
from inference.execution.ports import VenuePosition
from inference.execution.reconcile import CancelOrphan, FlattenPosition, Recheck, VenueView, reconcile
from inference.signals.scoring import signals, trace_id

BTC = "BTC/USDT:USDT"
VENUE_ALPHABET = re.compile(r"^[.A-Z:/a-z0-9_-]{1,36}$")


@given(st.text(), st.sampled_from(list(Purpose)), st.integers(1, 999_999))
def test_client_order_ids_fit_the_venue_and_say_what_they_are(origin, purpose, attempt):
    """Any origin gives an id of the venue's alphabet and length, from which trade, purpose and attempt come back."""
    trade = trade_id_of(origin)
    text = client_order_id(trade, purpose, attempt)

    assert VENUE_ALPHABET.fullmatch(text)
    assert order_key(text) == OrderKey(trade_id=trade, purpose=purpose, attempt=attempt)


@pytest.mark.parametrize("text", ["", "x-cvBPrNm9abc", "autoclose-17", "qt-abc-S0", "qt-abc-Z1", "qt-ABC-S1"])
def test_other_peoples_order_ids_are_not_ours(text):
    """An id that we would not make is nobody's trade of ours."""
    assert order_key(text) is None


def scores(probability_up, expected_return, member):
    return SimpleNamespace(
        probability_up=np.array(probability_up),
        expected_return=np.array(expected_return),
        members={"xgboost": np.array(member)},
        consensus=np.ones(len(member), dtype=np.int64),
    )


def scored(given_scores, count):
    return signals(
        given_scores,
        symbols=[f"S{row}" for row in range(count)],
        feature_times_ms=[1000] * count,
        venue="sandbox",
        model_version="3",
        weights={"xgboost": 1.0},
    )


def test_direction_and_confidence_come_from_the_probability():
    """Above one half is LONG with that confidence, below is SHORT with the complement."""
    long, short = scored(scores([0.8, 0.3], [0.01, -0.02], [0.01, -0.02]), 2)

    assert (long.direction, long.confidence) == (Direction.LONG, 0.8)
    assert (short.direction, short.confidence) == (Direction.SHORT, 0.7)


@pytest.mark.parametrize(
    "bad",
    [
        pytest.param(scores([np.nan], [0.01], [0.01]), id="probability-nan"),
        pytest.param(scores([0.9], [np.inf], [0.01]), id="return-infinite"),
        pytest.param(scores([0.9], [0.01], [np.nan]), id="member-nan"),
        pytest.param(scores([1.5], [0.01], [0.01]), id="no-probability"),
    ],
)
def test_a_number_that_is_none_abstains(bad):
    """One number that is not finite makes the signal FLAT, with nothing in it to act on."""
    (signal,) = scored(bad, 1)

    assert signal.direction is Direction.FLAT
    assert (signal.confidence, signal.expected_return, signal.members) == (0.0, 0.0, ())


def test_trace_ids_are_the_same_for_the_same_opinion_only():
    """The same venue, symbol, candle and model give the same id in every process; anything else another."""
    given_ids = {
        trace_id(venue="sandbox", symbol=symbol, feature_time_ms=time_ms, model_version=version)
        for symbol in ("A", "B")
        for time_ms in (1, 2)
        for version in ("1", "2")
    }

    assert len(given_ids) == 8
    assert trace_id(venue="v", symbol="s", feature_time_ms=1, model_version="1") == (
        "fc2cb2ae-2afe-5e40-aae5-83313127fd10"
    )


def view(*orders, held=0):
    position = VenuePosition(symbol=BTC, signed_quantity=Decimal(held), entry_price=Decimal(1), mark_price=Decimal(2))
    return VenueView(positions={BTC: position} if held else {}, open_orders=orders)


def listed(client_order_id_text):
    return OrderReport(
        client_order_id=client_order_id_text,
        venue_order_id="9",
        symbol=BTC,
        status=OrderStatus.ACCEPTED,
        filled=Decimal(0),
        average_price=None,
        event_time_ms=0,
    )


def test_an_empty_journal_and_an_empty_venue_agree():
    """Nothing against nothing needs nothing."""
    assert reconcile(Book(), view(), confirmed=True) == []


def test_a_position_nobody_explains_is_looked_at_again_then_flattened():
    """A stray position is not believed at first sight; confirmed, it goes."""
    assert reconcile(Book(), view(held=-3), confirmed=False) == [Recheck(symbol=BTC)]
    assert reconcile(Book(), view(held=-3), confirmed=True) == [
        FlattenPosition(symbol=BTC, signed_quantity=Decimal(-3), price=Decimal(2))
    ]


def test_an_order_of_ours_without_a_trade_is_cancelled_and_a_strangers_is_left():
    """Orphans with an id of ours go; what somebody else placed is not ours to touch."""
    actions = reconcile(Book(), view(listed("qt-abc-S1"), listed("web_1234")), confirmed=True)

    (orphan,) = actions
    assert isinstance(orphan, CancelOrphan)
    assert orphan.intent.client_order_id == "qt-abc-S1"
    assert orphan.intent.is_conditional
