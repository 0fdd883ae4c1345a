"""Which kinds of market data a venue gives of an instrument, and how it wants to be asked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.kinds.definition import (
    AGGREGATE_TRADES,
    BOOK,
    FILTERS,
    FUNDING,
    INDEX,
    MARK,
    OPEN_INTEREST,
    TRADES,
    Kind,
    Subject,
)

_EVERYWHERE = (FILTERS, BOOK)
_OF_PERPETUALS = (FUNDING, MARK, INDEX, OPEN_INTEREST)
TRADE_KINDS = (TRADES, AGGREGATE_TRADES)
_AGGREGATES = ("binance", "binanceusdm")

NAMES = tuple(kind.name for kind in (*_OF_PERPETUALS, FILTERS, TRADES, BOOK))
"""What people may ask for."""


def aggregates(exchange: Any) -> bool:
    """Tell whether a venue's public trades are aggregated, and paged by their number."""
    return str(exchange.id) in _AGGREGATES


def offered(exchange: Any, market: dict[str, Any]) -> tuple[Kind, ...]:
    """Return the kinds that we know how to fetch of an instrument."""
    trades = AGGREGATE_TRADES if aggregates(exchange) else TRADES
    perpetual = aggregates(exchange) and market.get("swap") and market.get("linear")
    return (*(_OF_PERPETUALS if perpetual else ()), *_EVERYWHERE, trades)


def require_offered(exchange: Any, subject: Subject, market: dict[str, Any], kind: Kind) -> None:
    """
    Check that a kind can be fetched.

    Raises:
        BadInputError: It cannot; asked all the same, ccxt might answer with another instrument's.
    """
    kinds = offered(exchange, market)
    if kind not in kinds:
        names = ", ".join(map(str, kinds))
        raise BadInputError(f"{kind} of {subject.symbol} is not fetched from venue {subject.venue}; what is: {names}")
    if _is_uncounted(kind, subject.timeframe):
        raise BadInputError("No venue counts open interest each minute; use 5m or longer with --timeframe")


def _is_uncounted(kind: Kind, timeframe: Timeframe | None) -> bool:
    return kind is OPEN_INTEREST and timeframe is Timeframe.M1


def means_all(text: str) -> bool:
    """Tell whether a person asked for all kinds, which need not all be given, and named none."""
    return _split(text) == ("all",)


def _split(text: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def named_kinds(text: str) -> tuple[str, ...]:
    """
    Return the names of kinds that a person gave, separated by commas; `all` is all of them.

    Raises:
        BadInputError: A name is unknown, or none is given.
    """
    names = _split(text)
    if means_all(text):
        return NAMES
    for name in names:
        if name not in NAMES:
            raise BadInputError(f"Unknown kind of market data {name!r}; use some of: {', '.join(NAMES)}, or all")
    if not names:
        raise BadInputError(f"No kind of market data is named; use some of: {', '.join(NAMES)}, or all")
    return names


def asked_kinds(text: str | None, given: Sequence[Kind], venue: str, timeframe: Timeframe) -> tuple[Kind, ...]:
    """
    Return the kinds that a person named, of those that a venue gives of an instrument.

    Args:
        text: Names separated by commas, or `all`; without it, what comes once per period. Unless it is named, what no
            venue gives for the timeframe is left out. `trades` are the trades that the venue publishes, single or
            aggregated.
        given: From `offered`.
        venue: For the message.
        timeframe: Of the candles and counts to ask for.

    Raises:
        BadInputError: A name is unknown, or the venue does not give the kind.
    """
    by_name = {(TRADES.name if kind in TRADE_KINDS else kind.name): kind for kind in given}
    if text is None or means_all(text):
        wanted = given if text is not None else [kind for kind in given if kind in (*_OF_PERPETUALS, FILTERS)]
        return tuple(kind for kind in wanted if not _is_uncounted(kind, timeframe))
    names = named_kinds(text)
    for name in names:
        if name not in by_name:
            raise BadInputError(f"{name} is not fetched from venue {venue}; what is: {', '.join(by_name)}")
    return tuple(by_name[name] for name in names)
