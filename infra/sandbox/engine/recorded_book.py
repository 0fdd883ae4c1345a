"""A recorded order book, shown as far as one was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import Side

# Price and quantity of each level, best first.
Levels = list[tuple[Decimal, Decimal]]
Sides = tuple[Levels, Levels]


@dataclass(frozen=True, slots=True, eq=False)
class RecordedBook(BookModel):
    """
    Bids and asks as they were recorded, and those of the model where none are shown.

    Whoever leads time says what is shown. What a taker of ours took is there again with the next snapshot: a recording
    knows nothing of us.
    """

    shown: dict[str, Sides] = field(default_factory=dict)

    def show(self, symbol: str, sides: Sides | None) -> None:
        """Show bids and asks from now on, or those of the model."""
        if sides is None or not sides[0] or not sides[1]:
            self.shown.pop(symbol, None)
        else:
            self.shown[symbol] = sides

    def best(self, instrument: Instrument, last: Decimal, side: Side) -> Decimal:
        """Best ask for a BUY taker, best bid for a SELL taker."""
        met = self._met(instrument, side)
        return BookModel.best(self, instrument, last, side) if met is None else met[0][0]

    def levels(self, instrument: Instrument, last: Decimal, side: Side) -> Iterator[tuple[Decimal, Decimal]]:
        """Price and quantity of each level that a taker of `side` meets, best first."""
        met = self._met(instrument, side)
        return BookModel.levels(self, instrument, last, side) if met is None else iter(met)

    def displayed(self, instrument: Instrument, last: Decimal, side: Side, price: Decimal) -> Decimal:
        """
        Quantity displayed at a price among those that a taker of `side` meets.

        Beyond what was recorded nothing is known: as much is taken to lie there as at the last level that was.
        """
        met = self._met(instrument, side)
        if met is not None and (price - met[-1][0]) * side.sign > 0:
            return met[-1][1]
        return BookModel.displayed(self, instrument, last, side, price)

    def reaches(self, symbol: str, side: Side, price: Decimal) -> bool:
        """Whether a book is shown that would show a level of that price, if there were one."""
        sides = self.shown.get(symbol)
        if sides is None:
            return False
        return (price - sides[side is Side.BUY][-1][0]) * side.sign <= 0

    def holds(self, symbol: str, price: Decimal) -> bool:
        """Whether a price lies between the furthest bid and the furthest ask that are shown."""
        sides = self.shown.get(symbol)
        return sides is not None and sides[0][-1][0] <= price <= sides[1][-1][0]

    def _met(self, instrument: Instrument, side: Side) -> Levels | None:
        sides = self.shown.get(instrument.symbol)
        return None if sides is None else sides[side is Side.BUY]
