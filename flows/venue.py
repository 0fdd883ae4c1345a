"""Reading a venue from a flow: connect by settings, choose the series, fetch what is missing."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from feature_store.candle import Series, Timeframe
from feature_store.derived import BASE
from feature_store.errors import BadInputError, UnknownSymbolError, VenueUnavailableError
from feature_store.lake import CandleLake
from feature_store.sources.deriving import is_derived, keep_derived, parse_derived
from feature_store.sources.ingest import Ingested, SeriesProgress, ingest_series, whole_from_ms
from feature_store.universe.selection import considered
from feature_store.venue.budget import budget_of, share
from feature_store.venue.errors import VenueError
from feature_store.venue.factory import create_exchange
from feature_store.venue.retry import retrying
from flows.settings import FlowSettings
from flows.universes import rules_of


@contextlib.asynccontextmanager
async def connected(settings: FlowSettings) -> AsyncIterator[Any]:
    """
    Hold a ccxt exchange for the configured venue; reading candles needs no key.

    All flows of this home that ask the same venue spend from one budget of request weight.

    Raises:
        BadInputError: The sandbox's address is not known.
    """
    if settings.venue == "sandbox" and not settings.venue_address:
        raise BadInputError(
            "The address of the sandbox exchange is not known; start it with 'qtctl up', "
            "set QT_VENUE_URL to it, or choose another venue with QT_VENUE"
        )
    exchange = create_exchange(settings.venue, url=settings.venue_address, pro=False)
    if budget := budget_of(settings.home, settings.venue, exchange):
        share(exchange, budget)
    try:
        yield exchange
    finally:
        await exchange.close()


@dataclass(frozen=True, slots=True)
class Chosen:
    """
    What to bring up to date, and what of the stored symbols cannot be.

    Args:
        series: What to fetch.
        gone: What is stored, and the venue does not list or trade any more.
        settled: Those to fetch that the venue lists and does not trade: it may serve nothing of them.
    """

    series: tuple[Series, ...]
    gone: tuple[Series, ...] = ()
    settled: frozenset[Series] = frozenset()


async def chosen_series(exchange: Any, settings: FlowSettings) -> Chosen:
    """
    Return the series of the chosen symbols, or of all USDT instruments that trade at the venue.

    Where the universe is followed: of all those that its rules could ever include, and also of what the venue still
    lists and does not trade any more, lest past weeks are chosen from survivors. A symbol that is stored and that the
    venue does not list any more is gone, and no bad usage.

    Raises:
        UnknownSymbolError: A chosen symbol is neither listed nor stored.
        BadInputError: The venue lists nothing to trade.
    """
    markets: dict[str, dict[str, Any]] = await retrying(lambda: exchange.load_markets(), exchange=exchange)  # noqa: PLW0108 - looked up at each try
    timeframe = Timeframe.parse(settings.timeframe)
    fitting = sorted(symbol for symbol, market in markets.items() if _fits(market, settings.venue))
    listed = [symbol for symbol in fitting if markets[symbol].get("active") is not False]
    if settings.follows_universe:
        # Not only today's members: whoever is not fetched could never join.
        rules = rules_of(settings)
        listed = [symbol for symbol in fitting if considered(symbol, rules.policy, rules.lists)]
    named = settings.chosen_symbols()
    stored = _stored(settings)
    for symbol in named or ():
        if symbol not in markets and symbol not in {one.symbol for one in stored}:
            raise UnknownSymbolError(symbol, settings.venue, listed)
    wanted = [symbol for symbol in (listed if named is None else named) if symbol in markets]
    if not wanted and named is None:
        raise BadInputError(f"Venue {settings.venue} lists no USDT instrument; name symbols with QT_SYMBOLS")
    unknown = set(stored if named is None else [one for one in stored if one.symbol in named])
    return Chosen(
        tuple(Series(settings.venue, symbol, timeframe) for symbol in wanted),
        tuple(sorted(one for one in unknown if one.timeframe is timeframe and _is_gone(markets, one, wanted))),
        frozenset(
            Series(settings.venue, symbol, timeframe) for symbol in wanted if markets[symbol].get("active") is False
        ),
    )


def _stored(settings: FlowSettings) -> list[Series]:
    return [one for one in settings.candle_lake().series() if one.venue == settings.venue]


def _is_gone(markets: dict[str, dict[str, Any]], series: Series, wanted: Sequence[str]) -> bool:
    market = markets.get(series.symbol)
    return market is None or (market.get("active") is False and series.symbol not in wanted)


async def refuse_unlisted(settings: FlowSettings) -> None:
    """
    Refuse symbols that the venue does not list and that are not stored, as far as the venue can be asked from here.

    Raises:
        UnknownSymbolError: A chosen symbol is neither listed nor stored.
    """
    if settings.chosen_symbols() is None or (settings.venue == "sandbox" and not settings.venue_address):
        return
    with contextlib.suppress(VenueError, VenueUnavailableError):
        async with connected(settings) as exchange:
            await chosen_series(exchange, settings)


def _fits(market: dict[str, Any], venue: str) -> bool:
    if market.get("quote") not in ("USDT", "UST"):
        return False
    return bool(market.get("spot")) if venue in ("binance", "bitfinex") else bool(market.get("linear"))


async def update_series(
    exchange: Any,
    lake: CandleLake,
    series: Series,
    *,
    start_ms: int,
    now_ms: int,
    repair: bool,
    derive: Sequence[Timeframe] = (),
    progress: SeriesProgress | None = None,
) -> Ingested:
    """
    Fetch and store the closed candles that the lake lacks since `start_ms`, and derive longer ones from minutes.

    A series that is derived is brought up to date through its minutes.

    Raises:
        QuantumError: The venue does not answer, or what is stored is damaged.
    """
    minutes = replace(series, timeframe=BASE)
    is_by_minutes = series != minutes and is_derived(lake, series)
    asked = minutes if is_by_minutes else series
    result = await ingest_series(
        exchange, lake, [asked], start_ms, now_ms, concurrency=1, progress=progress, repair=repair
    )
    done = result[asked]
    if done.error is not None:
        raise done.error
    longer = (*derive, series.timeframe) if is_by_minutes else tuple(derive)
    if not longer:
        return done
    added = await keep_derived(lake, minutes, longer, whole_from_ms=whole_from_ms(lake, minutes))
    return replace(done, series=series, appended=sum(added.values()) + (0 if is_by_minutes else done.appended))


def chosen_derivations(settings: FlowSettings, asked: str | None) -> tuple[Timeframe, ...]:
    """
    Return the timeframes to derive from minutes; what the environment says counts where minutes are ingested.

    Raises:
        BadInputError: One is not usable, or they were asked for and it is not minutes that are ingested.
    """
    chosen = parse_derived(settings.derive)
    if settings.timeframe == BASE:
        return chosen
    if asked and chosen:
        raise BadInputError(
            f"Longer candles are derived from minutes: use --timeframe {BASE} with --derive, was {settings.timeframe}"
        )
    return ()
