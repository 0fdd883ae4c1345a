"""The venue without its sockets: engine, market and audit advanced together through virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from infra.sandbox.arrivals import Arrivals
from infra.sandbox.audit import Auditor
from infra.sandbox.engine import countdown, funding
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import Event, Side
from infra.sandbox.intrabar import Ambiguity
from infra.sandbox.market.series import DAY_MS, HOUR_MS, TICK_MS, AnyInts, Ints, from_ticks
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
    arrivals: Arrivals = field(default_factory=Arrivals)
    # Decides what recorded candles leave open; None where nothing is.
    ambiguity: Ambiguity | None = None
    # Bumped by every change to the account.
    revision: int = 0

    def __post_init__(self) -> None:
        self.index = {one.symbol: i for i, one in enumerate(self.market.instruments)}
        self.last = np.zeros(len(self.market.instruments), np.int64)
        self.traded = np.zeros(len(self.market.instruments), np.int64)

    def begin(self, now_ms: int) -> None:
        """Take the prices in force at `now_ms`; what happened until then has been matched, or never was."""
        self.ticked_ms = now_ms - now_ms % TICK_MS
        market = self.market
        day, within = divmod(self.ticked_ms, DAY_MS)
        block = market.ticks(day)
        row = block.price[within // TICK_MS]
        self.traded = block.volume[within // TICK_MS].astype(np.int64)
        for index, instrument in enumerate(market.instruments):
            self.last[index] = row[index] or self._last_close(index)
            if self.last[index]:
                self.exchange.state.last_prices[instrument.symbol] = instrument.price(int(self.last[index]))

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

    def _take(self, tick_ms: int, *, wall_ms: float) -> None:
        if self.ambiguity is not None:
            self.ambiguity.look(self.exchange, self.index, tick_ms)
        day, within = divmod(tick_ms, DAY_MS)
        block = self.market.ticks(day)
        price, volume = block.price[within // TICK_MS], block.volume[within // TICK_MS]
        there = price > 0
        before = self.last.copy()
        self.last[there] = price[there]
        self.traded = volume.astype(np.int64)
        instruments = self.market.instruments
        # In the market's own order: that of a set differs from process to process, and with it who is matched first.
        places = sorted(self.index[symbol] for symbol in self.exchange.active_symbols())
        prices = {
            instruments[place].symbol: instruments[place].price(int(price[place])) for place in places if price[place]
        }
        countdown.run(self.exchange, now_ms=tick_ms)
        rules = self.exchange.state.rules
        needed = rules.bounds_volume or rules.queue
        volumes = {symbol: self._volume(symbol) for symbol in prices} if needed else {}
        self.exchange.tick(prices, now_ms=tick_ms, volumes=volumes)
        for symbol, at in prices.items() if rules.queue else ():
            # A price that falls was taken by a seller, as the stream of trades says.
            fell = self.last[self.index[symbol]] < before[self.index[symbol]]
            self.exchange.trade(symbol, at, volumes[symbol], Side.SELL if fell else Side.BUY, now_ms=tick_ms)
        if tick_ms % funding.HOUR_MS == 0:
            self._settle_funding(tick_ms)
        self.exchange.liquidate_if_needed(now_ms=tick_ms)
        if self.exchange.state.delistings:
            self._settle_delisted(tick_ms)
        self.settle(wall_ms=wall_ms)
        for listener in self.listeners:
            listener(tick_ms, price, volume)

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

    def _settlement_price(self, symbol: str, at_ms: int) -> Decimal:
        # What the venue settles at: the average of the last hour, so that no single price decides.
        prices = from_ticks(self.market, self.index[symbol], at_ms - HOUR_MS, at_ms).close
        if not len(prices):
            return self.last_price(symbol)
        instrument = self.instrument(symbol)
        average = instrument.price(int(prices.sum())) / len(prices)
        return average.quantize(instrument.tick)

    def touch(self, symbol: str) -> None:
        """Give the engine the last price of a symbol nobody held until now."""
        if symbol in self.index and (ticks := int(self.last[self.index[symbol]])):
            self.exchange.state.last_prices[symbol] = self.instrument(symbol).price(ticks)
            if self.exchange.state.rules.bounds_volume:
                self.exchange.see_bar(symbol, self._volume(symbol), start_ms=self.ticked_ms)

    def _volume(self, symbol: str) -> Decimal:
        place = self.index[symbol]
        return self.market.instruments[place].quantity(int(self.traded[place]))
