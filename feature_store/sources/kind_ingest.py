"""Bringing market data beside candles up to a venue's present, resumable at every page."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.kinds.asked import Asked
from feature_store.kinds.checking import sound_rows
from feature_store.kinds.definition import BOOK, FILTERS, Kind, Subject
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from feature_store.sources.kind_offers import aggregates, require_offered
from feature_store.sources.kind_pages import fetch_pages
from feature_store.sources.kind_replies import LEVELS, NOT_LISTED, book_of, filters_of
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.errors import RetryableError
from feature_store.venue.retry import retrying

PageProgress = Callable[[int, float], None]
"""Told where a fetch goes on, and of each page: how many rows it brought, and which share of the time is there now."""


@dataclass(frozen=True, slots=True)
class KindIngested:
    """What one run did for one kind of one subject."""

    kind: str
    subject: Subject
    pages: int
    fetched: int
    appended: int


async def ingest_kind(
    exchange: Any,
    store: KindStore,
    kind: Kind,
    subject: Subject,
    start_ms: int,
    now_ms: int,
    *,
    repair: bool = False,
    progress: PageProgress | None = None,
) -> KindIngested:
    """
    Fetch what was not asked for since `start_ms`, and store it page by page; an interrupted run resumes where it was.

    Of filters and books, whose past a venue does not tell, the present is stored.

    Args:
        exchange: From `create_exchange`.
        store: Where rows are stored.
        kind: What is wanted.
        subject: Of which instrument.
        start_ms: From when on.
        now_ms: Up to when: the venue's time.
        repair: Set damaged files aside, and ask again for what was asked for before.
        progress: Told where it goes on, and of each page.

    Raises:
        UnknownSymbolError: The venue does not list the symbol.
        BadInputError: The venue does not give this kind of the instrument.
        QuantumError: The venue does not answer, or not with anything usable; what was stored stays.
    """
    markets = await retrying(lambda: exchange.load_markets(), exchange=exchange)  # noqa: PLW0108  # looked up anew
    if subject.symbol not in markets:
        raise UnknownSymbolError(subject.symbol, subject.venue, sorted(markets))
    require_offered(exchange, subject, markets[subject.symbol], kind)
    if repair:
        await asyncio.to_thread(store.set_aside_damaged, kind, subject)
        await asyncio.to_thread(Asked(store.root, store.place, kind, subject).forget)
    if kind is FILTERS:
        added = await ingest_filters(exchange, store, [subject])
        return KindIngested(kind.name, subject, 1, 1, added[subject])
    if kind is BOOK:
        return await _ingest_book(exchange, store, subject)
    asked = Asked(store.root, store.place, kind, subject)
    pages = fetched = appended = 0
    # Before an instrument was listed there is nothing to ask for.
    start_ms = max(start_ms, int(markets[subject.symbol].get("created") or 0))
    length_ms = max(1, now_ms - start_ms)
    for span in await asyncio.to_thread(asked.lacking, start_ms, now_ms):
        if progress is not None:
            progress(0, (span.start_ms - start_ms) / length_ms)
        async for page in fetch_pages(exchange, kind, subject, span, now_ms):
            appended += await asyncio.to_thread(store.append, subject, page.records, arrived_ms=now_ms)
            if page.whole_until_ms > span.start_ms:
                await asyncio.to_thread(asked.note, span.start_ms, page.whole_until_ms)
            pages, fetched = pages + 1, fetched + len(page.records)
            if progress is not None:
                progress(len(page.records), (page.whole_until_ms - start_ms) / length_ms)
    return KindIngested(kind.name, subject, pages, fetched, appended)


async def ingest_filters(exchange: Any, store: KindStore, subjects: Sequence[Subject]) -> dict[Subject, int]:
    """
    Store how instruments are now, a row for each that changed; one that is not listed any more says so.

    Returns:
        How many rows of each are new.

    Raises:
        QuantumError: The venue does not answer, or not with anything usable; what was stored stays.
    """

    async def once() -> list[tuple[Subject, Records, int]]:
        markets = await exchange.load_markets(True)
        now_ms = await venue_time_ms(exchange)
        try:
            return [
                (subject, _seen(exchange, store, subject, markets.get(subject.symbol), now_ms), now_ms)
                for subject in subjects
            ]
        except (BadInputError, KeyError, TypeError, ValueError, AttributeError) as error:
            raise RetryableError(f"The venue described its instruments unusably: {error}") from error

    added = {}
    for subject, rows, now_ms in await retrying(once, exchange=exchange):
        added[subject] = await asyncio.to_thread(store.append, subject, rows, arrived_ms=now_ms)
    return added


def _seen(exchange: Any, store: KindStore, subject: Subject, market: dict[str, Any] | None, now_ms: int) -> Records:
    if market is not None:
        return filters_of(market, precision_mode=int(exchange.precisionMode), now_ms=now_ms)
    last = store.last(FILTERS, subject)
    if len(last) == 0:
        return last
    columns = {name: array.tolist() for name, array in last.columns.items()}
    return Records.of(FILTERS, [now_ms], **(columns | {"status": [NOT_LISTED]}))


async def _ingest_book(exchange: Any, store: KindStore, subject: Subject) -> KindIngested:
    # Bitfinex answers 25 levels or 100; left to itself, ccxt asks it for single orders instead.
    limit, how = (LEVELS, {}) if aggregates(exchange) else (25, {"precision": "P0"})

    async def once() -> tuple[Records, int]:
        reply = await exchange.fetch_order_book(subject.symbol, limit, how)
        now_ms = await venue_time_ms(exchange)
        try:
            rows = book_of(subject, reply, now_ms)
            return rows.take(sound_rows(subject, rows, now_ms)), now_ms
        except (BadInputError, KeyError, TypeError, ValueError, IndexError) as error:
            raise RetryableError(
                f"Venue {subject.venue!r} sent an unusable book of {subject.symbol}: {error}"
            ) from error

    rows, now_ms = await retrying(once, exchange=exchange)
    added = await asyncio.to_thread(store.append, subject, rows, arrived_ms=now_ms)
    return KindIngested(BOOK.name, subject, 1, len(rows), added)
