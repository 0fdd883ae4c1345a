"""The order book around a last price: spread, depth, and what a taker pays."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal
from itertools import islice

from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import ZERO, Side

LEVELS = 50
_BPS = Decimal(10_000)


@dataclass(frozen=True, slots=True)
class BookModel:
    """
    Turn a last price into bids and asks.

    The book is a function of the last price alone, so that depth, bookTicker and fills can never disagree.
    Level k is `gap_bps` beyond level k-1 and holds (1 + k/4) times the instrument's depth: a taker who wants
    more pays for it, which is the slippage model.
    """

    spread_bps: Decimal = Decimal(1)
    gap_bps: Decimal = Decimal("0.5")

    def best(self, instrument: Instrument, last: Decimal, side: Side) -> Decimal:
        """Best ask for a BUY taker, best bid for a SELL taker."""
        half = last * self.spread_bps / 2 / _BPS
        rounding = ROUND_CEILING if side is Side.BUY else ROUND_FLOOR
        return (last + side.sign * half).quantize(instrument.tick, rounding=rounding)

    def levels(self, instrument: Instrument, last: Decimal, side: Side) -> Iterator[tuple[Decimal, Decimal]]:
        """Price and quantity of each level that a taker of `side` meets, best first."""
        best = self.best(instrument, last, side)
        tick, step = instrument.tick, instrument.step
        gap = max(tick, (last * self.gap_bps / _BPS).quantize(tick))
        for k in range(LEVELS):
            price = best + side.sign * gap * k
            if price <= 0:
                return
            size = (instrument.depth_notional * (4 + k) / 4 / price).quantize(step, rounding=ROUND_FLOOR)
            yield price, max(size, step)

    def depth(self, instrument: Instrument, last: Decimal, limit: int) -> tuple[list[tuple[Decimal, Decimal]], ...]:
        """Bids and asks, best first."""
        bids = list(islice(self.levels(instrument, last, Side.SELL), limit))
        asks = list(islice(self.levels(instrument, last, Side.BUY), limit))
        return bids, asks

    def displayed(self, instrument: Instrument, last: Decimal, side: Side, price: Decimal) -> Decimal:
        """Quantity displayed at a price among those that a taker of `side` meets."""
        return next((size for level, size in self.levels(instrument, last, side) if level == price), ZERO)

    def walk(
        self, instrument: Instrument, last: Decimal, side: Side, *, quantity: Decimal, limit: Decimal | None
    ) -> list[tuple[Decimal, Decimal]]:
        """Fills a taker gets now, level by level, no worse than `limit`; may add up to less than `quantity`."""
        fills: list[tuple[Decimal, Decimal]] = []
        for price, size in self.levels(instrument, last, side) if quantity > ZERO else ():
            if limit is not None and (price - limit) * side.sign > 0:
                break
            taken = min(size, quantity)
            fills.append((price, taken))
            quantity -= taken
            # Most takers need one level; the next is not even made.
            if quantity <= ZERO:
                break
        return fills
