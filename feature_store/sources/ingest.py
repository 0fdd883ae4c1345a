"""Bringing many series of the lake up to date from a venue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.absences import Span
from feature_store.candle import CandleBlock, Series
from feature_store.errors import CorruptFileError, LakeNotWritableError, QuantumError
from feature_store.lake import BACKFILL_DELAY_MS, CandleLake
from feature_store.quality import QualityReport, check
from feature_store.sources.asking import ask_for_gaps
from feature_store.sources.ccxt_candles import fetch_candles, require_symbol
from feature_store.sources.deriving import refuse_derived
from feature_store.sources.listings import listing_in, listing_of, note_listing
from feature_store.sources.notes import alone_with, has_note, read_note, write_note
from feature_store.venue.async_time import venue_time_ms

if TYPE_CHECKING:
    import numpy.typing as npt

SeriesProgress = Callable[[Series, int, int], None]
"""Told of each page: its series, how many candles it brought, and when the last of them opens."""

REVERIFIED = 12
"""So many of the newest stored candles are fetched again with the new ones: venues restate them."""

_ORIGIN = "origin"


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one run did for one series; `error` is None when it reached the newest closed candle."""

    series: Series
    fetched: int
    appended: int
    report: QualityReport
    repaired: tuple[str, ...] = ()
    error: QuantumError | None = None


@dataclass(frozen=True, slots=True)
class _Stretch:
    """
    What to fetch; candles that open before `late_until_ms` were asked for before, and are known from now on.

    Those in `never_asked` were not: they could be known shortly after their close.
    """

    span: Span
    late_until_ms: int
    never_asked: tuple[Span, ...] = ()


@dataclass(slots=True)
class _Done:
    fetched: int = 0
    appended: int = 0
    repaired: tuple[str, ...] = ()
    error: QuantumError | None = None


async def ingest_series(
    exchange: Any,
    lake: CandleLake,
    series: Sequence[Series],
    start_ms: int,
    now_ms: int | None = None,
    *,
    concurrency: int = 4,
    progress: SeriesProgress | None = None,
    repair: bool = False,
) -> dict[Series, Ingested]:
    """
    Fetch what the lake lacks since `start_ms`, and store it page by page; an interrupted run resumes where it was.

    Gaps are asked for again by later runs, until the venue has said often enough that it has nothing there; what is
    absent before the first candle, since the listing, and after the last one is such a gap too. The newest candles of
    the run before are fetched again with the new ones; what differs is stored as a correction. What a venue restates
    among older ones is found where it is looked for: by `repair`.

    Args:
        exchange: From `create_exchange`.
        lake: Where candles are stored.
        series: What to bring up to date.
        start_ms: From where on candles are wanted.
        now_ms: Up to where; the venue's time, if None.
        concurrency: Series fetched at once.
        progress: Told of each page.
        repair: Set damaged files aside, and ask again for all candles since `start_ms`.

    Returns:
        What was done for each series. One that fails does not stop the others: its error is in its result.
    """
    until_ms = await venue_time_ms(exchange) if now_ms is None else now_ms
    at_once = asyncio.Semaphore(concurrency)

    async def one(which: Series) -> Ingested:
        async with at_once:
            return await _ingest(exchange, lake, which, start_ms, until_ms, progress, repair=repair)

    results = await asyncio.gather(*[one(which) for which in series])
    return {result.series: result for result in results}


async def _ingest(
    exchange: Any,
    lake: CandleLake,
    series: Series,
    start_ms: int,
    now_ms: int,
    progress: SeriesProgress | None,
    *,
    repair: bool,
) -> Ingested:
    done = _Done()
    stored = CandleBlock.empty()

    async def fetch(stretch: _Stretch) -> int:
        before = done.appended
        async for page in _pages(exchange, series, stretch, progress):
            done.fetched += len(page)
            available_ms = _available_ms(page, series, stretch, now_ms)
            done.appended += await asyncio.to_thread(lake.append, series, page, available_at_ms=available_ms)
        return done.appended - before

    try:
        await require_symbol(exchange, series)
        refuse_derived(lake, series)
        async with alone_with(lake, series):
            if repair:
                done.repaired = tuple(await asyncio.to_thread(set_aside_damaged, lake, series))
            stretches = await asyncio.to_thread(_wanted, lake, series, start_ms, now_ms, repair=repair)
            await asyncio.to_thread(_keep_origin, lake, series, start_ms)
            for stretch in stretches:
                await fetch(stretch)
            await asyncio.to_thread(note_listing, lake, series, listing_in(exchange.markets, series.symbol))
            if stretches:
                await asyncio.to_thread(_move_origin, lake, series, start_ms)
            stored, _ = await ask_for_gaps(
                lake,
                series,
                Span(start_ms, now_ms),
                listed_ms=listing_of(lake, series).since_ms,
                fetched=[one.span for one in stretches],
                fetch=lambda span: fetch(_Stretch(span, span.end_ms)),
            )
    except QuantumError as raised:
        done.error = raised
    except OSError as raised:
        done.error = LakeNotWritableError(series.symbol, lake.root, raised)
    report = check(stored, series.timeframe, now_ms=now_ms)
    return Ingested(series, done.fetched, done.appended, report, done.repaired, done.error)


async def _pages(
    exchange: Any, series: Series, stretch: _Stretch, progress: SeriesProgress | None
) -> AsyncIterator[CandleBlock]:
    async for page in fetch_candles(exchange, series, stretch.span.start_ms, stretch.span.end_ms):
        if progress is not None:
            progress(series, len(page), int(page.open_time_ms[-1]))
        yield page


def _available_ms(page: CandleBlock, series: Series, stretch: _Stretch, now_ms: int) -> npt.NDArray[np.int64]:
    """Tell when candles could be known: those that the venue was asked for before, only now."""
    backfilled = page.open_time_ms + series.timeframe.milliseconds + BACKFILL_DELAY_MS
    is_late = page.open_time_ms < stretch.late_until_ms
    for span in stretch.never_asked:
        is_late &= (page.open_time_ms < span.start_ms) | (page.open_time_ms >= span.end_ms)
    return np.where(is_late, now_ms, backfilled)


def _wanted(lake: CandleLake, series: Series, start_ms: int, now_ms: int, *, repair: bool) -> list[_Stretch]:
    """Return what the lake lacks, oldest first; to repair, all of it."""
    step = series.timeframe.milliseconds
    start_ms = -(-start_ms // step) * step
    end_ms = series.timeframe.floor_ms(now_ms)
    first, last = lake.first_open_time_ms(series), lake.last_open_time_ms(series)
    if first is None or last is None:
        return [_Stretch(Span(start_ms, end_ms), start_ms)] if start_ms < end_ms else []
    # Candles from the origin on were asked for before: gaps there are asked for by rules of their own.
    origin = _origin_ms(lake, series, first)
    doubted_ms = last + step if repair else min(origin, last + step)
    holes = [
        _Stretch(span, span.end_ms if span.start_ms >= origin else 0)
        for span in _holes(lake, series, start_ms, doubted_ms)
    ]
    newest = last + step
    if repair and start_ms < end_ms:
        # All of it again, since nobody says which candles a venue restated.
        never_asked = tuple(one.span for one in holes if one.late_until_ms == 0)
        return [_Stretch(Span(start_ms, end_ms), newest, never_asked)]
    if max(newest, start_ms) >= end_ms:
        return holes
    # Venues restate their newest candles; with the new ones, those before them cost nothing.
    again = max(newest - REVERIFIED * step, start_ms, min(first, newest))
    return [*holes, _Stretch(Span(again, end_ms), newest)]


def _holes(lake: CandleLake, series: Series, start_ms: int, end_ms: int) -> list[Span]:
    if start_ms >= end_ms:
        return []
    stored = lake.read(series, start_ms, end_ms)
    gaps = check(stored, series.timeframe, start_ms=start_ms, end_ms=end_ms).gaps
    return [Span(gap.start_ms, gap.end_ms) for gap in gaps]


def _origin_ms(lake: CandleLake, series: Series, default: int) -> int:
    origin = read_note(lake, series, _ORIGIN).get("asked_from_ms")
    return origin if isinstance(origin, int) else default


def whole_from_ms(lake: CandleLake, series: Series) -> int | None:
    """Return from where on the venue was asked for every candle that is not stored; None, where nothing is."""
    first = lake.first_open_time_ms(series)
    return None if first is None else _origin_ms(lake, series, first)


def _keep_origin(lake: CandleLake, series: Series, start_ms: int) -> None:
    """Before anything is fetched, note from where on nothing is left out, lest an interruption hides a hole."""
    first, last = lake.first_open_time_ms(series), lake.last_open_time_ms(series)
    if first is None or last is None:
        return
    if start_ms > last + series.timeframe.milliseconds:
        _write_origin(lake, series, start_ms)
    elif start_ms < first and not has_note(lake, series, _ORIGIN):
        _write_origin(lake, series, first)


def _move_origin(lake: CandleLake, series: Series, start_ms: int) -> None:
    """After everything was fetched, note that it was asked for from `start_ms` on."""
    first = lake.first_open_time_ms(series)
    if first is not None and start_ms < _origin_ms(lake, series, first + 1):
        _write_origin(lake, series, start_ms)


def _write_origin(lake: CandleLake, series: Series, start_ms: int) -> None:
    write_note(lake, series, _ORIGIN, {"asked_from_ms": start_ms})


def note_foreign(lake: CandleLake, series: Series, block: CandleBlock) -> None:
    """Before candles from elsewhere are stored, note that the venue was not asked for them: it may fill their gaps."""
    if len(block) == 0:
        return
    begin, end = int(block.open_time_ms[0]), int(block.open_time_ms[-1])
    first, last = lake.first_open_time_ms(series), lake.last_open_time_ms(series)
    if first is None or last is None or end > last:
        _write_origin(lake, series, end + series.timeframe.milliseconds)
    elif begin < first and not has_note(lake, series, _ORIGIN):
        _write_origin(lake, series, first)


def set_aside_damaged(lake: CandleLake, series: Series) -> list[str]:
    """Rename the damaged files of a series out of the way; return their new names."""
    aside = []
    for path in lake.paths(series):
        try:
            lake.read_path(path)
        except CorruptFileError:
            aside.append(str(lake.set_aside(path)))
    return aside
