"""Reading a venue from a flow: connect by settings, choose the series, fetch what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from feature_store.candle import Series, Timeframe
from feature_store.errors import BadInputError, UnknownSymbolError, VenueUnavailableError
from feature_store.lake import CandleLake
from feature_store.sources.ingest import Ingested, ingest_series
from feature_store.venue.errors import VenueError
from feature_store.venue.factory import create_exchange
from feature_store.venue.retry import retrying
from flows.settings import FlowSettings


@contextlib.asynccontextmanager
async def connected(settings: FlowSettings) -> AsyncIterator[Any]:
    """
    Hold a ccxt exchange for the configured venue; reading candles needs no key.

    Raises:
        BadInputError: The sandbox's address is not known.
    """
    if settings.venue == "sandbox" and not settings.venue_address:
        raise BadInputError(
            "The address of the sandbox exchange is not known; start it with 'qtctl up', "
            "set QT_VENUE_URL to it, or choose another venue with QT_VENUE"
        )
    exchange = create_exchange(settings.venue, url=settings.venue_address, pro=False)
    try:
        yield exchange
    finally:
        await exchange.close()


async def chosen_series(exchange: Any, settings: FlowSettings) -> list[Series]:
    """
    Return the series of the chosen symbols, or of all USDT instruments that trade at the venue.

    Raises:
        UnknownSymbolError: A chosen symbol is not listed.
        BadInputError: The venue lists nothing to trade.
    """
    markets: dict[str, dict[str, Any]] = await retrying(lambda: exchange.load_markets(), exchange=exchange)  # noqa: PLW0108 - looked up at each try
    listed = sorted(symbol for symbol, market in markets.items() if _trades(market, settings.venue))
    chosen = settings.chosen_symbols() or tuple(listed)
    for symbol in chosen:
        if symbol not in markets:
            raise UnknownSymbolError(symbol, settings.venue, listed)
    if not chosen:
        raise BadInputError(f"Venue {settings.venue} lists no USDT instrument; name symbols with QT_SYMBOLS")
    timeframe = Timeframe.parse(settings.timeframe)
    return [Series(settings.venue, symbol, timeframe) for symbol in chosen]


async def refuse_unlisted(settings: FlowSettings) -> None:
    """
    Refuse symbols that the venue does not list, as far as the venue can be asked from here.

    Raises:
        UnknownSymbolError: A chosen symbol is not listed.
    """
    if settings.chosen_symbols() is None or (settings.venue == "sandbox" and not settings.venue_address):
        return
    with contextlib.suppress(VenueError, VenueUnavailableError):
        async with connected(settings) as exchange:
            await chosen_series(exchange, settings)


def _trades(market: dict[str, Any], venue: str) -> bool:
    if market.get("active") is False or market.get("quote") not in ("USDT", "UST"):
        return False
    return bool(market.get("spot")) if venue in ("binance", "bitfinex") else bool(market.get("linear"))


async def update_series(
    exchange: Any, lake: CandleLake, series: Series, *, start_ms: int, now_ms: int, repair: bool
) -> Ingested:
    """
    Fetch and store the closed candles that the lake lacks since `start_ms`.

    Raises:
        QuantumError: The venue does not answer, or what is stored is damaged.
    """
    result = await ingest_series(exchange, lake, [series], start_ms, now_ms, concurrency=1, repair=repair)
    done = result[series]
    if done.error is not None:
        raise done.error
    return done
