"""The trading side of one account through ccxt: sends once, asks, cancels; never retries a submission by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar, cast

from feature_store.errors import QuantumError
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OrderRefusedError,
    OutcomeUnknownError,
    RequestRefusedError,
    RetryableError,
    translate,
)
from feature_store.venue.factory import RECV_WINDOW_MS
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderIntent, OrderReport
from inference.exchange import ccxt_mapping as mapped
from inference.exchange.asking import VenueAsker
from inference.exchange.capabilities import CAPABILITIES, Capabilities, inexpressible
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.exchange.order_requests import order_request
from inference.exchange.paging import all_fills, all_funding
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition
from inference.telemetry.logs import logger

_log = logger("gateway")

SETTLEMENT_ASSET = "USDT"
_NO_CHANGE = frozenset({-4046, -4059})
_HEDGE_MODE = -4061
_Pages = TypeVar("_Pages")


class CcxtGateway(VenueAsker):
    """
    Implements `inference.execution.ports.Gateway` for USD-M futures.

    The venue's raw answers are read by `ccxt_mapping`, because ccxt turns an empty or broken answer into an order
    without an id. Requests are stamped with the venue's time, as `VenueClock` knows it.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        clock: VenueClock,
        monotonic: Callable[[], float],
        leverage: int,
        on_accepted: Callable[[float], None] = lambda _: None,
        capabilities: Capabilities = CAPABILITIES["binanceusdm"],
        on_clock_moved: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(exchange, clock=clock, monotonic=monotonic)
        self._leverage = leverage
        self._on_accepted = on_accepted
        self._capabilities = capabilities
        self._on_clock_moved = on_clock_moved
        self._levered: dict[str, int] = {}
        self._clock_is_doubtful = False
        self._symbols: dict[str, str] = {}
        exchange.nonce = self._timestamp_ms

    @property
    def recv_window_ms(self) -> int:
        """How long, in wall-clock milliseconds, the venue may still execute a request that we sent."""
        return RECV_WINDOW_MS

    def use_leverage(self, leverage: int) -> None:
        """Set this leverage before the next entry of each symbol."""
        self._leverage = leverage

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Do nothing: the venue keeps our ids as they are."""

    async def wallet(self) -> Decimal:
        """Return the wallet balance in quote currency, without unrealised profit."""
        answer = await self._read(self._exchange.fapiPrivateV3GetAccount)
        try:
            return mapped.wallet(answer, asset=SETTLEMENT_ASSET)
        except MalformedReportError as error:
            raise RetryableError(str(error)) from error

    async def connect(self) -> None:
        """Learn the venue's time and its markets, and check that the account nets long and short."""
        await self.connect_public()
        mode = self._object("Position mode", await self._read(self._exchange.fapiPrivateGetPositionSideDual))
        if str(mode.get("dualSidePosition")).lower() != "false":
            raise AccountError(
                "The account is in hedge mode; switch it to one-way mode in the venue's settings", code=_HEDGE_MODE
            )

    async def connect_public(self) -> None:
        """Learn the venue's time and its markets; this much needs no account."""
        await self.sync_clock()
        if not self._clock.is_settled:
            await asyncio.sleep(0.06)
            await self.sync_clock()
        await self._read(self._exchange.load_markets)
        self._symbols = {
            str(market["id"]): str(symbol)
            for symbol, market in self._exchange.markets.items()
            if market.get("swap") and market.get("linear")
        }

    async def sync_clock(self, *, afresh: bool = False) -> int:
        """
        Ask the venue for its time once, learn from it, and return it in milliseconds since 1970 UTC.

        `afresh` forgets what was believed before: the venue has refused it.
        """
        self._clock_is_doubtful = False
        sent = self._monotonic()
        answer = await self._ask(self._exchange.fapiPublicGetTime, None)
        received = self._monotonic()
        server_time = str(self._object("Time", answer).get("serverTime"))
        if not server_time.isdecimal():
            raise RetryableError(f"The venue's clock was not readable, its answer was {str(answer)[:80]!r}")
        if self._clock.add(TimeSample(sent=sent, received=received, venue_ms=int(server_time)), afresh=afresh):
            _log.warning("venue_clock_moved", venue_time_ms=int(server_time))
            self._on_clock_moved()
        return int(server_time)

    def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        """Return steps and minimums of the symbols."""
        return {symbol: mapped.instrument(self._exchange.markets[symbol]) for symbol in symbols}

    def tradable_symbols(self) -> tuple[str, ...]:
        """Return every perpetual in the settlement asset that trades, in a fixed order."""
        return tuple(
            sorted(
                symbol
                for symbol, market in self._exchange.markets.items()
                if market.get("swap") and market.get("active") and market.get("settle") == SETTLEMENT_ASSET
            )
        )

    async def quotes(self) -> dict[str, Quote]:
        """Return the best bid and ask of every symbol that has both, in one request."""
        answer = self._rows("Quotes", await self._read(self._exchange.fapiPublicGetTickerBookTicker))
        quotes: dict[str, Quote] = {}
        for row in answer:
            symbol = self._symbols.get(str(row.get("symbol")))
            if symbol is None:
                continue
            try:
                quotes[symbol] = mapped.quote(row, symbol=symbol)
            except MalformedReportError as error:
                _log.warning("quote_unreadable", symbol=symbol, error=str(error))
        return quotes

    async def quote(self, symbol: str) -> Quote:
        """Return the best bid and ask of one symbol."""
        row = await self._read(self._exchange.fapiPublicGetTickerBookTicker, {"symbol": self._id(symbol)})
        return cast("Quote", self._readable(mapped.quote, row, symbol=symbol))

    @property
    def has_countdown(self) -> bool:
        """Whether the venue cancels a symbol's entries by itself once it has not heard of us for a while."""
        return hasattr(self._exchange, "fapiPrivatePostCountdownCancelAll")

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """Let the venue cancel the plain orders of a symbol so many wall-clock seconds from now; zero takes it back."""
        if self._is_listed(symbol):
            # The venue counts on its own clock, which may run faster than ours.
            countdown_ms = round(seconds * 1000 * self._clock.rate)
            query = {"symbol": self._id(symbol), "countdownTime": countdown_ms}
            await self._read(self._exchange.fapiPrivatePostCountdownCancelAll, query)

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Send one order once; see the port for what it raises."""
        if not self._is_listed(intent.symbol):
            raise OrderRefusedError(f"The venue does not list {intent.symbol} any more")
        if why := inexpressible(intent, self._capabilities):
            raise OrderRefusedError(f"{self._capabilities.venue} cannot be asked for this order: {why}", code=why)
        if self._clock_is_doubtful:
            await self.sync_clock(afresh=True)
        if not intent.reduce_only:
            await self._ensure_leverage(intent.symbol)
        request = order_request(intent, self._id(intent.symbol))
        send = self._exchange.fapiPrivatePostAlgoOrder if intent.is_conditional else self._exchange.fapiPrivatePostOrder
        self._refuse_while_closed()
        sent = self._monotonic()
        try:
            answer = await send(request)
        except ccxt.BaseError as error:
            raise self._submission_error(error) from error
        try:
            report = self._report(intent, answer)
        except MalformedReportError as error:
            raise OutcomeUnknownError(f"Order {intent.client_order_id} may exist: {error}") from error
        self._on_accepted(sent)
        return report

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """Ask for one order by its client order id; a conditional one that fired is followed to its child."""
        if not self._is_listed(intent.symbol):
            return None
        if not intent.is_conditional:
            answer = await self._find(
                self._exchange.fapiPrivateGetOrder,
                {"symbol": self._id(intent.symbol), "origClientOrderId": intent.client_order_id},
            )
            return None if answer is None else self._readable(mapped.order_report, answer, symbol=intent.symbol)
        answer = await self._find(
            self._exchange.fapiPrivateGetAlgoOrder,
            {"symbol": self._id(intent.symbol), "clientAlgoId": intent.client_order_id},
        )
        if answer is None:
            return None
        algo = self._readable(mapped.algo_report, answer, symbol=intent.symbol)
        return await self._with_child(algo)

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """Cancel one order; None where the venue has no such open order."""
        if not self._is_listed(intent.symbol):
            return None
        if intent.is_conditional:
            answer = await self._find(
                self._exchange.fapiPrivateDeleteAlgoOrder,
                {"symbol": self._id(intent.symbol), "clientAlgoId": intent.client_order_id},
            )
            # The venue confirms the cancel of a conditional order without saying what it was.
            return None if answer is None else await self.query(intent)
        answer = await self._find(
            self._exchange.fapiPrivateDeleteOrder,
            {"symbol": self._id(intent.symbol), "origClientOrderId": intent.client_order_id},
        )
        return None if answer is None else self._readable(mapped.order_report, answer, symbol=intent.symbol)

    async def open_orders(self) -> list[OrderReport]:
        """Return every order resting at the venue, plain and conditional, ours or not."""
        plain, algo = await asyncio.gather(
            self._read(self._exchange.fapiPrivateGetOpenOrders), self._read(self._exchange.fapiPrivateGetOpenAlgoOrders)
        )
        reports = [
            self._readable(mapped.order_report, row, symbol=self._symbol(row)) for row in self._rows("Orders", plain)
        ]
        reports += [
            self._readable(mapped.algo_report, row, symbol=self._symbol(row)) for row in self._rows("Orders", algo)
        ]
        return reports

    async def positions(self) -> list[VenuePosition]:
        """Return every position that is not flat, in the contracts that we can name."""
        answer = self._rows("Positions", await self._read(self._exchange.fapiPrivateV3GetPositionRisk))
        found = [self._readable(mapped.venue_position, row, symbol=self._symbol(row)) for row in answer]
        held = [position for position in found if position.signed_quantity != 0]
        ours = [position for position in held if position.symbol in self._symbols.values()]
        if len(ours) < len(held):
            # A dated future, say: no order of ours could end it.
            _log.warning("positions_left_alone", symbols=sorted({one.symbol for one in held if one not in ours}))
        return ours

    async def equity(self) -> Decimal:
        """Return wallet balance plus unrealised profit, in quote currency."""
        answer = await self._read(self._exchange.fapiPrivateV3GetAccount)
        try:
            return mapped.equity(answer, asset=SETTLEMENT_ASSET)
        except MalformedReportError as error:
            raise RetryableError(str(error)) from error

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """Return the account's executions in one symbol since a venue time, oldest first."""
        if not self._is_listed(symbol):
            return []
        read = partial(self._read, self._exchange.fapiPrivateGetUserTrades)
        since = {"since_ms": since_ms, "now_ms": self._timestamp_ms()}
        return await _legible(all_fills(read, self._id(symbol), symbol=symbol, **since))

    async def funding(self, since_ms: int) -> list[FundingPayment]:
        """Return the funding that the account paid and received since a venue time, oldest first."""
        read = partial(self._read, self._exchange.fapiPrivateGetIncome)
        since = {"since_ms": since_ms, "now_ms": self._timestamp_ms()}
        return await _legible(all_funding(read, self._symbol, asset=SETTLEMENT_ASSET, **since))

    async def _with_child(self, algo: OrderReport) -> OrderReport:
        if algo.child_order_id is None:
            return algo
        answer = await self._find(
            self._exchange.fapiPrivateGetOrder, {"symbol": self._id(algo.symbol), "orderId": algo.child_order_id}
        )
        if answer is None:
            # It fired, and the order that it became is not shown yet.
            return algo
        return mapped.fired_report(algo, self._readable(mapped.order_report, answer, symbol=algo.symbol))

    def _report(self, intent: OrderIntent, answer: object) -> OrderReport:
        if intent.is_conditional:
            return mapped.algo_report(answer, symbol=intent.symbol)
        return mapped.order_report(answer, symbol=intent.symbol)

    def _submission_error(self, error: ccxt.BaseError) -> QuantumError:
        found = self._noted(translate(error, sending=True, exchange=self._exchange))
        self._clock_is_doubtful = self._clock_is_doubtful or isinstance(found, ClockError)
        return found

    async def _ensure_leverage(self, symbol: str) -> None:
        """Set the leverage before the first entry; nothing was sent if this fails."""
        # Another may be wanted by the time that the venue has answered.
        while (wanted := self._leverage) != self._levered.get(symbol):
            try:
                await self._read(
                    self._exchange.fapiPrivatePostLeverage, {"symbol": self._id(symbol), "leverage": wanted}
                )
            except RequestRefusedError as error:
                if error.code not in _NO_CHANGE:
                    raise OrderRefusedError(f"Leverage of {symbol} was refused: {error}", code=error.code) from error
            self._levered[symbol] = wanted

    def _symbol(self, row: Any) -> str:
        native = str(row.get("symbol"))
        return self._symbols.get(native, native)


async def _legible(pages: Awaitable[_Pages]) -> _Pages:
    try:
        return await pages
    except MalformedReportError as error:
        raise RetryableError(f"The venue's answer cannot be read: {error}") from error
