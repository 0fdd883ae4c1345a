"""Answers about everybody's trades: one per tick at which something was traded, numbered by the tick."""

from __future__ import annotations

from typing import Any

import numpy as np

from infra.sandbox.market.series import TICK_MS, Candles, from_ticks
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import Params, symbol_of
from infra.sandbox.venue import Venue


def trades(venue: Venue, params: Params, *, aggregate: bool) -> list[dict[str, Any]]:
    """Public trades: from a number or a time on, or the newest."""
    symbol = symbol_of(params)
    instrument = venue.instrument(symbol)
    limit = params.limit(500, 1000)
    newest = venue.ticked_ms // TICK_MS
    first = params.integer("fromId")
    start, end = params.integer("startTime"), params.integer("endTime")
    if first is None and start is not None:
        first = -(-start // TICK_MS)
    last = min(newest, end // TICK_MS if end is not None else newest)
    if first is None:
        first = last - limit + 1
    first = max(first, venue.market.first_ms // TICK_MS)
    found, fell = _traded(venue, venue.index[symbol], first, last, limit)
    out: list[dict[str, Any]] = []
    for opened, close, volume, sold in zip(
        found.open_time.tolist(), found.close.tolist(), found.volume.tolist(), fell, strict=True
    ):
        number = opened // TICK_MS
        price = shapes.text(instrument.price(close))
        quantity = shapes.text(instrument.quantity(volume))
        if aggregate:
            out.append({"a": number, "p": price, "q": quantity, "f": number, "l": number, "T": opened, "m": sold})
        else:
            quote = shapes.text(instrument.price(close) * instrument.quantity(volume))
            out.append(
                {"id": number, "price": price, "qty": quantity, "quoteQty": quote, "time": opened, "isBuyerMaker": sold}
            )
    return out


def _traded(venue: Venue, place: int, first: int, last: int, limit: int) -> tuple[Candles, list[bool]]:
    """Return the oldest ticks with a trade, and whether each fell; a price that falls was taken by a seller."""
    # Recorded markets are silent at times; look further until there are enough or there is no more.
    reach = limit
    while True:
        stop = min(last, first + reach - 1)
        # Whether the first one fell is told by the tick before it, wherever a page begins.
        ticks = from_ticks(venue.market, place, (first - 1) * TICK_MS, (stop + 1) * TICK_MS)
        fell = np.concatenate(([False], np.diff(ticks.close) < 0))
        wanted = np.flatnonzero((ticks.open_time >= first * TICK_MS) & (ticks.volume > 0))
        if len(wanted) >= limit or stop >= last:
            chosen = wanted[:limit]
            return _rows(ticks, chosen), fell[chosen].tolist()
        reach *= 4


def _rows(ticks: Candles, rows: np.ndarray[tuple[int], np.dtype[np.intp]]) -> Candles:
    return Candles(
        ticks.open_time[rows], ticks.open[rows], ticks.high[rows], ticks.low[rows],
        ticks.close[rows], ticks.volume[rows], ticks.quote[rows], ticks.trades[rows],
    )  # fmt: skip
