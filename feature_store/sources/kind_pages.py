"""Market data of the past from any venue that ccxt speaks to, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

from feature_store.absences import Span
from feature_store.errors import BadInputError
from feature_store.kinds.checking import sound_rows
from feature_store.kinds.definition import AGGREGATE_TRADES, FUNDING, INDEX, MARK, OPEN_INTEREST, TRADES, Kind, Subject
from feature_store.kinds.records import Records
from feature_store.sources.kind_replies import funding_of, interest_of, prices_of, trades_of
from feature_store.sources.plausible import refuse_other_units
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.errors import RetryableError
from feature_store.venue.retry import retrying

PAGE = 1_000
INTEREST_PAGE = 500
INTEREST_KEPT_MS = 30 * 86_400_000
"""Binance answers no open interest from before the last month."""
SETTLED_MS = {FUNDING.name: 86_400_000}
"""A venue that has published nothing for a moment this long ago has nothing for it; an hour, where nothing is said."""
_HOUR_MS = 3_600_000  # ccxt asks for the trades of one hour, where it is told a time.

_MAKES_NO_SENSE = (BadInputError, IndexError, KeyError, TypeError, ValueError, AttributeError)
# ccxt reads an HTML page or half a JSON document with status 200 as "nothing": only a repeated answer is believed.
_EMPTY_ANSWERS = 3

_NEWEST = 3
_LONG_LISTED_MS = 2 * 86_400_000  # By then there was funding, and whatever is counted more often.

Call = Callable[[int | None, int], Awaitable[Any]]
"""Asks for rows since a moment, or for the newest, and at most for how many."""
Read = Callable[[Subject, Any], Records]


@dataclass(frozen=True, slots=True)
class Page:
    """Rows that the venue answered; with them, all rows with times before `whole_until_ms` are there."""

    records: Records
    whole_until_ms: int


@dataclass(frozen=True, slots=True)
class _Errand:
    """What is to be fetched."""

    exchange: Any
    kind: Kind
    subject: Subject
    span: Span
    now_ms: int
    # Something once rows were found to be readable.
    looked: list[bool] = field(default_factory=list)

    @property
    def settled_ms(self) -> int:
        """Until when the absence of a row says that there is none."""
        return self.now_ms - SETTLED_MS.get(self.kind.name, _HOUR_MS)

    def empty_until(self, time_ms: int) -> Page:
        """Return a page that says that there is nothing up to a moment, as far as that can be said by now."""
        until_ms = min(time_ms, self.span.end_ms, self.settled_ms)
        return Page(Records.empty(self.kind), max(until_ms, self.span.start_ms))

    def page(self, records: Records, whole_until_ms: int) -> Page:
        """Return a page of those rows that were asked for."""
        wanted = records.between(self.span.start_ms, self.span.end_ms)
        return Page(wanted, min(whole_until_ms, self.span.end_ms))

    async def ask(self, ask: Call, read: Read, since_ms: int) -> Records:
        """
        Return what a reply says of the time since a moment, in order; one that makes no sense is asked for again.

        Before "none" is believed the newest rows are looked at.

        Raises:
            QuantumError: The venue does not answer, or nothing usable, after several attempts.
        """
        empty = 0

        async def once() -> Records:
            nonlocal empty
            reply = await ask(since_ms, PAGE)
            try:
                records = read(self.subject, reply)
                if len(records) == 0 and empty + 1 >= _EMPTY_ANSWERS and since_ms < self.settled_ms:
                    await self._refuse_unreadable(ask, read)
                now_ms = self.now_ms
                if len(records) and records.time_ms.max() > now_ms:
                    now_ms = await venue_time_ms(self.exchange)
                _refuse_other_times(records, since_ms, now_ms)
                # Of a candle that has not closed, only its time is judged: it is left out.
                closed = records.take(records.time_ms < self.span.end_ms)
                sound_rows(self.subject, closed, now_ms)
            except _MAKES_NO_SENSE as error:
                # A page that makes no sense was damaged on its way more often than at its source.
                raise RetryableError(
                    f"Venue {self.subject.venue!r} sent unusable {self.kind} of {self.subject.symbol}: {error}"
                ) from error
            empty += len(records) == 0
            if len(records):
                self.looked.append(True)
            if len(records) == 0 and empty < _EMPTY_ANSWERS and since_ms < self.settled_ms:
                raise RetryableError(f"Venue {self.subject.venue!r} sent no {self.kind} of {self.subject.symbol}")
            return records.take(records.order())

        return await retrying(once, exchange=self.exchange)

    async def _refuse_unreadable(self, ask: Call, read: Read) -> None:
        """
        Look at the newest rows before "none" is believed: ccxt drops rows from before `since`, those in seconds too.

        Raises:
            BadInputError: Their times are no milliseconds, or an instrument that has long been listed has no row.
        """
        if self.looked:
            return
        newest = read(self.subject, await ask(None, _NEWEST))
        refuse_other_units(self.subject.symbol, newest.time_ms)
        listed_ms = self.exchange.markets[self.subject.symbol].get("created")
        if len(newest) == 0 and listed_ms is not None and listed_ms < self.now_ms - _LONG_LISTED_MS:
            raise BadInputError("not even the newest could be read; the answer may be no JSON")
        self.looked.append(True)


def told_from_ms(kind: Kind, now_ms: int) -> int:
    """Return from when on a venue is asked for a kind: of earlier times none tells."""
    # An hour less: the venue's clock runs on while it is asked.
    return now_ms - INTEREST_KEPT_MS + _HOUR_MS if kind is OPEN_INTEREST else 0


async def fetch_pages(exchange: Any, kind: Kind, subject: Subject, span: Span, now_ms: int) -> AsyncIterator[Page]:
    """
    Yield the complete rows with times in a span, oldest first, a page at a time.

    Args:
        exchange: From `create_exchange`, with its instruments loaded.
        kind: What is wanted; of filters and books there is no past.
        subject: Of which instrument.
        span: From when on, and up to when.
        now_ms: The venue's time.

    Raises:
        QuantumError: The venue does not answer, or refuses, after several attempts.
        BadInputError: Nothing of the past is kept of this kind.
    """
    fetch = _FETCH.get(kind.name)
    if fetch is None:
        raise BadInputError(f"Of {kind} a venue tells only the present")
    if subject.timeframe is not None:
        step = subject.timeframe.milliseconds
        # Of candles those that have closed, of counts those that were made.
        closed = now_ms // step * step + (0 if kind.is_candle else 1)
        span = Span(-(-span.start_ms // step) * step, min(span.end_ms, closed))
    else:
        span = Span(span.start_ms // kind.grid_ms * kind.grid_ms, span.end_ms)
    if span.start_ms < span.end_ms:
        async for page in fetch(_Errand(exchange, kind, subject, span, now_ms)):
            yield page


async def _funding(errand: _Errand) -> AsyncIterator[Page]:
    since_ms = errand.span.start_ms
    while since_ms < errand.span.end_ms:
        records = await errand.ask(_funding_call(errand), funding_of, since_ms)
        if len(records) == 0:
            yield errand.empty_until(errand.span.end_ms)
            return
        since_ms = int(records.time_ms[-1]) + errand.kind.grid_ms
        yield errand.page(records, since_ms)


def _funding_call(errand: _Errand) -> Call:
    return lambda since, limit: errand.exchange.fetch_funding_rate_history(errand.subject.symbol, since, limit)


async def _candles(errand: _Errand) -> AsyncIterator[Page]:
    assert errand.subject.timeframe is not None
    step, since_ms = errand.subject.timeframe.milliseconds, errand.span.start_ms
    while since_ms < errand.span.end_ms:
        most = min(PAGE, (errand.span.end_ms - since_ms) // step + 1)
        records = await errand.ask(_candle_call(errand, most), prices_of(errand.kind), since_ms)
        if len(records) == 0:
            yield errand.empty_until(errand.span.end_ms)
            return
        since_ms = int(records.time_ms[-1]) + step
        yield errand.page(records, since_ms)


def _candle_call(errand: _Errand, most: int) -> Call:
    exchange, subject = errand.exchange, errand.subject
    fetch = exchange.fetch_mark_ohlcv if errand.kind is MARK else exchange.fetch_index_ohlcv
    return lambda since, limit: fetch(subject.symbol, str(subject.timeframe), since, min(limit, most))


async def _open_interest(errand: _Errand) -> AsyncIterator[Page]:
    assert errand.subject.timeframe is not None
    step = errand.subject.timeframe.milliseconds
    since_ms = max(errand.span.start_ms, -(-told_from_ms(errand.kind, errand.now_ms) // step) * step)
    while since_ms < errand.span.end_ms:
        records = await errand.ask(_interest_call(errand), interest_of, since_ms)
        if len(records) == 0:
            since_ms += INTEREST_PAGE * step
            yield errand.empty_until(since_ms)
            continue
        since_ms = int(records.time_ms[-1]) + step
        yield errand.page(records, since_ms)


def _interest_call(errand: _Errand) -> Call:
    subject = errand.subject
    return lambda since, limit: errand.exchange.fetch_open_interest_history(
        subject.symbol, str(subject.timeframe), since, min(limit, INTEREST_PAGE)
    )


async def _numbered_trades(errand: _Errand) -> AsyncIterator[Page]:
    """Find the first trade by its time, then follow the numbers."""
    since_ms, number = errand.span.start_ms, None
    while since_ms < errand.span.end_ms:
        records = await errand.ask(_trade_call(errand, number), trades_of(errand.kind, number or 0), since_ms)
        if len(records) == 0:
            since_ms = errand.span.end_ms if number is not None else since_ms + _HOUR_MS
            yield errand.empty_until(since_ms)
            continue
        number, since_ms = int(records["trade_id"].max()) + 1, int(records.time_ms[-1])
        # More trades of the same millisecond may follow.
        yield errand.page(records, since_ms)


async def _timed_trades(errand: _Errand) -> AsyncIterator[Page]:
    """Follow the times, where a venue cannot be asked by number; a page begins with the end of the one before."""
    since_ms = errand.span.start_ms
    while since_ms < errand.span.end_ms:
        records = await errand.ask(_trade_call(errand, None), trades_of(errand.kind), since_ms)
        if len(records) == 0:
            return
        last_ms = int(records.time_ms[-1])
        if last_ms == since_ms and len(records) >= PAGE:
            raise BadInputError(
                f"{errand.subject.symbol} has more than {PAGE} trades in the millisecond {since_ms}; "
                f"venue {errand.subject.venue} cannot be asked for the rest"
            )
        whole = last_ms if len(records) >= PAGE else last_ms + 1
        yield errand.page(records, whole)
        if last_ms == since_ms:
            return
        since_ms = whole


def _trade_call(errand: _Errand, number: int | None) -> Call:
    exchange, symbol = errand.exchange, errand.subject.symbol
    if number is None:
        return lambda since, limit: exchange.fetch_trades(symbol, since, limit)
    # By its number, whenever it was; the newest without.
    return lambda since, limit: exchange.fetch_trades(symbol, None, limit, {} if since is None else {"fromId": number})


def _refuse_other_times(records: Records, since_ms: int, now_ms: int) -> None:
    if len(records) == 0:
        return
    oldest_ms, newest_ms = int(records.time_ms.min()), int(records.time_ms.max())
    if newest_ms > now_ms:
        raise BadInputError(f"a row of {newest_ms} ms lies in the future (it is {now_ms} ms)")
    if oldest_ms < since_ms:
        raise BadInputError(f"a row of {oldest_ms} ms, asked for rows since {since_ms} ms")


_FETCH: dict[str, Callable[[_Errand], AsyncIterator[Page]]] = {
    FUNDING.name: _funding,
    MARK.name: _candles,
    INDEX.name: _candles,
    OPEN_INTEREST.name: _open_interest,
    AGGREGATE_TRADES.name: _numbered_trades,
    TRADES.name: _timed_trades,
}
