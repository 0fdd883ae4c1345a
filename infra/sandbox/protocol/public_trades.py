"""
Answers about everybody's trades.

Where trades were recorded they are told as they were, under the numbers they had. Elsewhere there is one per tick at
which something was traded, numbered by the tick.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from infra.sandbox.market.series import TICK_MS, Candles, from_ticks
from infra.sandbox.market.tape import Tape
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.params import Params, symbol_of
from infra.sandbox.venue import Venue


@dataclass(frozen=True, slots=True)
class Told:
    """A recorded trade as the venue writes it."""

    number: int
    price: str
    quantity: str
    quote: str
    time_ms: int
    sold: bool


def told(venue: Venue, place: int) -> Iterator[Told]:
    """Return the recorded trades that became known at the last tick, oldest first."""
    prints = venue.prints.get(place)
    return iter(()) if prints is None else _told(venue, place, prints)


def _told(venue: Venue, place: int, tape: Tape) -> Iterator[Told]:
    instrument = venue.market.instruments[place]
    for k in range(len(tape)):
        price, quantity = instrument.price(int(tape.price[k])), instrument.quantity(int(tape.quantity[k]))
        # Of less than a step nothing can be told.
        if quantity:
            yield Told(
                int(tape.trade_id[k]), shapes.text(price), shapes.text(quantity), shapes.text(price * quantity),
                int(tape.time_ms[k]), bool(tape.sold[k]),
            )  # fmt: skip


def trades(venue: Venue, params: Params, *, aggregate: bool) -> list[dict[str, Any]]:
    """Public trades: from a number or a time on, or the newest."""
    symbol = symbol_of(params)
    instrument = venue.instrument(symbol)
    limit = params.limit(500, 1000)
    tape = venue.market.tape(venue.index[symbol])
    if tape is not None:
        return _recorded(venue, venue.index[symbol], tape, params, limit, aggregate=aggregate)
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


def _recorded(
    venue: Venue, place: int, tape: Tape, params: Params, limit: int, *, aggregate: bool
) -> list[dict[str, Any]]:
    """Return recorded trades: from a number or a time on, or the newest."""
    first, start, end = params.integer("fromId"), params.integer("startTime"), params.integer("endTime")
    known = tape.between(venue.market.first_ms, min(venue.ticked_ms, end if end is not None else venue.ticked_ms) + 1)
    if first is not None:
        known = known.take(known.trade_id >= first)
    elif start is not None:
        known = known.take(known.time_ms >= start)
    is_newest = first is None and start is None
    known = known.take(known.quantity > 0).take(slice(-limit, None) if is_newest else slice(0, limit))
    chosen = list(_told(venue, place, known))
    if aggregate:
        return [
            {"a": t.number, "p": t.price, "q": t.quantity, "f": t.number, "l": t.number, "T": t.time_ms, "m": t.sold}
            for t in chosen
        ]
    return [
        {
            "id": t.number, "price": t.price, "qty": t.quantity, "quoteQty": t.quote, "time": t.time_ms,
            "isBuyerMaker": t.sold,
        }
        for t in chosen
    ]  # fmt: skip


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
