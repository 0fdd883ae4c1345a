"""Answers about the market: candles, tickers, depth, funding."""

from __future__ import annotations

from typing import Any

from infra.sandbox.engine import funding
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.market.series import (
    DAY_MS,
    INTERVALS,
    TICK_MS,
    Candles,
    candles_between,
    next_open,
    open_time,
)
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import Params, symbol_of
from infra.sandbox.venue import Venue

Row = list[Any]


def exchange_info(venue: Venue, now_ms: int) -> dict[str, Any]:
    """Instruments and their filters."""
    return {
        "timezone": "UTC",
        "serverTime": now_ms,
        "futuresType": "U_MARGINED",
        "rateLimits": [
            {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 2400},
            {"rateLimitType": "ORDERS", "interval": "MINUTE", "intervalNum": 1, "limit": 1200},
            {"rateLimitType": "ORDERS", "interval": "SECOND", "intervalNum": 10, "limit": 300},
        ],
        "exchangeFilters": [],
        "assets": [{"asset": "USDT", "marginAvailable": True, "autoAssetExchange": "-10000"}],
        "symbols": [
            shapes.instrument(
                one,
                status=venue.status(one.symbol, now_ms),
                first_ms=venue.market.listed_ms(index),
                delivery_ms=venue.exchange.state.delistings.get(one.symbol),
                liquidation_fee=venue.exchange.clearance.fee,
            )
            for index, one in enumerate(venue.market.instruments)
        ],
    }


def klines(venue: Venue, params: Params, now_ms: int, *, symbol: str | None = None) -> list[Row]:
    """Candles of one instrument; with a start the oldest from there, without one the newest."""
    symbol = symbol or symbol_of(params)
    instrument = venue.instrument(symbol)
    interval = params.required("interval")
    if interval not in INTERVALS:
        raise VenueError(-1120)
    limit = params.limit(500, 1500)
    start, end = params.integer("startTime"), params.integer("endTime")
    now_ms = min(now_ms, venue.ticked_ms)
    until = min(now_ms, end) if end is not None else now_ms
    length = INTERVALS[interval] or 31 * DAY_MS
    if start is None:
        start = open_time(interval, max(0, until)) - (limit - 1) * length
        found = candles_between(venue.market, venue.index[symbol], interval, start, until + 1, now_ms=now_ms)
        found = found.slice(max(0, len(found) - limit), len(found))
    else:
        start = max(start, venue.market.first_ms)
        found = oldest(venue, symbol, interval, start_ms=start, end_ms=until + 1, limit=limit, now_ms=now_ms)
    return rows(found, interval, instrument.price_decimals, instrument.quantity_decimals)


def oldest(venue: Venue, symbol: str, interval: str, *, start_ms: int, end_ms: int, limit: int, now_ms: int) -> Candles:
    """Return the oldest candles from a moment on; recorded ones have holes, so it looks until there are enough."""
    length = INTERVALS[interval] or 31 * DAY_MS
    reach = limit + 1
    while True:
        stop = min(end_ms, start_ms + reach * length)
        found = candles_between(venue.market, venue.index[symbol], interval, start_ms, stop, now_ms=now_ms)
        if len(found) >= limit or stop >= end_ms:
            return found.slice(0, limit)
        reach *= 4


def rows(candles: Candles, interval: str, price_decimals: int, quantity_decimals: int) -> list[Row]:
    """Candles as the venue's arrays of twelve."""
    price_scale, quantity_scale = 10.0**price_decimals, 10.0**quantity_decimals
    price = f"{{:.{price_decimals}f}}".format
    quantity = f"{{:.{quantity_decimals}f}}".format
    out: list[Row] = []
    columns = (
        candles.open_time.tolist(),
        (candles.open / price_scale).tolist(),
        (candles.high / price_scale).tolist(),
        (candles.low / price_scale).tolist(),
        (candles.close / price_scale).tolist(),
        (candles.volume / quantity_scale).tolist(),
        candles.quote.tolist(),
        candles.trades.tolist(),
    )
    for opened, first, high, low, last, volume, quote, trades in zip(*columns, strict=True):
        out.append(
            [
                opened,
                price(first),
                price(high),
                price(low),
                price(last),
                quantity(volume),
                next_open(interval, opened) - 1,
                f"{quote:.4f}",
                trades,
                quantity(volume / 2),
                f"{quote / 2:.4f}",
                "0",
            ]
        )
    return out


def flat_rows(table: list[Row]) -> list[Row]:
    """Rows of mark, index and premium candles, which have no volume."""
    return [[*row[:5], "0", row[6], "0", row[8], "0", "0", "0"] for row in table]


def ticker(venue: Venue, symbol: str, now_ms: int) -> dict[str, Any]:
    """Statistics of the last 24 hours."""
    place = venue.index[symbol]
    instrument = venue.market.instruments[place]
    day = _last_day(venue, place, min(now_ms, venue.ticked_ms))
    scale, unit = 10.0**instrument.price_decimals, 10.0**instrument.quantity_decimals
    decimals = instrument.price_decimals
    last = int(venue.last[place]) / scale
    volume, quote = float(day.volume.sum()) / unit, float(day.quote.sum())
    opened = float(day.open[0]) / scale if len(day) else last
    newest = venue.ticked_ms // TICK_MS
    return {
        "symbol": symbol,
        "priceChange": f"{last - opened:.{decimals}f}",
        "priceChangePercent": f"{(last / opened - 1) * 100 if opened else 0.0:.3f}",
        "weightedAvgPrice": f"{quote / volume if volume else last:.{decimals}f}",
        "lastPrice": f"{last:.{decimals}f}",
        "lastQty": f"{1 / unit:.{instrument.quantity_decimals}f}",
        "openPrice": f"{opened:.{decimals}f}",
        "highPrice": f"{(float(day.high.max()) / scale if len(day) else last):.{decimals}f}",
        "lowPrice": f"{(float(day.low.min()) / scale if len(day) else last):.{decimals}f}",
        "volume": f"{volume:.{instrument.quantity_decimals}f}",
        "quoteVolume": f"{quote:.2f}",
        "openTime": now_ms - DAY_MS,
        "closeTime": now_ms,
        "firstId": newest - DAY_MS // TICK_MS,
        "lastId": newest,
        "count": int(day.trades.sum()),
    }


def _last_day(venue: Venue, place: int, now_ms: int) -> Candles:
    base = venue.market.base_ms
    start = now_ms - now_ms % base + base - DAY_MS
    interval = next(name for name, length in INTERVALS.items() if length == base)
    return candles_between(venue.market, place, interval, start, now_ms + 1, now_ms=now_ms)


def price_ticker(venue: Venue, symbol: str, now_ms: int) -> dict[str, Any]:
    """The last price."""
    return {"symbol": symbol, "price": shapes.text(venue.last_price(symbol)), "time": now_ms}


def book_ticker(venue: Venue, symbol: str, now_ms: int) -> dict[str, Any]:
    """Best bid and ask."""
    last = venue.last_price(symbol)
    bids, asks = shapes.book_sides(venue.exchange.book, venue.instrument(symbol), last, 1)
    bid, ask = (bids[0], asks[0]) if bids and asks else (["0", "0"], ["0", "0"])
    return {
        "symbol": symbol,
        "bidPrice": bid[0],
        "bidQty": bid[1],
        "askPrice": ask[0],
        "askQty": ask[1],
        "time": now_ms,
        "lastUpdateId": venue.ticked_ms // TICK_MS,
    }


def depth(venue: Venue, params: Params, now_ms: int) -> dict[str, Any]:
    """The order book; its update id is the number of the tick it was made from."""
    symbol = symbol_of(params)
    instrument = venue.instrument(symbol)
    limit = params.integer("limit", 500) or 500
    if limit not in {5, 10, 20, 50, 100, 500, 1000}:
        raise VenueError(-4021, f"{limit} is not valid depth limit.")
    bids, asks = shapes.book_sides(venue.exchange.book, instrument, venue.last_price(symbol), limit)
    return {
        "lastUpdateId": venue.ticked_ms // TICK_MS,
        "E": now_ms,
        "T": venue.ticked_ms,
        "bids": bids,
        "asks": asks,
    }


def premium_index(venue: Venue, symbol: str, now_ms: int) -> dict[str, Any]:
    """Mark price and the funding to come."""
    mark, index = shapes.text(venue.mark_price(symbol)), shapes.text(venue.last_price(symbol))
    interval = funding.interval_ms(venue.instrument(symbol))
    following = funding.next_boundary(now_ms, interval)
    return {
        "symbol": symbol,
        "markPrice": mark,
        "indexPrice": index,
        "estimatedSettlePrice": index,
        "lastFundingRate": shapes.text(funding.rate_at(venue.seed, symbol, following, interval)),
        "interestRate": "0.00010000",
        "nextFundingTime": following,
        "time": now_ms,
    }


def funding_history(venue: Venue, params: Params, now_ms: int) -> list[dict[str, Any]]:
    """Funding rates of the past."""
    symbol = symbol_of(params)
    instrument = venue.instrument(symbol)
    limit = params.limit(100, 1000)
    step = funding.interval_ms(instrument)
    end = min(params.integer("endTime") or now_ms, now_ms)
    start = params.integer("startTime")
    start = end - (limit - 1) * step if start is None else start
    first = max(-(-start // step) * step, -(-venue.market.first_ms // step) * step)
    out: list[dict[str, Any]] = []
    for at in range(first, end + 1, step):
        if len(out) == limit:
            break
        candle = venue.market.history(venue.index[symbol], at - venue.market.base_ms, at)
        mark = shapes.text(instrument.price(int(candle.close[-1]))) if len(candle) else "0"
        rate = shapes.text(funding.rate_at(venue.seed, symbol, at, step))
        out.append({"symbol": symbol, "fundingRate": rate, "fundingTime": at, "markPrice": mark})
    return out
