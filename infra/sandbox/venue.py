"""The venue without its sockets: engine, market and audit advanced together through virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import InitVar, dataclass, field
from decimal import Decimal

import numpy as np

from infra.sandbox.arrivals import Arrivals
from infra.sandbox.audit import Auditor
from infra.sandbox.engine import countdown, funding
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import Event, Side
from infra.sandbox.engine.recorded_book import RecordedBook
from infra.sandbox.engine.spot import SpotExchange, spot_beside
from infra.sandbox.engine.spot_ledger import SpotEvent
from infra.sandbox.flow import Flow
from infra.sandbox.intrabar import Ambiguity
from infra.sandbox.market.series import DAY_MS, HOUR_MS, TICK_MS, AnyInts, Ints, from_ticks
from infra.sandbox.market.tape import Tape
from infra.sandbox.market.timetable import TimetabledMarket, under_maintenance

# Called with the venue time of each tick, its prices and its volumes, in order.
TickListener = Callable[[int, AnyInts, AnyInts], None]


@dataclass(slots=True)
class Venue:
    """Everything a request may ask about; the caller brings both clocks."""

    market: TimetabledMarket
    exchange: Exchange
    seed: int
    auditor: Auditor = field(default_factory=Auditor)
    # The last tick taken.
    ticked_ms: int = 0
    events: list[Event] = field(default_factory=list)
    listeners: list[TickListener] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    last: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    # What was traded at that tick, in steps.
    traded: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    # Recorded trades that became known at that tick, by the place of their instrument.
    prints: dict[int, Tape] = field(default_factory=dict)
    arrivals: Arrivals = field(default_factory=Arrivals)
    # Decides what recorded candles leave open; None where nothing is.
    ambiguity: Ambiguity | None = None
    # Bumped by every change to the account.
    revision: int = 0
    # A spot account in the same market; one without a balance where none is given.
    spot_account: InitVar[SpotExchange | None] = None
    spot: SpotExchange = field(init=False)
    spot_events: list[SpotEvent] = field(default_factory=list)

    def __post_init__(self, spot_account: SpotExchange | None) -> None:
        self.spot = spot_account or spot_beside(self.exchange)
        self.index = {one.symbol: i for i, one in enumerate(self.market.instruments)}
        self.last = np.zeros(len(self.market.instruments), np.int64)
        self.traded = np.zeros(len(self.market.instruments), np.int64)

    @property
    def accounts(self) -> tuple[Exchange, SpotExchange]:
        """The accounts that trade here: of contracts, and of spot."""
        return self.exchange, self.spot

    def begin(self, now_ms: int) -> None:
        """Take the prices in force at `now_ms`; what happened until then has been matched, or never was."""
        self.ticked_ms = now_ms - now_ms % TICK_MS
        market = self.market
        day, within = divmod(self.ticked_ms, DAY_MS)
        block = market.ticks(day)
        row = block.price[within // TICK_MS]
        flow = self._flow()
        self.prints = {} if flow is None else flow.prints(self.ticked_ms - TICK_MS, self.ticked_ms)
        self.traded = self._with_prints(block.volume[within // TICK_MS])
        for index, instrument in enumerate(market.instruments):
            tape = market.tape(index)
            told = 0 if tape is None else tape.price_at(self.ticked_ms)
            self.last[index] = row[index] or told or self._last_close(index)
            if self.last[index]:
                price = instrument.price(int(self.last[index]))
                for account in self.accounts:
                    account.state.last_prices[instrument.symbol] = price
            if flow is not None:
                flow.show(index, instrument.price(int(self.last[index])), self.ticked_ms)

    def _flow(self) -> Flow | None:
        """Return what was recorded beside candles, where this venue can show it."""
        book = getattr(self.exchange.book, "whole", self.exchange.book)
        return Flow(self.market, book) if isinstance(book, RecordedBook) else None

    def _with_prints(self, volume: AnyInts) -> Ints:
        traded = volume.astype(np.int64)
        for place, prints in self.prints.items():
            traded[place] += prints.quantity.sum()
        return traded

    def _last_close(self, index: int) -> int:
        for start_ms in (self.ticked_ms - 3 * DAY_MS, self.market.first_ms):
            candles = self.market.history(index, start_ms, self.ticked_ms)
            if len(candles):
                return int(candles.close[-1])
        return 0

    def advance(self, now_ms: int, *, wall_ms: float) -> None:
        """Match every tick, and every request that arrives, up to `now_ms`, in order."""
        if self.market.end_ms is not None:
            now_ms = min(now_ms, self.market.end_ms)
        while self.ticked_ms + TICK_MS <= now_ms:
            # What arrives at the moment of a tick finds the price of that tick.
            self._elapse(self.ticked_ms + TICK_MS - 1, wall_ms=wall_ms)
            self.ticked_ms += TICK_MS
            self._take(self.ticked_ms, wall_ms=wall_ms)
        self._elapse(now_ms, wall_ms=wall_ms)

    def _elapse(self, until_ms: int, *, wall_ms: float) -> None:
        for arrival in self.arrivals.due(until_ms):
            countdown.run(self.exchange, now_ms=arrival.due_ms)
            self.exchange.elapse(arrival.due_ms)
            self.arrivals.deliver(arrival)
            self.settle(wall_ms=wall_ms)
        countdown.run(self.exchange, now_ms=until_ms)
        self.exchange.elapse(until_ms)
        self.settle(wall_ms=wall_ms)

    def settle(self, *, wall_ms: float) -> None:
        """Collect the engine's events and look at protection; call after every change."""
        fresh = self.exchange.drain()
        if fresh:
            self.revision += 1
            self.events.extend(fresh)
            self.auditor.observe(self.exchange, now_ms=self.ticked_ms, wall_ms=wall_ms)
        news = self.spot.news(self.ticked_ms)
        if news:
            self.revision += 1
            self.spot_events.extend(news)

    def instrument(self, symbol: str) -> Instrument:
        """Return the instrument, or refuse as the venue does."""
        if symbol not in self.index:
            raise VenueError(-1121)
        return self.market.instruments[self.index[symbol]]

    def is_trading(self, symbol: str, now_ms: int) -> bool:
        """Whether orders are taken for the symbol."""
        if self.market.end_ms is not None and now_ms >= self.market.end_ms:
            return False
        return self.last[self.index[symbol]] > 0 and self.market.is_trading(self.index[symbol], now_ms)

    def status(self, symbol: str, now_ms: int) -> str:
        """What exchangeInfo says of the symbol."""
        if symbol in self.exchange.state.settled:
            return "CLOSE"
        return "TRADING" if self.is_trading(symbol, now_ms) else "BREAK"

    def check_open(self, now_ms: int) -> None:
        """Refuse what changes something while the venue is under maintenance."""
        if under_maintenance(self.exchange.state, now_ms):
            raise VenueError(1, "System is under maintenance.", status=503)

    def last_price(self, symbol: str) -> Decimal:
        """Last price of the symbol."""
        place = self.index[symbol]
        return self.market.instruments[place].price(int(self.last[place]))

    def mark_price(self, symbol: str) -> Decimal:
        """Mark price of the symbol: the last one, unless somebody pulled the two apart."""
        factor = self.exchange.state.mark_factors.get(symbol)
        last = self.last_price(symbol)
        return last if factor is None else last * factor

    def _take(self, tick_ms: int, *, wall_ms: float) -> None:
        if self.ambiguity is not None:
            self.ambiguity.look(self.exchange, self.index, tick_ms)
        day, within = divmod(tick_ms, DAY_MS)
        block = self.market.ticks(day)
        price, volume = block.price[within // TICK_MS], block.volume[within // TICK_MS]
        there = price > 0
        before = self.last.copy()
        flow = self._flow()
        self.prints = {} if flow is None else flow.prints(tick_ms - TICK_MS, tick_ms)
        for place, prints in self.prints.items():
            self.last[place] = prints.price[-1]
        self.last[there] = price[there]
        self.traded = self._with_prints(volume)
        shown = [(account, self._prices(account, price)) for account in self.accounts]
        countdown.run(self.exchange, now_ms=tick_ms)
        for account, prices in shown:
            if flow is not None:
                self._play(flow, account, before, tick_ms)
            self._show(account, prices, before, tick_ms)
        if flow is not None:
            for place, instrument in enumerate(self.market.instruments):
                flow.show(place, instrument.price(int(self.last[place])), tick_ms)
        if tick_ms % funding.HOUR_MS == 0:
            self._settle_funding(tick_ms)
        self.exchange.liquidate_if_needed(now_ms=tick_ms)
        if self.exchange.state.delistings:
            self._settle_delisted(tick_ms)
        self.settle(wall_ms=wall_ms)
        for listener in self.listeners:
            listener(tick_ms, price, volume)

    def _prices(self, account: Exchange, price: AnyInts) -> dict[str, Decimal]:
        """Return the prices of a tick that an account depends on."""
        # In the market's own order: that of a set differs from process to process, and with it who is matched first.
        places = sorted(self.index[symbol] for symbol in account.active_symbols())
        instruments = self.market.instruments
        return {
            instruments[place].symbol: instruments[place].price(int(price[place])) for place in places if price[place]
        }

    def _play(self, flow: Flow, account: Exchange, before: Ints, tick_ms: int) -> None:
        """Let an account meet the trades and books that were recorded since the tick before."""
        for place in sorted(self.index[symbol] for symbol in account.active_symbols()):
            price = self.market.instruments[place].price(int(before[place]))
            prints = self.prints.get(place)
            flow.play(account, place, prints, before=price, after_ms=tick_ms - TICK_MS, now_ms=tick_ms)

    def _show(self, account: Exchange, prices: dict[str, Decimal], before: Ints, tick_ms: int) -> None:
        """Match what waits in an account at a tick."""
        rules = account.state.rules
        needed = rules.bounds_volume or rules.queue
        volumes = {symbol: self._volume(symbol) for symbol in prices} if needed else {}
        account.tick(prices, now_ms=tick_ms, volumes=volumes)
        for symbol, at in prices.items() if rules.queue else ():
            # A price that falls was taken by a seller, as the stream of trades says.
            fell = self.last[self.index[symbol]] < before[self.index[symbol]]
            account.trade(symbol, at, volumes[symbol], Side.SELL if fell else Side.BUY, now_ms=tick_ms)

    def _settle_funding(self, tick_ms: int) -> None:
        rates: dict[str, Decimal] = {}
        for symbol in {one.symbol for one in self.exchange.state.open_positions()}:
            interval = funding.interval_ms(self.instrument(symbol))
            if tick_ms % interval == 0:
                rates[symbol] = funding.rate_at(self.seed, symbol, tick_ms, interval)
        self.exchange.settle_funding(rates, now_ms=tick_ms)

    def _settle_delisted(self, tick_ms: int) -> None:
        state = self.exchange.state
        for symbol, at_ms in state.delistings.items():
            if tick_ms >= at_ms and symbol not in state.settled:
                self.exchange.settle(symbol, self._settlement_price(symbol, at_ms), now_ms=tick_ms)
                self.spot.end_trading(symbol, now_ms=tick_ms)

    def _settlement_price(self, symbol: str, at_ms: int) -> Decimal:
        # What the venue settles at: the average of the last hour, so that no single price decides.
        prices = from_ticks(self.market, self.index[symbol], at_ms - HOUR_MS, at_ms).close
        if not len(prices):
            return self.last_price(symbol)
        instrument = self.instrument(symbol)
        average = instrument.price(int(prices.sum())) / len(prices)
        return average.quantize(instrument.tick)

    def touch(self, symbol: str, account: Exchange | None = None) -> None:
        """Give the engine the last price of a symbol nobody held until now; of contracts unless an account is named."""
        if symbol in self.index and (ticks := int(self.last[self.index[symbol]])):
            state = (account or self.exchange).state
            state.last_prices[symbol] = self.instrument(symbol).price(ticks)
            if state.rules.bounds_volume:
                (account or self.exchange).see_bar(symbol, self._volume(symbol), start_ms=self.ticked_ms)

    def hide_book(self, symbol: str) -> None:
        """Show no recorded book of a symbol until the next tick: the price is one that was never recorded."""
        if (flow := self._flow()) is not None:
            flow.book.show(symbol, None)

    def _volume(self, symbol: str) -> Decimal:
        place = self.index[symbol]
        return self.market.instruments[place].quantity(int(self.traded[place]))
