"""Asking a venue again for candles that it left out, and remembering what it said."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Any

from feature_store.absences import Span, joined
from feature_store.candle import CandleBlock, Series
from feature_store.derived import BASE
from feature_store.lake import CandleLake
from feature_store.quality import check
from feature_store.silences import Silence, after_asking, shortened, to_ask, together
from feature_store.sources.ccxt_candles import page_of
from feature_store.sources.deriving import is_derived
from feature_store.sources.notes import read_note, write_note

_NOTE = "silences"
_ANSWER = "no candle"

Fetch = Callable[[Span], Awaitable[int]]
"""Fetches and stores a stretch of time; returns how many rows are new."""


def silences(lake: CandleLake, series: Series) -> tuple[Silence, ...] | None:
    """Return what the venue was asked about and had no candle of; None, where it was never asked for a gap."""
    note = read_note(lake, series, _NOTE)
    if "silences" not in note:
        return None
    try:
        return tuple(Silence(int(one[0]), int(one[1]), tuple(map(int, one[2]))) for one in note["silences"])
    except (IndexError, TypeError, ValueError):
        return None


def believed(lake: CandleLake, series: Series) -> tuple[Span, ...] | None:
    """Return the stretches that the venue itself has no candle of; None, where it was never asked for a gap."""
    asked = silences(lake, replace(series, timeframe=BASE) if is_derived(lake, series) else series)
    return None if asked is None else joined([Span(one.start_ms, one.end_ms) for one in asked if one.is_believed])


async def ask_for_gaps(
    lake: CandleLake, series: Series, span: Span, *, listed_ms: int | None, fetched: Sequence[Span], fetch: Fetch
) -> tuple[CandleBlock, int]:
    """
    Ask the venue for the gaps of a series that it is not believed on yet, and note what it answers.

    What is absent before the first candle, since the listing, and after the last one is a gap like any other.

    Args:
        lake: Where the series is.
        series: What to look at.
        span: From where to look, and the venue's present.
        listed_ms: When the venue began to trade it, if that is known: what is absent before is no gap.
        fetched: What this run has asked for already.
        fetch: Fetches one stretch and stores it.

    Returns:
        The candles of the span as they are now, and how many rows were new.
    """
    now_ms = span.end_ms
    stored = await asyncio.to_thread(lake.read, series, span.start_ms, now_ms)
    known = await asyncio.to_thread(silences, lake, series)
    looked_at = Span(max(span.start_ms, listed_ms or span.start_ms), series.timeframe.floor_ms(now_ms))
    gaps = _gaps(stored, series, looked_at)
    told = after_asking(gaps, known or (), fetched, now_ms)
    doubted = to_ask(gaps, told, now_ms)
    added = 0
    groups = together(doubted, page_of(series) * series.timeframe.milliseconds)
    for group in groups:
        added += await fetch(group)
    if added:
        stored = await asyncio.to_thread(lake.read, series, span.start_ms, now_ms)
    told = after_asking(_gaps(stored, series, looked_at), told, groups, now_ms)
    # What lies before the stretch that was looked at stays as it was told.
    edge_ms = -(-looked_at.start_ms // series.timeframe.milliseconds) * series.timeframe.milliseconds
    earlier = [replace(one, end_ms=min(one.end_ms, edge_ms)) for one in known or () if one.start_ms < edge_ms]
    await asyncio.to_thread(_keep, lake, series, shortened((*earlier, *told)), known)
    return stored, added


def _keep(lake: CandleLake, series: Series, told: Sequence[Silence], known: Sequence[Silence] | None) -> None:
    if known is not None and tuple(told) == tuple(known):
        return
    rows: list[Any] = [[one.start_ms, one.end_ms, one.asked_at_ms] for one in told]
    write_note(lake, series, _NOTE, {"answer": _ANSWER, "silences": rows})


def _gaps(stored: CandleBlock, series: Series, looked_at: Span) -> tuple[Span, ...]:
    begin_ms, end_ms = looked_at.start_ms, looked_at.end_ms
    if begin_ms >= end_ms:
        return ()
    found = check(stored, series.timeframe, start_ms=begin_ms, end_ms=end_ms)
    return tuple(Span(gap.start_ms, gap.end_ms) for gap in found.gaps)
