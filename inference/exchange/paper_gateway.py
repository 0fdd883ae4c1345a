"""The trading side of a paper account: a real venue's public market, fills by the matching engine, nothing private."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from typing import Any, Protocol, TypeVar

from feature_store.candle import Candle, CandleBlock, Timeframe
from feature_store.errors import BadInputError
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import (
    OrderRefusedError,
    OutcomeUnknownError,
    RetryableError,
    VenueError,
    translate,
)
from feature_store.venue.factory import RECV_WINDOW_MS
from feature_store.venue.requests import Urgency
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderType
from inference.exchange.capabilities import Capabilities, inexpressible
from inference.exchange.guarding import EntriesBarredError, NotTheWriterError
from inference.exchange.paper_desk import PaperDesk, Told
from inference.exchange.paper_file import Announced, PaperFile
from inference.exchange.paper_market import Span
from inference.exchange.paper_told import announced, settled, span, stretches
from inference.exchange.venue_clock import VenueClock
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition
from inference.telemetry.logs import logger
from infra.sandbox.engine.fees import Fees

_log = logger("paper")
_T = TypeVar("_T")

MAKER_FEE = Fees().maker
"""What filling at rest costs, unless taking costs less; the policy knows what taking costs."""

_LOOK_SECONDS = 1.0
_REMEMBER_SECONDS = 5.0
# Prices of so many symbols are asked for one by one; of more, all at once.
_ONE_BY_ONE = 3
_FUNDING_ASKED_MS = 60_000
_FUNDING_PAGE = 1_000
# Half of what went wrong with an answer of the venue's that ccxt passes on unread.
_MAKES_NO_SENSE = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


class PublicMarket(Protocol):
    """What a venue's own gateway answers without an account."""

    @property
    def closed_seconds(self) -> float: ...  # noqa: D102

    async def connect_public(self) -> None: ...  # noqa: D102

    async def sync_clock(self, *, afresh: bool = False) -> int: ...  # noqa: D102

    def instruments(self, symbols: Iterable[str], /) -> dict[str, Instrument]: ...  # noqa: D102

    def tradable_symbols(self) -> tuple[str, ...]: ...  # noqa: D102

    async def quotes(self) -> dict[str, Quote]: ...  # noqa: D102

    async def quote(self, symbol: str, /) -> Quote: ...  # noqa: D102

    async def close(self) -> None: ...  # noqa: D102


class PastCandles(Protocol):
    """Where closed candles of the past are read: those that open after one time and have closed by another."""

    def __call__(  # noqa: D102
        self, symbol: str, timeframe: Timeframe, *, after_ms: int, closed_by_ms: int
    ) -> Awaitable[CandleBlock]: ...


class PaperGateway:
    """
    Implements `inference.execution.ports.Gateway` for an account that exists here only.

    An order meets the quote of the moment in which it arrives. What waits meets each price that is heard: quotes, asked
    for once a second of what is held or ordered, the last prices of streamed candles, and every extreme of a candle
    that none of them showed. Funding is paid when the venue settles, at the rate and mark price that it announced.

    Args:
        market: The venue's own gateway, without keys.
        exchange: Its ccxt client, which is asked for rates of funding.
        file: Where the account is kept.
        timeframe: Of the candles that are heard.
        capabilities: What the venue can express; an order that it cannot is refused here too.
        clock: The venue's time.
        monotonic: Wall seconds.
        leverage: Set before the next entry of a symbol.
        taker_fee: What taking costs, as a share of notional.
        past: Where candles are read that passed while nobody ran.
        may_write: Returns why the account may not be changed now, or nothing.
        is_writer: Whether this process is the account's one writer; while it is not, prices change nothing.
    """

    def __init__(
        self,
        market: PublicMarket,
        *,
        exchange: Any,
        file: PaperFile,
        timeframe: Timeframe,
        capabilities: Capabilities,
        clock: VenueClock,
        monotonic: Callable[[], float],
        leverage: int,
        taker_fee: Decimal,
        past: PastCandles,
        may_write: Callable[[Urgency], str] = lambda _: "",
        is_writer: Callable[[], bool] = lambda: True,
    ) -> None:
        self._market = market
        self._exchange = exchange
        self._timeframe = timeframe
        self._capabilities = capabilities
        self._clock = clock
        self._monotonic = monotonic
        self._leverage = leverage
        self._past = past
        self._may_write = may_write
        self._is_writer = is_writer
        self._why_barred: Callable[[], str] = lambda: ""
        self._listed: frozenset[str] = frozenset()
        self._is_open = False
        self._remembered = monotonic()
        self._funding_asked_ms = 0
        self._told: deque[Told] = deque()
        self.news = asyncio.Event()
        # Without take profit orders a venue holds targets by orders that only reduce, beside the stop.
        self._desk = PaperDesk(
            file, fees=_fees(taker_fee), tell=self._tell, beside_others=capabilities.target_type is OrderType.LIMIT
        )

    # -- the market ---------------------------------------------------------------------------------------------------

    @property
    def recv_window_ms(self) -> int:
        """How long a request counts as under way: as at the venues, so that nothing is sooner decided here."""
        return RECV_WINDOW_MS

    @property
    def closed_seconds(self) -> float:
        """For how long the venue still wants to hear nothing from us."""
        return self._market.closed_seconds

    async def connect(self) -> None:
        """Learn the venue's time and its markets, then show the account what it missed since it was last written."""
        await self._market.connect_public()
        self._listed = frozenset(self._exchange.markets)
        now_ms = self._now_ms()
        active = self._desk.active()
        unlisted = [symbol for symbol in active if symbol not in self._listed]
        # Time passes for all symbols at once, so that each has to be known before any is acted on.
        for symbol in active:
            if symbol in self._listed:
                self._know(symbol)
        self._desk.know_unlisted(unlisted)
        # Then what the others missed: acting is noted as having heard the market up to now.
        await self._catch_up(now_ms)
        for symbol in unlisted:
            self._desk.end_unlisted(symbol, now_ms=now_ms)
        self._is_open = True

    async def sync_clock(self, *, afresh: bool = False) -> int:
        """Ask the venue for its time once, learn from it, and return it in milliseconds since 1970 UTC."""
        return await self._market.sync_clock(afresh=afresh)

    async def venue_now_ms(self) -> int:
        """Return the venue's time."""
        return self._now_ms()

    def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        """Return steps and minimums of the symbols."""
        return self._market.instruments(symbols)

    def tradable_symbols(self) -> tuple[str, ...]:
        """Return every perpetual that can be traded, in a fixed order."""
        return self._market.tradable_symbols()

    async def quotes(self) -> dict[str, Quote]:
        """Return the best bid and ask of every symbol that has both, in one request."""
        quotes = await self._market.quotes()
        for quote in quotes.values():
            self._hear(quote)
        return quotes

    async def quote(self, symbol: str) -> Quote:
        """Return the best bid and ask of one symbol."""
        quote = await self._market.quote(symbol)
        self._hear(quote)
        return quote

    def hear_running(self, symbol: str, candle: Candle) -> None:
        """Take the candle that runs, as a stream tells it: its close is the last price."""
        self._hear_candle(symbol, candle, ends_at_close=True)

    def hear_closed(self, symbol: str, candle: Candle) -> None:
        """Take a candle that has closed; what it shows may be from before the last price."""
        self._hear_candle(symbol, candle, ends_at_close=False)

    async def follow(self) -> None:
        """Ask for the prices of what is held or ordered, and for the next settlements of funding, until cancelled."""
        while True:
            try:
                await self._look()
            except VenueError as error:
                _log.warning("paper_market_not_read", error=str(error)[:200])
            await asyncio.sleep(_LOOK_SECONDS)

    # -- orders ---------------------------------------------------------------------------------------------------

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Let an order meet the market as it is quoted now; see the port for what it raises."""
        symbol = intent.symbol
        if symbol not in self._listed:
            raise OrderRefusedError(f"The venue does not list {symbol} any more")
        if why := inexpressible(intent, self._capabilities):
            raise OrderRefusedError(f"{self._capabilities.venue} cannot be asked for this order: {why}", code=why)
        self._know(symbol)
        await self.quote(symbol)
        self._refuse_others(Urgency.URGENT if intent.reduce_only else Urgency.USUAL)
        if not intent.reduce_only and (reason := self._why_barred()):
            raise EntriesBarredError(f"Nothing was changed: {reason}")
        now_ms = self._now_ms()
        if not intent.reduce_only:
            self._desk.use_leverage(symbol, self._leverage, now_ms=now_ms)
        return self._desk.act(lambda: self._desk.account.place(intent, now_ms=now_ms), now_ms=now_ms)

    def guard_entries(self, why_barred: Callable[[], str]) -> None:
        """Let `why_barred` refuse entries once their quote is here; it returns why, or nothing."""
        self._why_barred = why_barred

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """Return what became of one order; None where there is none."""
        return self._desk.account.find(intent)

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """Cancel one order; None where no such order is open."""
        self._refuse_others(Urgency.URGENT)
        now_ms = self._now_ms()
        was_open = self._read(
            lambda: self._desk.act(lambda: self._desk.account.cancel(intent, now_ms=now_ms), now_ms=now_ms)
        )
        return self._desk.account.find(intent) if was_open else None

    async def open_orders(self) -> list[OrderReport]:
        """Return every order at rest, plain and conditional."""
        return self._desk.account.open_orders()

    @property
    def has_countdown(self) -> bool:
        """Whether the venue would cancel a symbol's entries by itself once it has not heard of us for a while."""
        return self._capabilities.countdown_cancel

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """Cancel the plain orders of a symbol so many wall-clock seconds from now; zero takes that back."""
        if not self.has_countdown or symbol not in self._listed:
            return
        self._refuse_others(Urgency.URGENT)
        self._know(symbol)
        countdown_ms = round(seconds * 1000 * self._clock.rate)
        self._read(lambda: self._desk.set_countdown(symbol, countdown_ms, now_ms=self._now_ms()))

    # -- the account --------------------------------------------------------------------------------------------------

    def use_leverage(self, leverage: int) -> None:
        """Set this leverage before the next entry of each symbol."""
        self._leverage = leverage

    def use_taker_fee(self, taker_fee: Decimal) -> None:
        """Charge this share of notional for what takes, from now on."""
        self._desk.use_fees(_fees(taker_fee))

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Do nothing: the account keeps our ids as they are."""

    @property
    def is_new(self) -> bool:
        """Whether the account was made for this life, as where its file was moved away."""
        return self._desk.is_new

    async def wallet(self) -> Decimal:
        """Return the wallet balance in quote currency, without unrealised profit."""
        return self._desk.exchange.state.wallet

    async def equity(self) -> Decimal:
        """Return wallet balance plus unrealised profit, in quote currency."""
        return self._desk.account.equity()

    async def positions(self) -> list[VenuePosition]:
        """Return every position that is not flat."""
        return self._desk.account.positions()

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """Return the account's executions in one symbol since a venue time, oldest first."""
        return self._desk.account.fills(symbol, since_ms)

    async def funding(self, since_ms: int) -> list[FundingPayment]:
        """Return the funding that the account paid and received since a venue time, oldest first."""
        return self._desk.account.funding(since_ms)

    async def close(self) -> None:
        """Close every connection to the market."""
        await self._market.close()

    def next_told(self) -> Told | None:
        """Return the oldest event of the account that nobody was told of yet, None where there is none."""
        if self._told:
            return self._told.popleft()
        self.news.clear()
        return None

    # -- inside -------------------------------------------------------------------------------------------------------

    def _tell(self, told: Told) -> None:
        self._told.append(told)
        self.news.set()

    def _know(self, symbol: str) -> None:
        self._desk.know(self._market.instruments([symbol])[symbol])

    def _hear(self, quote: Quote) -> None:
        if self._is_open and self._is_writer():
            self._read(lambda: self._desk.hear_quote(quote, now_ms=self._now_ms()))

    def _hear_candle(self, symbol: str, candle: Candle, *, ends_at_close: bool) -> None:
        if not (self._is_open and self._is_writer()):
            return
        seen = span(candle, self._timeframe)
        if seen is None:
            return
        try:
            self._desk.hear_candle(symbol, seen, now_ms=self._now_ms(), ends_at_close=ends_at_close)
        except OutcomeUnknownError as error:
            # Memory went back to what is on disk; the next price is another try.
            _log.warning("paper_price_not_taken", symbol=symbol, error=str(error)[:200])

    async def _look(self) -> None:
        now_ms = self._now_ms()
        if not self._is_writer():
            return
        self._read(lambda: self._desk.pass_time(now_ms))
        active = [symbol for symbol in self._desk.active() if symbol in self._listed]
        if not active:
            return
        if len(active) <= _ONE_BY_ONE:
            for symbol in active:
                await self.quote(symbol)
        else:
            await self.quotes()
        held = [symbol for symbol in self._desk.held() if symbol in self._listed]
        unknown = [symbol for symbol in held if self._desk.announced_ms(symbol) <= now_ms]
        if held and (unknown or now_ms - self._funding_asked_ms >= _FUNDING_ASKED_MS):
            await self._ask_funding(held, now_ms)
        if self._monotonic() - self._remembered >= _REMEMBER_SECONDS and self._is_writer():
            self._remembered = self._monotonic()
            self._read(lambda: self._desk.remember(self._now_ms()))

    async def _ask_funding(self, symbols: list[str], now_ms: int) -> None:
        self._funding_asked_ms = now_ms
        rates = await self._asked(self._exchange.fetch_funding_rates(symbols))
        for symbol in symbols:
            found = announced(rates.get(symbol))
            if found is not None and found.at_ms > max(now_ms, self._desk.heard_ms):
                self._desk.announce(symbol, [found])

    async def _catch_up(self, now_ms: int) -> None:
        since_ms, symbols = self._desk.heard_ms, [one for one in self._desk.active() if one in self._listed]
        if not symbols or not 0 < since_ms < now_ms:
            return
        missed: list[tuple[int, str, Span | None]] = []
        for symbol in symbols:
            for timeframe, begins_ms, ends_ms in stretches(since_ms, now_ms):
                after_ms = begins_ms - timeframe.milliseconds
                try:
                    block = await self._past(symbol, timeframe, after_ms=after_ms, closed_by_ms=ends_ms)
                except BadInputError as error:
                    raise RetryableError(f"Candles of {symbol} cannot be read: {error}") from error
                missed += [
                    (one.close_time_ms(timeframe), symbol, span(one, timeframe, opened=True)) for one in block.candles()
                ]
        for symbol in self._desk.held():
            if symbol in self._listed:
                self._desk.announce(symbol, await self._settlements(symbol, since_ms))
        for close_ms, symbol, seen in sorted(missed, key=lambda one: one[:2]):
            if seen is not None:
                self._read(lambda: self._desk.hear_candle(symbol, seen, now_ms=min(close_ms, now_ms)))  # noqa: B023
        self._read(lambda: self._desk.pass_time(now_ms))
        _log.info("paper_account_caught_up", symbols=len(symbols), candles=len(missed), since_ms=since_ms)

    async def _settlements(self, symbol: str, since_ms: int) -> list[Announced]:
        """Return what was settled since a time; of Bitfinex only what it announced before is known."""
        if self._exchange.id != "binanceusdm":
            return []
        rows = await self._asked(self._exchange.fetch_funding_rate_history(symbol, since_ms, _FUNDING_PAGE))
        found = []
        for row in rows:
            one = settled(row)
            # Times are some milliseconds late, and an announcement names the whole minute.
            if one is not None and one.at_ms > since_ms:
                found.append(one)
        return found

    async def _asked(self, answer: Awaitable[Any]) -> Any:
        try:
            return await answer
        except ccxt.BaseError as error:
            raise translate(error, exchange=self._exchange) from error
        except _MAKES_NO_SENSE as error:
            raise RetryableError(f"The venue's rates of funding cannot be read: {error}") from error

    def _refuse_others(self, urgency: Urgency) -> None:
        if reason := self._may_write(urgency):
            raise NotTheWriterError(f"Nothing was changed: {reason}")

    def _read(self, change: Callable[[], _T]) -> _T:
        """Do what may be done again: what could not be written has not happened."""
        try:
            return change()
        except OutcomeUnknownError as error:
            raise RetryableError(str(error)) from error

    def _now_ms(self) -> int:
        return self._clock.now_ms(self._monotonic())


def _fees(taker_fee: Decimal) -> Fees:
    return Fees(maker=min(MAKER_FEE, taker_fee), taker=taker_fee)
