"""Recorded trades and books of one instrument, in its own ticks and steps."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from infra.sandbox.engine.book import LEVELS
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.recorded_book import Sides
from infra.sandbox.market.series import Candles, Ints, group, quote_unit

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True, eq=False)
class Tape:
    """Trades of everybody, oldest first: times in UTC milliseconds, prices in ticks, quantities in steps."""

    time_ms: Ints
    trade_id: Ints
    price: Ints
    quantity: Ints
    # Whether the seller took.
    sold: Flags

    def __len__(self) -> int:
        """Count of trades."""
        return len(self.time_ms)

    def take(self, rows: Any) -> Tape:
        """Return chosen trades."""
        return Tape(
            self.time_ms[rows], self.trade_id[rows], self.price[rows], self.quantity[rows], self.sold[rows]
        )  # fmt: skip

    def between(self, start_ms: int, end_ms: int) -> Tape:
        """Return the trades made in [start_ms, end_ms)."""
        first, last = np.searchsorted(self.time_ms, [start_ms, max(start_ms, end_ms)])
        return self.take(slice(int(first), int(last)))

    def price_at(self, time_ms: int) -> int:
        """Price of the newest trade made until a time, 0 where there is none."""
        place = int(np.searchsorted(self.time_ms, time_ms, side="right"))
        return int(self.price[place - 1]) if place else 0

    def flat(self, instrument: Instrument) -> Candles:
        """Return one candle per trade, opened at its time, to be grouped."""
        price, quantity = self.price, self.quantity
        quote = np.asarray(price * quantity.astype(np.float64) * quote_unit(instrument), np.float64)
        return Candles(self.time_ms, price, price, price, price, quantity, quote, np.ones(len(price), np.int64))

    def grouped(self, instrument: Instrument, length_ms: int) -> Candles:
        """Return the candles of a length, in milliseconds, that the trades make."""
        return group(self.flat(instrument), self.time_ms - self.time_ms % length_ms)


@dataclass(frozen=True, slots=True, eq=False)
class Snapshots:
    """Books as they were recorded, oldest first; snapshot k has the rows from `begins[k]` to `begins[k + 1]`."""

    time_ms: Ints
    begins: Ints
    is_bid: Flags
    price: Ints
    quantity: Ints

    def newest(self, time_ms: int) -> int:
        """Return the number of the newest snapshot made until a time, -1 where there is none."""
        return int(np.searchsorted(self.time_ms, time_ms, side="right")) - 1

    def between(self, after_ms: int, until_ms: int) -> range:
        """Return the numbers of the snapshots made in (after_ms, until_ms]."""
        return range(self.newest(after_ms) + 1, self.newest(until_ms) + 1)

    def sides(self, number: int, instrument: Instrument) -> Sides:
        """Return bids and asks of a snapshot, best first, no more of them than a book of the venue has."""
        rows = slice(int(self.begins[number]), int(self.begins[number + 1]))
        price, quantity, is_bid = self.price[rows], self.quantity[rows], self.is_bid[rows]

        def side(chosen: Flags) -> list[tuple[Any, Any]]:
            # Less than a step cannot be asked for.
            kept = np.flatnonzero(chosen & (quantity > 0))[:LEVELS]
            return [(instrument.price(int(price[k])), instrument.quantity(int(quantity[k]))) for k in kept]

        return side(is_bid), side(~is_bid)
