"""Closed candles from any venue that ccxt speaks to, page by page."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np

from feature_store.candle import CandleBlock, Series, validate
from feature_store.errors import BadInputError, UnknownSymbolError
from feature_store.sources.plausible import refuse_future, refuse_other_units
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.errors import RetryableError
from feature_store.venue.retry import retrying

PAGE = 1_000
"""Candles asked for at once: the most that ccxt passes on for Binance."""

# Bitfinex allows few requests and gives much with each.
_LONGER_PAGES = {"bitfinex": 10_000}

Progress = Callable[[int], None]

_MAKES_NO_SENSE = (BadInputError, IndexError, KeyError, TypeError, ValueError, AttributeError)

# ccxt reads an HTML page or half a JSON document with status 200 as "no candles": only a repeated answer is believed.
_EMPTY_ANSWERS = 3
_NEWEST = 5


async def fetch_candles(
    exchange: Any,
    series: Series,
    start_ms: int,
    end_ms: int | None = None,
    *,
    progress: Progress | None = None,
) -> AsyncIterator[CandleBlock]:
    """
    Yield the closed candles that open in `[start_ms, end_ms)`, oldest first, a page at a time.

    A candle is closed when the venue's clock, not ours, has passed its end. A caller that stores each page resumes
    after the last one stored.

    Args:
        exchange: From `create_exchange`.
        series: What to fetch.
        start_ms: Open time of the first candle wanted.
        end_ms: Where to stop; at the newest closed candle, if None or later.
        progress: Told how many candles each page brought.

    Raises:
        UnknownSymbolError: The venue does not list the symbol.
        QuantumError: The venue does not answer, or refuses, after several attempts.
    """
    await require_symbol(exchange, series)
    timeframe = series.timeframe
    closed_ms = timeframe.floor_ms(await venue_time_ms(exchange))
    end_ms = closed_ms if end_ms is None else min(end_ms, closed_ms)
    since_ms = -(-start_ms // timeframe.milliseconds) * timeframe.milliseconds
    while since_ms < end_ms:
        limit = min(page_of(series), (end_ms - since_ms) // timeframe.milliseconds + 1)
        page = await _page(exchange, series, since_ms, limit, closed_ms)
        if len(page) == 0:
            return
        wanted = page.until(end_ms)
        if len(wanted):
            if progress is not None:
                progress(len(wanted))
            yield wanted
        since_ms = int(page.open_time_ms[-1]) + timeframe.milliseconds


def page_of(series: Series) -> int:
    """Return how many candles of a series are asked for at once."""
    return _LONGER_PAGES.get(series.venue, PAGE)


async def require_symbol(exchange: Any, series: Series) -> None:
    """
    Load the venue's instruments once and check that ours is one of them.

    Raises:
        UnknownSymbolError: It is not.
    """
    markets = await retrying(lambda: exchange.load_markets(), exchange=exchange)  # noqa: PLW0108  # looked up anew
    if series.symbol not in markets:
        raise UnknownSymbolError(series.symbol, series.venue, sorted(markets))


async def _page(exchange: Any, series: Series, since_ms: int, limit: int, closed_ms: int) -> CandleBlock:
    empty = 0

    async def ask() -> CandleBlock:
        nonlocal empty
        try:
            rows = await exchange.fetch_ohlcv(series.symbol, str(series.timeframe), since=since_ms, limit=limit)
            answer = CandleBlock.from_rows(rows)
            refuse_other_units(series.symbol, answer.open_time_ms)
            page = validate(_in_order(answer), series.timeframe).since(since_ms)
            # One that opened since the clock was read is looked at again: the clock has moved on too.
            if len(page) and page.open_time_ms[-1] > closed_ms:
                refuse_future(series.symbol, page.open_time_ms, await venue_time_ms(exchange))
            if len(page) == 0 and empty + 1 >= _EMPTY_ANSWERS:
                await _refuse_unreadable(exchange, series, closed_ms)
        except _MAKES_NO_SENSE as error:
            # A page that makes no sense was damaged on its way more often than at its source.
            raise RetryableError(f"Venue {series.venue!r} sent unusable candles of {series.symbol}: {error}") from error
        empty += len(page) == 0
        if 0 < empty < _EMPTY_ANSWERS and len(page) == 0:
            raise RetryableError(f"Venue {series.venue!r} sent no candles of {series.symbol} since {since_ms} ms")
        return page

    return await retrying(ask, exchange=exchange)


async def _refuse_unreadable(exchange: Any, series: Series, closed_ms: int) -> None:
    """
    Look at the newest candles before "none" is believed.

    ccxt drops rows from before `since`, and with them any whose times are seconds.

    Raises:
        BadInputError: Their times are no milliseconds, or a symbol that has long been listed has no candle at all.
    """
    rows = await exchange.fetch_ohlcv(series.symbol, str(series.timeframe), limit=_NEWEST)
    newest = CandleBlock.from_rows(rows)
    refuse_other_units(series.symbol, newest.open_time_ms)
    listed_ms = exchange.markets[series.symbol].get("created")
    if len(newest) == 0 and listed_ms is not None and listed_ms + _NEWEST * series.timeframe.milliseconds < closed_ms:
        raise BadInputError("not even its newest candles could be read; the answer may be no JSON")


def _in_order(block: CandleBlock) -> CandleBlock:
    if (np.diff(block.open_time_ms) > 0).all():
        return block
    order = np.argsort(block.open_time_ms, kind="stable")
    times = block.open_time_ms[order]
    # Of a candle that is there twice, the later one was sent last.
    last = order[np.append(times[1:] != times[:-1], [True])]
    return CandleBlock(block.open_time_ms[last], block.values[last])
