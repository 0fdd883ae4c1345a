"""A paper account at the matching engine: each change is on disk before anybody is answered or told of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from decimal import Decimal
from typing import TypeVar

from feature_store.venue.errors import OutcomeUnknownError
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderReport
from inference.exchange.engine_account import EngineAccount, refusal
from inference.exchange.paper_file import Announced, PaperFile, forget_old
from inference.exchange.paper_market import Extremes, QuotedBook, Span, engine_instrument, unlisted_instrument
from inference.telemetry.logs import logger
from infra.sandbox.engine import countdown
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Fees
from infra.sandbox.engine.instrument import Instrument as EngineInstrument
from infra.sandbox.engine.model import AccountEvent, Event

_log = logger("paper")
_T = TypeVar("_T")

_FORGET_EVERY_MS = 86_400_000
_FUNDING = "FUNDING_FEE"


@dataclass(frozen=True, slots=True)
class FundingTold:
    """Funding was paid or received; how much, the list of payments says."""


Told = OrderReport | Fill | FundingTold


class PaperDesk:
    """
    The account, and the market as it was last shown to it. Knows no network and no clock: times are arguments.

    Prices come in the order in which they were heard. Whatever time brings (ends of orders, countdowns, funding) is
    done before the next price or order. What the account's stream tells goes to `tell`, after it was written.
    """

    def __init__(
        self, file: PaperFile, *, fees: Fees, tell: Callable[[Told], None], beside_others: bool = False
    ) -> None:
        self._file = file
        self._fees = fees
        self._tell = tell
        self._beside_others = beside_others
        self._book = QuotedBook()
        self._instruments: dict[str, EngineInstrument] = {}
        self._extremes = Extremes()
        self._forgot_ms = 0
        self._load()

    def _load(self) -> None:
        self._saved = self._file.load()
        self.exchange = Exchange(self._instruments.values(), self._saved.engine, fees=self._fees, book=self._book)
        self.account = EngineAccount(self.exchange, {}, beside_others=self._beside_others)

    @property
    def is_new(self) -> bool:
        """Whether the account was made for this life."""
        return self._file.was_missing

    @property
    def heard_ms(self) -> int:
        """The venue time up to which prices were shown, 0 where none was."""
        return self._saved.heard_ms

    def active(self) -> list[str]:
        """Return the symbols with a position or an order, in a fixed order."""
        return sorted(self.exchange.active_symbols())

    def held(self) -> list[str]:
        """Return the symbols with a position, in a fixed order."""
        return sorted(one.symbol for one in self.exchange.state.open_positions())

    def know(self, instrument: Instrument) -> None:
        """Let an instrument be traded."""
        self._add(engine_instrument(instrument))

    def use_fees(self, fees: Fees) -> None:
        """Charge these from now on."""
        self._fees = self.exchange.fees = fees

    def use_leverage(self, symbol: str, leverage: int, *, now_ms: int) -> None:
        """
        Set the leverage of a symbol.

        Raises:
            OrderRefusedError: The engine allows no such leverage.
        """
        if self.exchange.state.leverage.get(symbol) != leverage:
            self.act(lambda: self.exchange.set_leverage(symbol, leverage, now_ms=now_ms), now_ms=now_ms)

    def act(self, change: Callable[[], _T], *, now_ms: int) -> _T:
        """
        Change the account, and return what came of it once that is on disk.

        Raises:
            OrderRefusedError: The engine refused it.
            OutcomeUnknownError: It could not be written, or the order may exist already; ask again.
        """
        try:
            self._pass_time(now_ms)
            return change()
        except VenueError as error:
            raise refusal(error) from error
        finally:
            self._keep(now_ms)

    def set_countdown(self, symbol: str, countdown_ms: int, *, now_ms: int) -> None:
        """Cancel a symbol's plain orders so many milliseconds from now; zero takes that back."""
        self._pass_time(now_ms)
        countdown.set_countdown(self.exchange, symbol, countdown_ms, now_ms=now_ms)
        self._keep(now_ms, anyway=True)

    def pass_time(self, now_ms: int) -> None:
        """Do what time has brought."""
        self._pass_time(now_ms)
        self._keep(now_ms)

    def hear_quote(self, quote: Quote, *, now_ms: int) -> None:
        """Show a quote: its middle is a price, and its width the spread from here on."""
        self._book.halves[quote.symbol] = max(Decimal(0), quote.ask - quote.bid) / 2
        self.show(quote.symbol, [quote.mid], now_ms=now_ms)

    def hear_candle(self, symbol: str, span: Span, *, now_ms: int, ends_at_close: bool = True) -> None:
        """
        Show what a candle tells of prices that nobody saw: adverse extreme, other extreme, close.

        `ends_at_close` is False of a candle after which other prices were heard; then the last of them stays.
        """
        youngest_ms = self._youngest_ms(symbol)
        before = self._extremes.known(symbol)
        low, high = self._extremes.news(symbol, span, youngest_ms=youngest_ms)
        last = self.exchange.state.last_prices.get(symbol)
        prices = [price for price in self._adverse_first(symbol, low, high) if price is not None]
        if span.opened is not None and prices:
            prices.insert(0, span.opened)
        if ends_at_close:
            prices.append(span.close)
        elif prices and last is not None:
            prices.append(last)
        if prices:
            try:
                self.show(symbol, prices, now_ms=now_ms)
            except OutcomeUnknownError:
                # No order has met them: told again, they are news again.
                self._extremes.put_back(symbol, before)
                raise

    def show(self, symbol: str, prices: Iterable[Decimal], *, now_ms: int) -> None:
        """Let prices be traded, in their order: what they reach fires, what they pass fills."""
        if symbol not in self.exchange.active_symbols():
            *_, self.exchange.state.last_prices[symbol] = prices
            return
        self._pass_time(now_ms)
        for price in prices:
            self.exchange.tick({symbol: price}, now_ms=now_ms)
            self.exchange.liquidate_if_needed(now_ms=now_ms)
        self._keep(now_ms)

    def announce(self, symbol: str, settlements: Iterable[Announced]) -> None:
        """Take the venue's word on settlements of funding; one that is known already is replaced."""
        known = {one.at_ms: one for one in self._saved.announced.get(symbol, ())}
        known |= {one.at_ms: one for one in settlements}
        self._saved.announced[symbol] = [known[at_ms] for at_ms in sorted(known)]

    def announced_ms(self, symbol: str) -> int:
        """Return when the next settlement of funding that is known of a symbol is, 0 where none is."""
        known = self._saved.announced.get(symbol)
        return known[-1].at_ms if known else 0

    def know_unlisted(self, symbols: Iterable[str]) -> None:
        """Let symbols be ended that the venue lists no more."""
        for symbol in symbols:
            self._add(unlisted_instrument(symbol))

    def end_unlisted(self, symbol: str, *, now_ms: int) -> None:
        """End what is held of a symbol that the venue lists no more, at the last price that was heard of it."""
        self.know_unlisted([symbol])
        price = self.exchange.state.last_prices.get(symbol)
        if price is None:
            return
        _log.warning("paper_symbol_ended", symbol=symbol, price=f"{price:f}")
        self.act(lambda: self.exchange.settle(symbol, price, now_ms=now_ms), now_ms=now_ms)

    def remember(self, now_ms: int) -> None:
        """Write down up to when the market was heard, so that a new start knows from when on it was not."""
        self._keep(now_ms, anyway=True)

    def _add(self, instrument: EngineInstrument) -> None:
        self._instruments[instrument.symbol] = self.exchange.instruments[instrument.symbol] = instrument

    def _adverse_first(self, symbol: str, low: Decimal | None, high: Decimal | None) -> tuple[Decimal | None, ...]:
        held = {one.symbol: one.quantity for one in self.exchange.state.open_positions()}.get(symbol, Decimal(0))
        return (high, low) if held < 0 else (low, high)

    def _youngest_ms(self, symbol: str) -> int:
        waiting = [one.created_ms for one in self.exchange.open_orders(symbol)]
        return max(waiting + [one.created_ms for one in self.exchange.open_algos(symbol)], default=0)

    def _pass_time(self, now_ms: int) -> None:
        # A symbol of which nothing is held or waits may be unknown after a start, and has nothing to cancel.
        countdowns, active = self.exchange.state.countdowns, self.exchange.active_symbols()
        for symbol in [one for one in countdowns if one not in self.exchange.instruments and one not in active]:
            del countdowns[symbol]
        countdown.run(self.exchange, now_ms=now_ms)
        self.exchange.elapse(now_ms)
        due = [
            (one.at_ms, symbol, one)
            for symbol, known in self._saved.announced.items()
            for one in known
            if one.at_ms <= now_ms
        ]
        for at_ms, symbol, one in sorted(due, key=lambda found: found[:2]):
            self._saved.announced[symbol].remove(one)
            self._settle_funding(symbol, one, at_ms)

    def _settle_funding(self, symbol: str, one: Announced, at_ms: int) -> None:
        marks = self.exchange.state.mark_prices
        if one.mark is not None:
            marks[symbol] = one.mark
        try:
            self.exchange.settle_funding({symbol: one.rate}, now_ms=at_ms)
        finally:
            # Between settlements nobody tells it as often as prices, and the last price is the better mark.
            marks.pop(symbol, None)

    def _keep(self, now_ms: int, *, anyway: bool = False) -> None:
        events = self.exchange.drain()
        if not events and not anyway:
            return
        self._saved.heard_ms = max(self._saved.heard_ms, now_ms)
        if now_ms - self._forgot_ms > _FORGET_EVERY_MS:
            forget_old(self.exchange.state, now_ms)
            self._forgot_ms = now_ms
        try:
            self._file.save(self._saved)
        except OSError as error:
            _log.error("paper_account_not_written", error=str(error))
            # What is on disk is what happened: memory goes back to it.
            self._load()
            raise OutcomeUnknownError(f"The paper account could not be written: {error}") from error
        for event in events:
            self._tell_of(event)

    def _tell_of(self, event: Event) -> None:
        if isinstance(event, AccountEvent):
            if event.reason == _FUNDING:
                self._tell(FundingTold())
            return
        for told in self.account.told([event]):
            self._tell(told)
