"""Market data of spot: what the contracts' own market data is, in spot's form."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import msgspec

from feature_store.json_text import UNREADABLE
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.spot_checks import MAX_OPEN_ALGOS, MAX_OPEN_ORDERS
from infra.sandbox.handlers.call import Call, symbols
from infra.sandbox.protocol import market_data, public_trades
from infra.sandbox.protocol.params import Params, symbol_of
from infra.sandbox.protocol.shapes import book_sides, text
from infra.sandbox.spot import shapes
from infra.sandbox.venue import Venue

WEIGHT_1M, ORDERS_10S, ORDERS_1D = 6_000, 100, 200_000
_MOST_CANDLES, _MOST_LEVELS = 1_000, 5_000
Row = dict[str, Any]


def ping(call: Call) -> Any:
    """Nothing, which says that the venue is there."""
    del call
    return {}


def exchange_info(call: Call) -> Any:
    """Instruments and their filters: of a symbol, of several, or all."""
    venue = call.venue
    wanted = _named(call)
    listed = [one.symbol for one in venue.market.instruments] if wanted is None else wanted
    return {
        "timezone": "UTC",
        "serverTime": call.now_ms,
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": WEIGHT_1M},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": ORDERS_10S},
            {"rateLimitType": "ORDERS", "interval": "DAY", "intervalNum": 1, "limit": ORDERS_1D},
        ],
        "exchangeFilters": [
            {"filterType": "EXCHANGE_MAX_NUM_ORDERS", "maxNumOrders": MAX_OPEN_ORDERS * 10},
            {"filterType": "EXCHANGE_MAX_NUM_ALGO_ORDERS", "maxNumAlgoOrders": MAX_OPEN_ALGOS * 100},
        ],
        "symbols": [shapes.instrument(venue.spot.lots[one], status=_status(venue, one, call.now_ms)) for one in listed],
    }


def _status(venue: Venue, symbol: str, now_ms: int) -> str:
    # What a contract calls closed, spot calls a break.
    status = venue.status(symbol, now_ms)
    return "BREAK" if status == "CLOSE" else status


def _named(call: Call) -> list[str] | None:
    several = call.params.text("symbols")
    if several is None:
        return symbols(call) if call.params.text("symbol") else None
    try:
        found = msgspec.json.decode(several, type=list[str])
    except UNREADABLE:
        raise VenueError(-1100, "Illegal characters found in parameter 'symbols'.") from None
    for one in found:
        call.venue.instrument(one)
    return found


def each(write: Callable[[Venue, str, int], Row]) -> Callable[[Call], Any]:
    """Answer with one object for a symbol, with a list for several or all."""

    def handler(call: Call) -> Any:
        if call.params.text("symbol"):
            return write(call.venue, symbols(call)[0], call.now_ms)
        named = _named(call)
        return [write(call.venue, one, call.now_ms) for one in (symbols(call) if named is None else named)]

    return handler


def ticker(venue: Venue, symbol: str, now_ms: int) -> Row:
    """Statistics of the last 24 hours, with the best bid and ask."""
    row = market_data.ticker(venue, symbol, now_ms)
    best = market_data.book_ticker(venue, symbol, now_ms)
    quoted = {name: best[name] for name in ("bidPrice", "bidQty", "askPrice", "askQty")}
    return row | quoted | {"prevClosePrice": row["openPrice"]}


def rolling(call: Call) -> Any:
    """Statistics of a window that rolls; this venue keeps a day's."""
    if (call.params.text("windowSize") or "1d") != "1d":
        raise VenueError(-1130, "Data sent for parameter 'windowSize' is not valid, expected 1d.")
    return each(_rolling_ticker)(call)


def _rolling_ticker(venue: Venue, symbol: str, now_ms: int) -> Row:
    row = market_data.ticker(venue, symbol, now_ms)
    return {name: told for name, told in row.items() if name != "lastQty"}


def price(venue: Venue, symbol: str, now_ms: int) -> Row:
    """The last price."""
    del now_ms
    return {"symbol": symbol, "price": text(venue.last_price(symbol))}


def best(venue: Venue, symbol: str, now_ms: int) -> Row:
    """Best bid and ask."""
    row = market_data.book_ticker(venue, symbol, now_ms)
    return {name: row[name] for name in ("symbol", "bidPrice", "bidQty", "askPrice", "askQty")}


def klines(call: Call) -> Any:
    """Candles of one symbol."""
    call.params.limit(500, _MOST_CANDLES)
    return market_data.klines(call.venue, call.params, call.now_ms)


def average_price(call: Call) -> Any:
    """The mean of the last five minutes' prices, by what was traded."""
    symbol = symbol_of(call.params)
    asked = Params({"symbol": symbol, "interval": "1m", "limit": "5"})
    rows = market_data.klines(call.venue, asked, call.now_ms)
    volume = sum((Decimal(row[5]) for row in rows), Decimal(0))
    quote = sum((Decimal(row[7]) for row in rows), Decimal(0))
    last = call.venue.last_price(symbol)
    mean = (quote / volume).quantize(Decimal("0.00000001")) if volume else last
    return {"mins": 5, "price": text(mean), "closeTime": call.venue.ticked_ms}


def depth(call: Call) -> Any:
    """The order book; its update id is the number of the tick it was made from."""
    symbol = symbol_of(call.params)
    call.venue.instrument(symbol)
    limit = call.params.limit(100, _MOST_LEVELS)
    return book(call.venue, symbol, limit)


def book(venue: Venue, symbol: str, levels: int) -> Row:
    """Return so many levels of the book."""
    bids, asks = book_sides(venue.exchange.book, venue.instrument(symbol), venue.last_price(symbol), levels)
    update = market_data.book_ticker(venue, symbol, venue.ticked_ms)["lastUpdateId"]
    return {"lastUpdateId": update, "bids": bids, "asks": asks}


def trades(call: Call) -> Any:
    """Everybody's trades."""
    return [one | {"isBestMatch": True} for one in public_trades.trades(call.venue, call.params, aggregate=False)]


def aggregate_trades(call: Call) -> Any:
    """Everybody's trades, those of one moment and price together."""
    return [one | {"M": True} for one in public_trades.trades(call.venue, call.params, aggregate=True)]
