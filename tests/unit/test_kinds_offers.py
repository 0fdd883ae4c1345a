"""Which kinds of market data are asked for, of those that a venue gives."""

from __future__ import annotations

import pytest

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.kinds.definition import (
    AGGREGATE_TRADES,
    BOOK,
    FILTERS,
    FUNDING,
    INDEX,
    KINDS,
    MARK,
    OPEN_INTEREST,
    TRADES,
)
from feature_store.sources.kind_offers import asked_kinds
from feature_store.sources.kind_opening import kinds_to_import

PERPETUAL = (FUNDING, MARK, INDEX, OPEN_INTEREST, FILTERS, BOOK, AGGREGATE_TRADES)
SPOT = (FILTERS, BOOK, TRADES)


def test_open_interest_of_each_minute_is_asked_for_only_by_its_name():
    """No venue counts it each minute: asked for unasked, it failed every run; named, it is refused with the reason."""
    assert asked_kinds(None, PERPETUAL, "binanceusdm", Timeframe.M5) == (FUNDING, MARK, INDEX, OPEN_INTEREST, FILTERS)
    assert asked_kinds(None, PERPETUAL, "binanceusdm", Timeframe.M1) == (FUNDING, MARK, INDEX, FILTERS)
    assert OPEN_INTEREST not in asked_kinds("all", PERPETUAL, "binanceusdm", Timeframe.M1)
    assert asked_kinds("open-interest", PERPETUAL, "binanceusdm", Timeframe.M1) == (OPEN_INTEREST,)


@pytest.mark.parametrize("text", ["all", " all ", "all,", ",all", "all, all"])
def test_all_is_all_that_a_venue_gives_however_it_is_written(text):
    """A comma too many names nothing, and all that a venue gives is no kind that it lacks."""
    assert asked_kinds(text, SPOT, "binance", Timeframe.M5) == SPOT
    assert kinds_to_import(text) == KINDS


def test_what_a_venue_lacks_is_refused_by_its_name():
    """Who names a kind wants it."""
    assert asked_kinds("trades,filters,", SPOT, "binance", Timeframe.M5) == (TRADES, FILTERS)
    with pytest.raises(
        BadInputError, match="funding is not fetched from venue binance; what is: filters, book, trades"
    ):
        asked_kinds("filters,funding", SPOT, "binance", Timeframe.M5)
