"""The flow that brings the candle lake up to the venue's present."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.candle import Series
from feature_store.lake import CandleLake
from feature_store.venue.async_time import venue_time_ms
from flows.orchestration import ProgressBar, named_by_series, passes_later, say, table
from flows.settings import FlowSettings, TimeframeName, VenueName
from flows.venue import chosen_series, connected, update_series
from flows.wording import moment

_DAY_MS = 86_400_000
# Requests are repeated by feature_store.venue within seconds; these cover a venue that restarts.
_POLICY: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": passes_later,
}


@task(task_run_name="ask-venue-for-time-and-symbols", timeout_seconds=120, **_POLICY)
async def ask_venue(exchange: Any, settings: FlowSettings) -> tuple[int, list[Series]]:
    """Return the venue's time and the series to bring up to date."""
    return await venue_time_ms(exchange), await chosen_series(exchange, settings)


@task(task_run_name="ingest-{series.symbol}-{series.timeframe}", timeout_seconds=1800, **_POLICY)
async def bring_up_to_date(exchange: Any, lake: CandleLake, series: Series, span: tuple[int, int], **how: bool) -> int:
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
) -> dict[str, int]:
    """
    Bring every series of the candle lake up to the venue's present; closed candles only.

    A second run fetches only what is new.

    Args:
        venue: Where candles come from. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all`. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How far back a series goes that is not in the lake yet. Left empty: QT_DAYS, by default 30.
        repair: Set damaged files aside and fetch gaps again.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe, days=days)
    lake = CandleLake(settings.lake)
    async with connected(settings) as exchange:
        now_ms, series = await ask_venue(exchange, settings)
        span = (now_ms - settings.days * _DAY_MS, now_ms)
        added = await _all_series(exchange, lake, series, span, settings.concurrency, repair=repair)

    table("coverage", _coverage(lake, series, added), f"Candle lake at {moment(now_ms)} venue time")
    say("Ingested %d new candles of %d series", sum(added.values()), len(series))
    return added


async def _all_series(
    exchange: Any, lake: CandleLake, series: Sequence[Series], span: tuple[int, int], concurrency: int, **how: bool
) -> dict[str, int]:
    bar = ProgressBar("ingest", f"Candles of {len(series)} series")
    slots = asyncio.Semaphore(concurrency)
    added: dict[str, int] = {}

    async def one(wanted: Series) -> None:
        async with slots:
            added[wanted.symbol] = await bring_up_to_date(exchange, lake, wanted, span, **how)
        bar.show(len(added) / len(series), wanted.symbol)

    try:
        async with asyncio.TaskGroup() as group:
            for wanted in series:
                group.create_task(one(wanted))
    except ExceptionGroup as failures:
        # The first one says what to do; the others say the same of other series.
        raise failures.exceptions[0] from None
    return added


def _coverage(lake: CandleLake, series: Sequence[Series], added: dict[str, int]) -> list[dict[str, Any]]:
    rows = []
    for one in series:
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
                "new": added.get(one.symbol, 0),
            }
        )
    return rows
