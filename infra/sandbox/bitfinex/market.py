"""What everybody may read: pairs, candles, tickers, books, trades and the state of derivatives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

from infra.sandbox.bitfinex.call import Call
from infra.sandbox.bitfinex.names import (
    CURRENCY,
    INTERVALS,
    Number,
    instrument_named,
    name_of,
    number,
    pair_of,
    plain,
)
from infra.sandbox.bitfinex.refusals import invalid
from infra.sandbox.bitfinex.shapes import Row
from infra.sandbox.engine import funding
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.market.series import DAY_MS, candles_between, open_time
from infra.sandbox.market.series import INTERVALS as LENGTHS
from infra.sandbox.market.timetable import under_maintenance
from infra.sandbox.protocol import market_data, public_trades
from infra.sandbox.protocol.params import Params
from infra.sandbox.venue import Venue

_USUAL_CANDLES, _MOST_CANDLES = 100, 10_000
_USUAL_TRADES, _MOST_TRADES = 125, 1_000
BOOK_LENGTHS = (1, 25, 100, 250)
PRECISIONS = ("P0", "R0")


def platform_status(call: Call) -> list[int]:
    """Whether the venue works: 1, or 0 under maintenance."""
    return [0 if under_maintenance(call.venue.exchange.state, call.now_ms) else 1]


def configuration(call: Call) -> list[Any]:
    """Return lists by their labels, one for each that is asked for; what this venue has nothing of is empty."""
    venue = call.venue
    listed = [one for one in venue.market.instruments if one.symbol not in venue.exchange.state.settled]
    known: dict[str, Any] = {
        "pub:info:pair:futures": [[pair_of(one), _limits(one)] for one in listed],
        "pub:list:pair:futures": [pair_of(one) for one in listed],
        "pub:list:currency": [CURRENCY, *(f"{one.base}F0" for one in listed)],
        "pub:map:currency:sym": [[CURRENCY, "USDt0"]],
    }
    return [known.get(label, []) for label in call.place[0].split(",")]


def _limits(one: Instrument) -> Row:
    # Smallest and largest size; then initial and maintenance margin.
    return [None, None, None, plain(one.step), plain(one.max_quantity), None, None, None, 0.02, 0.01]


def ticker(call: Call) -> Row:
    """Return bid, ask and the statistics of a day."""
    return ticker_row(call.venue, instrument_named(call.venue, call.place[0]), call.now_ms)


def tickers(call: Call) -> list[Row]:
    """Return the same of several contracts, each behind its name."""
    wanted = call.body.get("symbols")
    if not isinstance(wanted, str):
        raise invalid("symbols")
    names = None if wanted == "ALL" else set(wanted.split(","))
    venue = call.venue
    return [
        [name_of(one), *ticker_row(venue, one, call.now_ms)]
        for one in venue.market.instruments
        if venue.last[venue.index[one.symbol]] and (names is None or name_of(one) in names)
    ]


def ticker_row(venue: Venue, one: Instrument, now_ms: int) -> Row:
    """Return bid, ask and the statistics of a day."""
    day = market_data.ticker(venue, one.symbol, now_ms)
    best = market_data.book_ticker(venue, one.symbol, now_ms)
    opened, last = Decimal(day["openPrice"]), Decimal(day["lastPrice"])
    change = last - opened
    relative = (change / opened).quantize(Decimal("0.00000001")) if opened else Decimal(0)
    told = (best["bidPrice"], best["bidQty"], best["askPrice"], best["askQty"], change, relative)
    day_told = (last, day["volume"], day["highPrice"], day["lowPrice"])
    return [number(Decimal(one)) for one in (*told, *day_told)]


def candles(call: Call) -> list[Row] | Row:
    """Return candles; with `sort` 1 the oldest from the start on, else the newest, and those first."""
    timeframe, name, section = call.place
    one = instrument_named(call.venue, name)
    if timeframe not in INTERVALS:
        raise invalid("timeframe")
    if section not in {"hist", "last"}:
        raise invalid("section")
    limit = 1 if section == "last" else call.limit(_USUAL_CANDLES, _MOST_CANDLES)
    rows = _candles(call, one, INTERVALS[timeframe], limit)
    return (rows[0] if rows else []) if section == "last" else rows


def _candles(call: Call, one: Instrument, interval: str, limit: int) -> list[Row]:
    venue = call.venue
    now_ms = min(call.now_ms, venue.ticked_ms)
    start, end, is_oldest = call.whole("start"), call.whole("end"), str(call.body.get("sort")) == "1"
    until = now_ms if end is None else min(now_ms, end)
    if is_oldest and start is not None:
        found = market_data.oldest(
            venue, one.symbol, interval, start_ms=max(start, venue.market.first_ms), end_ms=until + 1, limit=limit,
            now_ms=now_ms,
        )  # fmt: skip
    else:
        first = open_time(interval, max(0, until)) - (limit - 1) * (LENGTHS[interval] or 31 * DAY_MS)
        first = first if start is None else max(first, start)
        found = candles_between(venue.market, venue.index[one.symbol], interval, first, until + 1, now_ms=now_ms)
        found = found.slice(max(0, len(found) - limit), len(found))
    table = market_data.rows(found, interval, one.price_decimals, one.quantity_decimals)
    rows = [candle_row(r[0], r[1], r[2], r[3], r[4], r[5]) for r in table]
    return rows if is_oldest else rows[::-1]


def candle_row(opened_ms: int, first: str, high: str, low: str, last: str, volume: str) -> Row:
    """Return a candle; the close stands before the extremes."""
    return [opened_ms, *(_number(one) for one in (first, last, high, low, volume))]


def book(call: Call) -> list[Row]:
    """Return bids and asks: by price, or as though each level were one order."""
    name, precision = call.place
    one = instrument_named(call.venue, name)
    length = call.whole("len") or 25
    if precision not in PRECISIONS:
        raise invalid("precision")
    if length not in BOOK_LENGTHS:
        raise invalid("len")
    levels = book_levels(call.venue, one, length)
    if precision == "P0":
        return [[number(price), 1, number(amount)] for price, amount in levels]
    return [[row, number(price), number(amount)] for row, (price, amount) in enumerate(levels, start=1)]


def book_levels(venue: Venue, one: Instrument, length: int) -> list[tuple[Decimal, Decimal]]:
    """Return prices and amounts, bids and then asks, best first; the amount of an ask is negative."""
    bids, asks = venue.exchange.book.depth(one, venue.last_price(one.symbol), length)
    return [*bids, *((price, -amount) for price, amount in asks)]


def trades(call: Call) -> list[Row]:
    """Return everybody's trades, newest first unless asked otherwise."""
    one = instrument_named(call.venue, call.place[0])
    limit = call.limit(_USUAL_TRADES, _MOST_TRADES)
    asked = {"symbol": one.symbol, "limit": str(limit)}
    asked |= {
        theirs: str(told) for ours, theirs in (("start", "startTime"), ("end", "endTime")) if (told := call.whole(ours))
    }
    found = public_trades.trades(call.venue, Params(asked), aggregate=False)
    rows = [trade_row(r["id"], r["time"], r["qty"], r["price"], is_sale=r["isBuyerMaker"]) for r in found]
    return rows if str(call.body.get("sort")) == "1" else rows[::-1]


def trade_row(trade_id: int, time_ms: int, quantity: str, price: str, *, is_sale: bool) -> Row:
    """Return a trade; the amount of a sale is negative."""
    amount = Decimal(quantity)
    return [trade_id, time_ms, number(-amount if is_sale else amount), _number(price)]


def derivatives(call: Call) -> list[Row]:
    """Return mark price and funding of the contracts that are asked for."""
    keys = call.body.get("keys", "ALL")
    if not isinstance(keys, str):
        raise invalid("keys")
    names = None if keys == "ALL" else set(keys.split(","))
    venue = call.venue
    chosen = [one for one in venue.market.instruments if names is None or name_of(one) in names]
    return [_derivative(venue, one, call.now_ms) for one in chosen if venue.last[venue.index[one.symbol]]]


def _derivative(venue: Venue, one: Instrument, now_ms: int) -> Row:
    interval = funding.interval_ms(one)
    following = funding.next_boundary(now_ms, interval)
    price = number(venue.last_price(one.symbol))
    rate = number(funding.rate_at(venue.seed, one.symbol, following, interval))
    row: Row = [name_of(one), now_ms, None, price, price, None, 0, None, following, rate, 0, None, rate, None, None]
    return [*row, price, None, None, 0, None, None, None, 0.0005, 0.0025]


def _number(text: str) -> Number:
    return number(Decimal(text))
