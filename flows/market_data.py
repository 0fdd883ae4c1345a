"""The flow that brings market data beside candles up to the venue's present: funding, mark, open interest and more."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.absences import Span, joined
from feature_store.clock import monotonic
from feature_store.errors import QuantumError
from feature_store.kinds.definition import FILTERS, Kind, Subject
from feature_store.kinds.expecting import is_expected, missing_times
from feature_store.kinds.store import KindStore
from feature_store.sources.kind_ingest import PageProgress, ingest_filters, ingest_kind
from feature_store.sources.kind_offers import asked_kinds, offered
from feature_store.sources.kind_pages import told_from_ms
from feature_store.venue.async_time import venue_time_ms
from flows.failures import Failures
from flows.orchestration import ProgressBar, named_by_series, passes_later, say, table
from flows.pace import Pace
from flows.settings import FlowSettings, TimeframeName, VenueName
from flows.venue import chosen_series, connected
from flows.wording import moment

_DAY_MS = 86_400_000
_NAMED = 3  # Stretches that are missing; the others are counted.
# Requests are repeated by feature_store.venue within seconds; these cover a venue that restarts.
_POLICY: dict[str, Any] = {
    "cache_policy": NO_CACHE,
    "retries": 2,
    "retry_delay_seconds": [1, 5],
    "retry_jitter_factor": 0.5,
    "retry_condition_fn": passes_later,
}


@dataclass(frozen=True, slots=True)
class Job:
    """One kind to fetch of one subject."""

    kind: Kind
    subject: Subject

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.kind} of {self.subject.symbol}"


@task(task_run_name="ask-venue-for-time-and-kinds", timeout_seconds=120, **_POLICY)
async def ask_venue(exchange: Any, settings: FlowSettings, kinds: str | None) -> tuple[int, list[Job]]:
    """Return the venue's time and what to fetch; kinds that the venue lacks are left out, unless they were named."""
    now_ms = await venue_time_ms(exchange)
    jobs = []
    chosen = await chosen_series(exchange, settings)
    if chosen.gone:
        say("Not traded at %s any more: %s", settings.venue, ", ".join(one.symbol for one in chosen.gone))
    # What is traded no more has no present, and what it was is told by nobody: only candles of it are served.
    for series in (one for one in chosen.series if one not in chosen.settled or settings.chosen_symbols()):
        given = offered(exchange, exchange.markets[series.symbol])
        wanted = asked_kinds(kinds, given, settings.venue, series.timeframe)
        jobs += [Job(kind, Subject.of(kind, series)) for kind in wanted]
    return now_ms, jobs


@task(task_run_name="filters-{venue}", timeout_seconds=600, **_POLICY)
async def look_at_instruments(
    exchange: Any, store: KindStore, subjects: Sequence[Subject], venue: str, *, repair: bool
) -> dict[Subject, int]:
    """Store what has changed about instruments, those included that the venue does not list any more."""
    if repair:
        for subject in subjects:
            store.set_aside_damaged(FILTERS, subject)
    gone = [one for one in store.subjects(FILTERS) if one.venue == venue and one.symbol not in exchange.markets]
    return await ingest_filters(exchange, store, [*subjects, *gone])


@task(task_run_name="{job.kind}-{job.subject.symbol}", timeout_seconds=1800, **_POLICY)
async def fetch(
    exchange: Any, store: KindStore, job: Job, span: tuple[int, int], *, repair: bool, progress: PageProgress
) -> int:
    """Fetch what was not asked for yet of one kind and subject, page by page; return how many rows are new."""
    done = await ingest_kind(exchange, store, job.kind, job.subject, *span, repair=repair, progress=progress)
    say("%s: %d new rows in %d pages", job.name, done.appended, done.pages)
    return done.appended


@flow(name="market-data", flow_run_name=named_by_series, timeout_seconds=3600)
async def market_data(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    kinds: str | None = None,
    repair: bool = False,  # noqa: FBT001, FBT002 - a flow's parameters are its form in the UI
) -> dict[str, int]:
    """
    Bring market data beside candles up to the venue's present; complete periods only, the book as it is now.

    A second run fetches only what is new, and an interrupted one goes on at its last page. What fails stops nothing
    else, and fails the run in the end.

    Args:
        venue: Where they come from. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all`. Left empty: QT_SYMBOLS.
        timeframe: Of mark and index candles and of open interest. Left empty: QT_TIMEFRAME, by default 5m.
        days: How far back what is not stored yet goes. Left empty: QT_DAYS, by default 30.
        kinds: Of funding, mark, index, open-interest, filters, trades, book, separated by commas, or `all`. Left
            empty: those that come once per period, as far as the venue gives them for the timeframe.
        repair: Set damaged files aside, and ask again for what was asked for before.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe, days=days)
    store = settings.kind_store()
    async with connected(settings) as exchange:
        now_ms, jobs = await ask_venue(exchange, settings, kinds)
        span = (now_ms - settings.days * _DAY_MS, now_ms)
        added, failures = await _all_jobs(exchange, store, jobs, span, settings, repair=repair)
        listed = {job: int(exchange.markets[job.subject.symbol].get("created") or 0) for job in jobs}

    spans = {job: Span(max(span[0], listed[job]), now_ms) for job in jobs}
    rows = await asyncio.to_thread(_coverage, store, jobs, added, failures, spans)
    table("market-data", rows, f"Market data beside candles at {moment(now_ms)} venue time")
    totals = {str(kind): 0 for kind in dict.fromkeys(job.kind for job in jobs)}
    for job in jobs:
        totals[str(job.kind)] += added.get(job, 0)
    say("Stored %d new rows of %s", sum(totals.values()), ", ".join(totals))
    failures.raise_first()
    return totals


async def _all_jobs(
    exchange: Any, store: KindStore, jobs: Sequence[Job], span: tuple[int, int], settings: FlowSettings, *, repair: bool
) -> tuple[dict[Job, int], Failures]:
    bar = ProgressBar("market-data", f"{len(jobs)} kinds of market data and symbols")
    pace = Pace(len(jobs), Span(*span), monotonic(), unit="rows")
    added: dict[Job, int] = {}
    failures = Failures(settings.concurrency)

    def on_page(job: Job, rows: int, share: float) -> None:
        pace.moved(job.name, rows, share)
        bar.show(pace.fraction, pace.text(monotonic()))

    looked_at = [job for job in jobs if job.kind is FILTERS]
    if looked_at:
        added |= await _all_filters(exchange, store, looked_at, settings.venue, failures, repair=repair)
    for job in looked_at:
        on_page(job, added.get(job, 0), 1.0)
    slots = asyncio.Semaphore(settings.concurrency)

    async def one(job: Job) -> None:
        async with slots:
            if failures.is_silent:
                failures.leave(job.name)
                return
            try:
                added[job] = await fetch(exchange, store, job, span, repair=repair, progress=partial(on_page, job))
                failures.went_well()
            except (QuantumError, TimeoutError) as error:
                failures.note(job.name, error, symbol=job.subject.symbol)
        on_page(job, 0, 1.0)

    try:
        async with asyncio.TaskGroup() as group:
            for job in jobs:
                if job.kind is not FILTERS:
                    group.create_task(one(job))
    except ExceptionGroup as unforeseen:
        raise unforeseen.exceptions[0] from None
    return added, failures


async def _all_filters(
    exchange: Any, store: KindStore, jobs: Sequence[Job], venue: str, failures: Failures, *, repair: bool
) -> dict[Job, int]:
    try:
        new = await look_at_instruments(exchange, store, [job.subject for job in jobs], venue, repair=repair)
    except (QuantumError, TimeoutError) as error:
        failures.note(str(FILTERS), error)
        return {}
    failures.went_well()
    return {job: new[job.subject] for job in jobs}


def _coverage(
    store: KindStore, jobs: Sequence[Job], added: dict[Job, int], failures: Failures, spans: Mapping[Job, Span]
) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for job in jobs:
        if job not in added:
            why = failures.told(str(FILTERS) if job.kind is FILTERS else job.name, "not fetched")
            rows.append({"kind": str(job.kind), "symbol": job.subject.symbol, "came of it": why})
            continue
        coverage = store.coverage(job.kind, job.subject)
        rows.append(
            {
                "kind": str(job.kind),
                "symbol": job.subject.symbol,
                "timeframe": str(job.subject.timeframe or "-"),
                "first": moment(coverage.first_ms),
                "last": moment(coverage.last_ms),
                "rows": coverage.rows,
                "corrections": coverage.corrections,
                "new": added[job],
                **completeness(store, job, spans[job]),
                "came of it": "up to date",
            }
        )
    return rows


def completeness(store: KindStore, job: Job, span: Span) -> dict[str, Any]:
    """
    Return how many rows a span should hold, how many are there, and which are missing; dashes where none can know.

    Of a kind of which venues do not tell the whole span, what they tell is expected.
    """
    kind, subject = job.kind, job.subject
    if not is_expected(kind):
        return {"expected": "-", "found": "-", "missing": "-"}
    span = Span(max(span.start_ms, told_from_ms(kind, span.end_ms)), span.end_ms)
    times = store.read(kind, subject, span.start_ms, span.end_ms).time_ms
    missing = missing_times(kind, subject, times, span)
    if missing is None:
        return {"expected": "-", "found": "-", "missing": "-"}
    return {"expected": len(times) + len(missing), "found": len(times), "missing": _named(missing, subject)}


def _named(missing: npt.NDArray[np.int64], subject: Subject) -> str:
    """Say how many rows are missing, and which: periods in a row by the first and the last of them."""
    if len(missing) == 0:
        return "none"
    step = subject.timeframe.milliseconds if subject.timeframe else 1
    spans = joined([Span(time, time + step) for time in missing.tolist()])
    ends = [(moment(one.start_ms), moment(one.end_ms - step)) for one in spans[:_NAMED]]
    said = [first if first == last else f"{first} to {last}" for first, last in ends]
    more = f" and {len(spans) - _NAMED} more" if len(spans) > _NAMED else ""
    return f"{len(missing)}: {', '.join(said)}{more}"
