"""What was recorded between two ticks, played to an account in the order in which it happened."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import Side
from infra.sandbox.engine.recorded_book import RecordedBook, Sides
from infra.sandbox.market.series import MINUTE_MS
from infra.sandbox.market.tape import Tape
from infra.sandbox.market.timetable import TimetabledMarket


@dataclass(slots=True)
class Flow:
    """Recorded trades and books of a market, shown and matched tick by tick."""

    market: TimetabledMarket
    book: RecordedBook

    def prints(self, after_ms: int, until_ms: int) -> dict[int, Tape]:
        """Return the trades made in (after_ms, until_ms], by the place of their instrument; none are left out."""
        found = {}
        for place in range(len(self.market.instruments)):
            tape = self.market.tape(place)
            if tape is not None and len(part := tape.between(after_ms + 1, until_ms + 1)):
                found[place] = part
        return found

    def show(self, place: int, last: Decimal, now_ms: int) -> None:
        """Show the book in force at a time; one that is old, or that the price has left, is a book no more."""
        instrument, snapshots = self.market.instruments[place], self.market.snapshots(place)
        number = -1 if snapshots is None else snapshots.newest(now_ms)
        if snapshots is None or number < 0 or now_ms - int(snapshots.time_ms[number]) > self._patience_ms:
            self.book.show(instrument.symbol, None)
            return
        self.book.show(instrument.symbol, snapshots.sides(number, instrument))
        self._leave(instrument, last)

    def play(
        self, account: Exchange, place: int, prints: Tape | None, *, before: Decimal, after_ms: int, now_ms: int
    ) -> None:
        """Let an account meet what was recorded of an instrument in (after_ms, now_ms], from the price before it."""
        instrument, snapshots = self.market.instruments[place], self.market.snapshots(place)
        self.show(place, before, after_ms)
        # Of one moment trades come first: a book shows what they left.
        moments = [] if prints is None else [(at, 0, k) for k, at in enumerate(prints.time_ms.tolist())]
        if snapshots is not None:
            moments += [(int(snapshots.time_ms[k]), 1, k) for k in snapshots.between(after_ms, now_ms)]
        volume = instrument.quantity(0 if prints is None else int(prints.quantity.sum()))
        if prints is not None and account.state.rules.bounds_volume:
            account.see_bar(instrument.symbol, volume, start_ms=now_ms)
        for made_ms, is_book, number in sorted(moments):
            if is_book:
                assert snapshots is not None
                self._see(account, instrument, snapshots.sides(number, instrument))
                continue
            assert prints is not None
            price = instrument.price(int(prints.price[number]))
            self._leave(instrument, price)
            symbol, quantity = instrument.symbol, instrument.quantity(int(prints.quantity[number]))
            aggressor = Side.SELL if prints.sold[number] else Side.BUY
            # What happened at the price comes before what was behind it: the queue is served, then swept.
            account.trade(symbol, price, quantity, aggressor, now_ms=now_ms, made_ms=made_ms)
            account.tick({symbol: price}, now_ms=now_ms, made_ms=made_ms)

    @property
    def _patience_ms(self) -> int:
        return max(MINUTE_MS, self.market.base_ms)

    def _see(self, account: Exchange, instrument: Instrument, sides: Sides) -> None:
        symbol = instrument.symbol
        self.book.show(symbol, sides)
        for order in account.open_orders(symbol):
            met = order.side.opposite
            if self.book.reaches(symbol, met, order.price):
                size = self.book.displayed(instrument, order.price, met, order.price)
                account.see_level(symbol, order.side, order.price, size)

    def _leave(self, instrument: Instrument, price: Decimal) -> None:
        """Show the recorded book no more once the price is beyond all of it, until there is a newer one."""
        if price and not self.book.holds(instrument.symbol, price):
            self.book.show(instrument.symbol, None)
