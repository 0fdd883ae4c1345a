"""The venue without its sockets: engine, market and audit advanced together through virtual time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np

from infra.sandbox.audit import Auditor
from infra.sandbox.engine import funding
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import Event
from infra.sandbox.market.series import DAY_MS, TICK_MS, AnyInts, Ints, Market

# Called with the venue time of each tick, its prices and its volumes, in order.
TickListener = Callable[[int, AnyInts, AnyInts], None]


@dataclass(slots=True)
class Venue:
    """Everything a request may ask about; the caller brings both clocks."""

    market: Market
    exchange: Exchange
    seed: int
    auditor: Auditor = field(default_factory=Auditor)
    # The last tick taken.
    ticked_ms: int = 0
    events: list[Event] = field(default_factory=list)
    listeners: list[TickListener] = field(default_factory=list)
    index: dict[str, int] = field(default_factory=dict)
    last: Ints = field(default_factory=lambda: np.zeros(0, np.int64))
    # Bumped by every change to the account.
    revision: int = 0

    def __post_init__(self) -> None:
        self.index = {one.symbol: i for i, one in enumerate(self.market.instruments)}
        self.last = np.zeros(len(self.market.instruments), np.int64)

    def begin(self, now_ms: int) -> None:
        """Take the prices in force at `now_ms`; what happened until then has been matched, or never was."""
        self.ticked_ms = now_ms - now_ms % TICK_MS
        market = self.market
        day, within = divmod(self.ticked_ms, DAY_MS)
        row = market.ticks(day).price[within // TICK_MS]
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
        """Match every tick up to `now_ms`, in order."""
        if self.market.end_ms is not None:
            now_ms = min(now_ms, self.market.end_ms)
        while self.ticked_ms + TICK_MS <= now_ms:
            self.ticked_ms += TICK_MS
            self._take(self.ticked_ms, wall_ms=wall_ms)

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

    def last_price(self, symbol: str) -> Decimal:
        """Last price of the symbol."""
        place = self.index[symbol]
        return self.market.instruments[place].price(int(self.last[place]))

    def _take(self, tick_ms: int, *, wall_ms: float) -> None:
        day, within = divmod(tick_ms, DAY_MS)
        block = self.market.ticks(day)
        price, volume = block.price[within // TICK_MS], block.volume[within // TICK_MS]
        there = price > 0
        self.last[there] = price[there]
        instruments = self.market.instruments
        prices = {
            symbol: instruments[place].price(int(price[place]))
            for symbol in self.exchange.active_symbols()
            if price[place := self.index[symbol]]
        }
        self.exchange.tick(prices, now_ms=tick_ms)
        if tick_ms % funding.INTERVAL_MS == 0:
            held = {one.symbol for one in self.exchange.state.open_positions()}
            self.exchange.settle_funding({s: funding.rate_at(self.seed, s, tick_ms) for s in held}, now_ms=tick_ms)
        self.exchange.liquidate_if_needed(now_ms=tick_ms)
        self.settle(wall_ms=wall_ms)
        for listener in self.listeners:
            listener(tick_ms, price, volume)

    def touch(self, symbol: str) -> None:
        """Give the engine the last price of a symbol nobody held until now."""
        if symbol in self.index and (ticks := int(self.last[self.index[symbol]])):
            self.exchange.state.last_prices[symbol] = self.instrument(symbol).price(ticks)
