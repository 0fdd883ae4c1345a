"""When instruments were listed, as their venue said when it was asked for candles: a note beside each series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from feature_store.candle import Series
from feature_store.derived import BASE
from feature_store.lake import CandleLake
from feature_store.sources.deriving import is_derived
from feature_store.sources.notes import read_note, write_note

_NOTE = "listing"


@dataclass(frozen=True, slots=True)
class Listed:
    """
    What is known of when an instrument trades.

    Args:
        since_ms: When the venue began to trade it, where that is known.
        is_over: Whether it was traded no more when the venue was asked last.
        venue_lists: How many instruments of its form (the same quote, spot or contract) the venue traded then.
    """

    since_ms: int | None = None
    is_over: bool = False
    venue_lists: int | None = None


def listing_in(markets: Mapping[str, Mapping[str, Any]], symbol: str) -> Listed:
    """Read what a venue says of an instrument in its list of them; of one that it does not list, that it is over."""
    market = markets.get(symbol)
    if market is None:
        return Listed(is_over=True)
    form = (market.get("quote"), market.get("type"))
    others = [one for one in markets.values() if (one.get("quote"), one.get("type")) == form]
    trading = sum(one.get("active") is not False for one in others)
    created_ms = market.get("created")
    return Listed(int(created_ms) if created_ms else None, market.get("active") is False, trading)


def note_listing(lake: CandleLake, series: Series, said: Listed) -> None:
    """Keep what the venue says of an instrument; what it said before of its beginning stays, if it does not say now."""
    place = _fetched(lake, series)
    known = _noted(lake, place)
    told = replace(
        said,
        since_ms=known.since_ms if said.since_ms is None else said.since_ms,
        venue_lists=known.venue_lists if said.venue_lists is None else said.venue_lists,
    )
    if told != known:
        content = {"since_ms": told.since_ms, "is_over": told.is_over, "venue_lists": told.venue_lists}
        write_note(lake, place, _NOTE, content)


def listing_of(lake: CandleLake, series: Series) -> Listed:
    """Return what the venue said of an instrument; nothing, where it was never asked."""
    return _noted(lake, _fetched(lake, series))


def _fetched(lake: CandleLake, series: Series) -> Series:
    """Return the series that the venue is asked for: of derived candles the minutes."""
    return replace(series, timeframe=BASE) if is_derived(lake, series) else series


def _noted(lake: CandleLake, series: Series) -> Listed:
    note = read_note(lake, series, _NOTE)
    since_ms, lists = note.get("since_ms"), note.get("venue_lists")
    return Listed(
        since_ms if isinstance(since_ms, int) else None,
        note.get("is_over") is True,
        lists if isinstance(lists, int) else None,
    )
