"""Bringing many series of the lake up to date from a venue."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from feature_store.candle import CandleBlock, Series
from feature_store.errors import CorruptFileError, QuantumError
from feature_store.files import replace_bytes
from feature_store.lake import CandleLake
from feature_store.partitions import series_folder
from feature_store.quality import QualityReport, check
from feature_store.sources.ccxt_candles import fetch_candles
from feature_store.venue.async_time import venue_time_ms

SeriesProgress = Callable[[Series, int], None]


@dataclass(frozen=True, slots=True)
class Ingested:
    """What one run did for one series; `error` is None when it reached the newest closed candle."""

    series: Series
    fetched: int
    appended: int
    report: QualityReport
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

    Args:
        exchange: From `create_exchange`.
        lake: Where candles are stored.
        series: What to bring up to date.
        start_ms: From where on candles are wanted.
        now_ms: Up to where; the venue's time, if None.
        concurrency: Series fetched at once.
        progress: Told of each page: its series and how many candles it brought.
        repair: Set damaged files aside and fetch gaps again.

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
    fetched = appended = 0
    repaired: tuple[str, ...] = ()
    error: QuantumError | None = None
    try:
        if repair:
            repaired = tuple(await asyncio.to_thread(_set_aside_damaged, lake, series))
        ranges = await asyncio.to_thread(_wanted, lake, series, start_ms, now_ms, repair=repair)
        await asyncio.to_thread(_keep_origin, lake, series, start_ms)
        for begin_ms, end_ms in ranges:
            async for page in _pages(exchange, series, begin_ms, end_ms, progress):
                fetched += len(page)
                appended += await asyncio.to_thread(lake.append, series, page)
        if ranges:
            await asyncio.to_thread(_move_origin, lake, series, start_ms)
        stored = await asyncio.to_thread(lake.read, series, start_ms, now_ms)
    except QuantumError as raised:
        error, stored = raised, CandleBlock.empty()
    return Ingested(series, fetched, appended, check(stored, series.timeframe, now_ms=now_ms), repaired, error)


async def _pages(
    exchange: Any, series: Series, begin_ms: int, end_ms: int, progress: SeriesProgress | None
) -> AsyncIterator[CandleBlock]:
    def tell(candles: int) -> None:
        if progress is not None:
            progress(series, candles)

    async for page in fetch_candles(exchange, series, begin_ms, end_ms, progress=tell):
        yield page


def _wanted(lake: CandleLake, series: Series, start_ms: int, now_ms: int, *, repair: bool) -> list[tuple[int, int]]:
    """Return the ranges that the lake lacks, oldest first."""
    step = series.timeframe.milliseconds
    start_ms = -(-start_ms // step) * step
    end_ms = series.timeframe.floor_ms(now_ms)
    first, last = lake.first_open_time_ms(series), lake.last_open_time_ms(series)
    if first is None or last is None:
        ranges = [(start_ms, end_ms)]
    else:
        # Candles from the origin on were asked for before: what is absent there, the venue does not have.
        doubted_ms = last + step if repair else min(_origin_ms(lake, series, first), last + step)
        ranges = _holes(lake, series, start_ms, doubted_ms)
        ranges.append((max(last + step, start_ms), end_ms))
    return [(begin, end) for begin, end in ranges if begin < end]


def _holes(lake: CandleLake, series: Series, start_ms: int, end_ms: int) -> list[tuple[int, int]]:
    if start_ms >= end_ms:
        return []
    stored = lake.read(series, start_ms, end_ms)
    gaps = check(stored, series.timeframe, start_ms=start_ms, end_ms=end_ms).gaps
    return [(gap.start_ms, gap.end_ms) for gap in gaps]


def _origin_ms(lake: CandleLake, series: Series, default: int) -> int:
    try:
        return int(json.loads(_origin_path(lake, series).read_bytes())["asked_from_ms"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return default


def _keep_origin(lake: CandleLake, series: Series, start_ms: int) -> None:
    """Before anything is fetched, note from where on nothing is left out, lest an interruption hides a hole."""
    first, last = lake.first_open_time_ms(series), lake.last_open_time_ms(series)
    if first is None or last is None:
        return
    if start_ms > last + series.timeframe.milliseconds:
        _write_origin(lake, series, start_ms)
    elif start_ms < first and not _origin_path(lake, series).exists():
        _write_origin(lake, series, first)


def _move_origin(lake: CandleLake, series: Series, start_ms: int) -> None:
    """After everything was fetched, note that it was asked for from `start_ms` on."""
    first = lake.first_open_time_ms(series)
    if first is not None and start_ms < _origin_ms(lake, series, first + 1):
        _write_origin(lake, series, start_ms)


def _write_origin(lake: CandleLake, series: Series, start_ms: int) -> None:
    replace_bytes(_origin_path(lake, series), json.dumps({"asked_from_ms": start_ms}).encode())


def _origin_path(lake: CandleLake, series: Series) -> Path:
    return series_folder(lake.root, series) / "origin.json"


def _set_aside_damaged(lake: CandleLake, series: Series) -> list[str]:
    aside = []
    for path in lake.paths(series):
        try:
            lake.read_path(path)
        except CorruptFileError:
            aside.append(str(lake.set_aside(path)))
    return aside
