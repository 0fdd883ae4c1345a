"""The flow that brings the candle lake up to the venue's present."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.absences import Span
from feature_store.candle import Series, Timeframe
from feature_store.clock import monotonic
from feature_store.errors import BadInputError, QuantumError
from feature_store.files import replace_bytes
from feature_store.lake import CandleLake
from feature_store.sources.listings import Listed, note_listing
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.errors import VenueError
from flows.coverage_map import heat_map, heat_picture, quality_rows
from flows.failures import Failures, ShortfallError
from flows.judging import judged
from flows.known_markets import remember_markets
from flows.orchestration import ProgressBar, markdown, named_by_series, passes_later, picture, say, table
from flows.pace import Pace
from flows.reporting import picture_path
from flows.settings import FlowSettings, TimeframeName, VenueName
from flows.venue import Chosen, chosen_derivations, chosen_series, connected, update_series
from flows.wording import moment

_DAY_MS = 86_400_000
_SHOWN = 10
# Requests are repeated by feature_store.venue within seconds; these cover a venue that restarts.
_POLICY: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": passes_later,
}


@task(task_run_name="ask-venue-for-time-and-symbols", timeout_seconds=120, **_POLICY)
async def ask_venue(exchange: Any, settings: FlowSettings) -> tuple[int, Chosen]:
    """Return the venue's time and the series to bring up to date; note which stored ones it trades no more."""
    now_ms, chosen = await venue_time_ms(exchange), await chosen_series(exchange, settings)
    await asyncio.to_thread(remember_markets, settings, exchange.markets)
    lake = settings.candle_lake()
    for one in chosen.gone:
        await asyncio.to_thread(note_listing, lake, one, Listed(is_over=True))
    if chosen.gone:
        say("Not traded at %s any more, and kept: %s", settings.venue, ", ".join(one.symbol for one in chosen.gone))
    return now_ms, chosen


@task(task_run_name="ingest-{series.symbol}-{series.timeframe}", timeout_seconds=1800, **_POLICY)
async def bring_up_to_date(exchange: Any, lake: CandleLake, series: Series, span: tuple[int, int], **how: Any) -> int:
    """Fetch what the lake lacks of one series, check it, and append it; return how many candles are new."""
    done = await update_series(exchange, lake, series, start_ms=span[0], now_ms=span[1], **how)
    say("%s: %d new, %s", series.symbol, done.appended, done.report.describe())
    return done.appended


@flow(name="ingest", flow_run_name=named_by_series, timeout_seconds=3600)
async def ingest(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    repair: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are its form in the UI
    derive: str | None = None,
) -> dict[str, int]:
    """
    Bring every series of the candle lake up to the venue's present; closed candles only.

    A second run fetches only what is new. A series that fails stops no other. The run fails in the end if one did, or
    if the venue gave fewer candles of one than were asked for and has not confirmed, three times, that it has no more.
    A hole between candles of one page needs no confirming, and one whose listing is not known may have no candle yet.

    Args:
        venue: Where candles come from. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all`. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How far back a series goes that is not in the lake yet. Left empty: QT_DAYS, by default 30.
        repair: Set damaged files aside, and ask again for all of the days: what the venue restated is corrected.
        derive: Longer candles to make of minutes, such as `5m,15m,1h,4h,1d`; for timeframe 1m. Left empty: QT_DERIVE.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe, days=days, derive=derive)
    how = {"repair": repair, "derive": chosen_derivations(settings, derive)}
    lake = settings.candle_lake()
    async with connected(settings) as exchange:
        now_ms, chosen = await ask_venue(exchange, settings)
        span = (now_ms - settings.days * _DAY_MS, now_ms)
        added, failures = await _all_series(exchange, lake, chosen, span, settings.concurrency, **how)

    table("coverage", _coverage(lake, chosen, added, failures), f"Candle lake at {moment(now_ms)} venue time")
    whole = [one for one in chosen.series if one.symbol in added]
    closed = Span(span[0], Timeframe.parse(settings.timeframe).floor_ms(now_ms))
    short = await _report_quality(lake, whole, closed, picture_path(settings)) if whole else []
    say("Ingested %d new candles of %d series", sum(added.values()), len(added))
    failures.raise_first()
    if short:
        raise ShortfallError(_told(short))
    return added


async def _all_series(
    exchange: Any, lake: CandleLake, chosen: Chosen, span: tuple[int, int], concurrency: int, **how: Any
) -> tuple[dict[str, int], Failures]:
    bar = ProgressBar("ingest", f"Candles of {len(chosen.series)} series")
    pace = Pace(len(chosen.series), Span(*span), monotonic())
    slots = asyncio.Semaphore(concurrency)
    added: dict[str, int] = {}
    failures = Failures(concurrency)

    def on_page(of: Series, candles: int, reached_ms: int) -> None:
        pace.page(of, candles, reached_ms)
        bar.show(pace.fraction, pace.text(monotonic()))

    async def one(wanted: Series) -> None:
        async with slots:
            if failures.is_silent:
                failures.leave(wanted.symbol)
                return
            try:
                added[wanted.symbol] = await bring_up_to_date(exchange, lake, wanted, span, progress=on_page, **how)
                failures.went_well()
            except (QuantumError, TimeoutError) as error:
                if wanted in chosen.settled and isinstance(error, VenueError | BadInputError):
                    say("%s is listed, not traded, and no candles of it are served: %s", wanted.symbol, error)
                else:
                    failures.note(wanted.symbol, error)
        pace.done(wanted)
        bar.show(pace.fraction, pace.text(monotonic()))

    try:
        async with asyncio.TaskGroup() as group:
            for wanted in chosen.series:
                group.create_task(one(wanted))
    except ExceptionGroup as unforeseen:
        raise unforeseen.exceptions[0] from None
    return added, failures


def _coverage(lake: CandleLake, chosen: Chosen, added: dict[str, int], failures: Failures) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for one in chosen.series:
        if one.symbol not in added:
            unserved = "listed, not traded, and not served" if one in chosen.settled else "not fetched"
            why = failures.told(one.symbol, unserved)
            rows.append({"symbol": one.symbol, "timeframe": str(one.timeframe), "came of it": why})
            continue
        coverage = lake.coverage(one)
        rows.append(
            {
                "symbol": one.symbol,
                "timeframe": str(one.timeframe),
                "first candle": moment(coverage.first_open_time_ms),
                "last candle": moment(coverage.last_open_time_ms),
                "candles": coverage.candles,
                "missing": coverage.missing,
                "corrections": coverage.corrections,
                "new": added[one.symbol],
                "came of it": "up to date",
            }
        )
    gone = "not traded at the venue any more"
    rows += [{"symbol": one.symbol, "timeframe": str(one.timeframe), "came of it": gone} for one in chosen.gone]
    return rows


async def _report_quality(lake: CandleLake, series: Sequence[Series], span: Span, path: Path) -> list[str]:
    """Publish what is there and what is absent, and return a sentence on each series that is short."""
    blocks = await asyncio.to_thread(lake.read_many, series, span.start_ms, span.end_ms)
    found = await asyncio.to_thread(judged, lake, blocks, span)
    stretch = f"{moment(span.start_ms)} to {moment(span.end_ms)}"
    table("quality", quality_rows(found), f"What is absent and what is suspect, {stretch}")
    markdown("coverage-map", heat_map(blocks, span), f"Which candles are stored, {stretch}")
    drawn = await asyncio.to_thread(heat_picture, found, blocks, span)
    await asyncio.to_thread(replace_bytes, path, drawn)
    picture("coverage-picture", drawn, f"Which candles are stored, {stretch}; also in {path}")
    for remark in (remark for one in found.values() for remark in one.remarks):
        say("%s", remark)
    return [one.shortfall for one in found.values() if one.shortfall is not None]


def _told(short: Sequence[str]) -> str:
    others = f"; and {len(short) - _SHOWN} other series" if len(short) > _SHOWN else ""
    return (
        f"{'; '.join(short[:_SHOWN])}{others}. Run 'qtctl ingest' again in an hour: what the venue has not given after "
        "three answers is taken for its own"
    )
