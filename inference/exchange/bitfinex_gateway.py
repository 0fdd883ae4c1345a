"""The trading side of one Bitfinex account through ccxt: sends once, asks, cancels; never retries by itself."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, cast

from feature_store.errors import QuantumError
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import (
    OrderNotFoundError,
    OrderRefusedError,
    OutcomeUnknownError,
    RetryableError,
    translate,
)
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, Purpose
from inference.exchange import bitfinex_mapping as mapped
from inference.exchange.asking import VenueAsker
from inference.exchange.bitfinex_requests import order_request
from inference.exchange.capabilities import CAPABILITIES, inexpressible
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.exchange.client_ids import ClientIds, client_ids_of
from inference.exchange.urgent_first import Hurry, UrgentFirst
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition
from inference.telemetry.logs import logger

_log = logger("gateway")

_WALLET, _CURRENCY, _SETTLEMENT = "margin", "USTF0", "USDT"
_CAPABILITIES = CAPABILITIES["bitfinex"]
# A request is refused once the venue has seen a larger nonce of its key, and every question of ours brings one. This
# long after it was sent, what it had let in before is in its books.
_WINDOW_MS = 2_000
# For so long a request keeps the next one from overtaking it on its way, which would have it refused.
_TURN_SECONDS = 1.0
_PAGE, _PAST_ORDERS = 1_000, 500
# The ledger's number for payments of funding on contracts.
_OF_FUNDING, _LEDGER_PAGE = 29, 2_500
_HALF_A_SECOND_MS = 500
# Refusals that execution acts on, by its own codes; the venue has one number for all of them.
_CODES = (
    ("immediately trigger", -2021),
    ("reduce-only", -2022),
    ("reduce only", -2022),
    ("position side", -4061),
)
_MOST_REMEMBERED = 100_000


class BitfinexGateway(VenueAsker):
    """
    Implements `inference.execution.ports.Gateway` for Bitfinex's perpetuals on USDt.

    The venue's answers are read by `bitfinex_mapping`. Orders have our ids as numbers, which name one order of one UTC
    day; so the day of each is kept, and where it is not known the open orders are looked through.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        clock: VenueClock,
        monotonic: Callable[[], float],
        leverage: int,
        on_accepted: Callable[[float], None] = lambda _: None,
        on_clock_moved: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(exchange, clock=clock, monotonic=monotonic)
        self._leverage = leverage
        self._on_accepted = on_accepted
        self._on_clock_moved = on_clock_moved
        self._ids: ClientIds = client_ids_of(_CAPABILITIES)
        self._days: dict[str, str] = {}
        self._symbols: dict[str, str] = {}
        self._last: dict[str, Decimal] = {}
        self._turns = UrgentFirst()

    @property
    def recv_window_ms(self) -> int:
        """How long, in wall-clock milliseconds, the venue may still execute a request that we sent."""
        return _WINDOW_MS

    def use_leverage(self, leverage: int) -> None:
        """Open positions with this leverage from now on."""
        self._leverage = leverage

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Know orders again that were sent in an earlier life: a number alone does not say whose it is."""
        self._ids.remember(client_order_ids)

    # -- the venue ------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Learn the venue's time and its markets, and check that it lets us in."""
        await self.connect_public()
        await self.wallet()

    async def connect_public(self) -> None:
        """Learn the venue's time and its markets; this much needs no account."""
        await self.sync_clock()
        while not self._clock.is_settled:
            await asyncio.sleep(0.3)
            await self.sync_clock()
        await self._read(self._exchange.load_markets)
        self._symbols = {
            str(market["id"]): str(symbol)
            for symbol, market in self._exchange.markets.items()
            if market.get("swap") and market.get("linear")
        }
        await self.quotes()

    async def sync_clock(self, *, afresh: bool = False) -> int:
        """
        Learn the time from the date of an answer, as this venue tells its time in no other way, and return it.

        It tells whole seconds: half a second on is the best guess, and what is returned has passed in any case.
        """
        sent = self._monotonic()
        await self._ask(self._exchange.publicGetPlatformStatus, None)
        received = self._monotonic()
        headers = self._exchange.last_response_headers or {}
        told = next((str(value) for name, value in headers.items() if name.lower() == "date"), "")
        try:
            date_ms = int(parsedate_to_datetime(told).timestamp()) * 1000
        except (TypeError, ValueError):
            raise RetryableError(f"The venue's clock was not readable, its answer was dated {told[:80]!r}") from None
        half = _HALF_A_SECOND_MS
        sample = TimeSample(sent=sent, received=received, venue_ms=date_ms + half, doubt_ms=half)
        if self._clock.add(sample, afresh=afresh):
            _log.warning("venue_clock_moved", venue_time_ms=date_ms)
            self._on_clock_moved()
        return date_ms

    def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        """Return steps and minimums of the symbols."""
        return {symbol: mapped.instrument(self._exchange.markets[symbol], self._last[symbol]) for symbol in symbols}

    def tradable_symbols(self) -> tuple[str, ...]:
        """Return every perpetual in the settlement asset that has a price, in a fixed order."""
        return tuple(
            sorted(
                symbol
                for symbol, market in self._exchange.markets.items()
                if market.get("swap") and market.get("settle") == _SETTLEMENT and symbol in self._last
            )
        )

    async def quotes(self) -> dict[str, Quote]:
        """Return the best bid and ask of every symbol that has both, in one request."""
        answer = await self._read(self._exchange.publicGetTickers, {"symbols": "ALL"})
        now_ms = self._timestamp_ms()
        quotes: dict[str, Quote] = {}
        for row in self._readable(lambda raw: mapped.array("Quotes", raw), answer):
            symbol = self._symbols.get(str(row[0])) if isinstance(row, list) and row else None
            if symbol is None:
                continue
            try:
                quotes[symbol] = mapped.quote(row[1:], symbol=symbol, event_time_ms=now_ms)
                self._last[symbol] = mapped.last_price(row[1:])
            except MalformedReportError as error:
                _log.warning("quote_unreadable", symbol=symbol, error=str(error))
        return quotes

    async def quote(self, symbol: str) -> Quote:
        """Return the best bid and ask of one symbol."""
        row = await self._read(self._exchange.publicGetTickerSymbol, {"symbol": self._id(symbol)})
        found = self._readable(mapped.quote, row, symbol=symbol, event_time_ms=self._timestamp_ms())
        return cast("Quote", found)

    @property
    def has_countdown(self) -> bool:
        """Whether the venue cancels entries by itself once it has not heard of us; by REST this one never does."""
        return False

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """Do nothing: the venue has no such thing."""

    # -- orders ---------------------------------------------------------------------------------------------------

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Send one order once; see the port for what it raises."""
        if not self._is_listed(intent.symbol):
            raise OrderRefusedError(f"The venue does not list {intent.symbol} any more")
        if why := inexpressible(intent, _CAPABILITIES):
            raise OrderRefusedError(f"{_CAPABILITIES.venue} cannot be asked for this order: {why}", code=why)
        number = int(self._ids.at_venue(intent.client_order_id))
        request = order_request(intent, self._id(intent.symbol), client_id=number, leverage=self._leverage)
        self._refuse_while_closed()
        self._note_day(intent.client_order_id, self._timestamp_ms())
        sent = self._monotonic()
        try:
            hurry = Hurry.ENTRY if intent.purpose is Purpose.ENTRY else Hurry.EXIT
            answer = await self._in_turn(self._exchange.privatePostAuthWOrderSubmit, request, hurry)
        except ccxt.BaseError as error:
            raise self._submission_error(error) from error
        try:
            report = self._report(mapped.submitted(answer, number=number))
        except MalformedReportError as error:
            raise OutcomeUnknownError(f"Order {intent.client_order_id} may exist: {error}") from error
        self._on_accepted(sent)
        return report

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """
        Ask for one order by its number and day, then among what is open, then among what has ended.

        By our clock an order may have been made on the other side of midnight, so its day proves nothing alone. An
        order ends between two questions, never begins anew: what is open is asked for first.
        """
        return await self._look_up(intent, Hurry.QUESTION)

    async def _look_up(self, intent: OrderIntent, hurry: Hurry) -> OrderReport | None:
        if not self._is_listed(intent.symbol):
            return None
        number = self._ids.at_venue(intent.client_order_id)
        symbol = {"symbol": self._id(intent.symbol)}
        day = self._days.get(intent.client_order_id)
        asked: list[tuple[Callable[..., Awaitable[Any]], dict[str, Any]]] = [
            (self._exchange.privatePostAuthROrdersSymbol, symbol),
            (self._exchange.privatePostAuthROrdersSymbolHist, symbol | {"limit": _PAST_ORDERS}),
        ]
        if day is not None:
            asked.insert(0, (self._exchange.privatePostAuthROrders, {"cid": number, "cid_date": day}))
        for call, query in asked:
            for row in self._arrays("Orders", await self._private(call, query, hurry)):
                if str(self._readable(mapped.client_id, row)) == str(number):
                    return self._readable_report(row)
        return None

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """Cancel one order; None where the venue has no such open order."""
        if not self._is_listed(intent.symbol):
            return None
        report = await self._look_up(intent, Hurry.EXIT)
        if report is None or report.status.is_terminal:
            return report if report is not None and report.filled else None
        try:
            native = {"id": int(report.venue_order_id)}
            await self._private(self._exchange.privatePostAuthWOrderCancel, native, Hurry.EXIT)
        except OrderNotFoundError:
            return None
        # It is told as it was when the cancel arrived; what became of it has to be asked for.
        return await self.query(intent)

    async def open_orders(self) -> list[OrderReport]:
        """Return every order resting at the venue, ours or not."""
        rows = self._arrays("Orders", await self._private(self._exchange.privatePostAuthROrders, {}))
        return [self._readable_report(row) for row in rows]

    # -- the account ----------------------------------------------------------------------------------------------

    async def wallet(self) -> Decimal:
        """Return the wallet balance in quote currency, without unrealised profit."""
        answer = await self._private(self._exchange.privatePostAuthRWallets, {})
        return cast("Decimal", self._readable(mapped.wallet, answer, kind=_WALLET, currency=_CURRENCY))

    async def equity(self) -> Decimal:
        """Return wallet balance plus unrealised profit, in quote currency."""
        rows = self._arrays("Positions", await self._private(self._exchange.privatePostAuthRPositions, {}))
        profits: list[Decimal] = [self._readable(mapped.profit, row) for row in rows]
        return await self.wallet() + sum(profits, Decimal(0))

    async def positions(self) -> list[VenuePosition]:
        """Return every position that is not flat, in the contracts that we can name."""
        rows = self._arrays("Positions", await self._private(self._exchange.privatePostAuthRPositions, {}))
        named = [(self._symbols.get(str(row[0]) if row else ""), row) for row in rows]
        found = [self._readable(mapped.venue_position, row, symbol=symbol) for symbol, row in named if symbol]
        if len(found) < len(rows):
            # Margin on spot, say: no order of ours could end it.
            _log.warning("positions_left_alone", symbols=sorted(str(row[:1]) for symbol, row in named if not symbol))
        return [position for position in found if position.signed_quantity != 0]

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """Return the account's executions in one symbol since a venue time, oldest first."""
        if not self._is_listed(symbol):
            return []
        found: dict[str, Fill] = {}
        begin = since_ms
        while True:
            query = {"symbol": self._id(symbol), "start": begin, "limit": _PAGE, "sort": 1}
            answer = await self._private(self._exchange.privatePostAuthRTradesSymbolHist, query)
            page = [self._readable(self.fill_of, row) for row in self._arrays("Executions", answer)]
            fresh = [one for one in page if one.fill_id not in found]
            found.update((one.fill_id, one) for one in fresh)
            if len(page) < _PAGE or not fresh:
                return sorted(found.values(), key=lambda one: (one.event_time_ms, int(one.fill_id)))
            begin = page[-1].event_time_ms

    async def funding(self, since_ms: int) -> list[FundingPayment]:
        """Return the funding that the account paid and received since a venue time, oldest first."""
        found: dict[str, FundingPayment] = {}
        query = {"currency": _CURRENCY, "category": _OF_FUNDING, "start": since_ms, "limit": _LEDGER_PAGE}
        while True:
            answer = await self._private(self._exchange.privatePostAuthRLedgersCurrencyHist, dict(query))
            rows = self._arrays("Ledger", answer)
            page = [
                cast("FundingPayment", self._readable(mapped.funding_payment, row, symbols=self._symbols))
                for row in rows
            ]
            fresh = [one for one in page if one.transaction_id not in found]
            found.update((one.transaction_id, one) for one in fresh)
            if len(page) < _LEDGER_PAGE or not fresh:
                return sorted(found.values(), key=lambda one: (one.event_time_ms, one.transaction_id))
            # The newest come first.
            query["end"] = min(one.event_time_ms for one in page)

    # -- arrays ---------------------------------------------------------------------------------------------------

    def report_of(self, row: object) -> OrderReport:
        """
        Return what the venue says of an order, under our id where it is ours.

        Raises:
            MalformedReportError: It cannot be read.
        """
        return self._report(row)

    def fill_of(self, row: object) -> Fill:
        """
        Return an execution, under our id where it is ours.

        Raises:
            MalformedReportError: It cannot be read.
        """
        native = mapped.fill_symbol(row)
        ours = self._ids.ours(mapped.fill_client_id(row)) or ""
        return mapped.fill(row, symbol=self._symbols.get(native, native), client_order_id=ours)

    def _report(self, row: object) -> OrderReport:
        number = mapped.client_id(row)
        ours = self._ids.ours(number)
        found = mapped.array("Order", row, mapped.CREATED + 1)
        native = str(found[mapped.SYMBOL])
        report = mapped.order_report(
            row, symbol=self._symbols.get(native, native), client_order_id=ours or f"cid:{number}"
        )
        if ours is not None:
            self._note_day(ours, mapped.created_ms(row))
        return report

    def _readable_report(self, row: object) -> OrderReport:
        return cast("OrderReport", self._readable(self._report, row))

    def _arrays(self, what: str, raw: object) -> list[Any]:
        return [self._readable(lambda row: mapped.array(what, row), row) for row in self._array(what, raw)]

    def _array(self, what: str, raw: object) -> list[Any]:
        return list(self._readable(lambda found: mapped.array(what, found), raw))

    def _note_day(self, client_order_id: str, made_ms: int) -> None:
        self._days[client_order_id] = datetime.fromtimestamp(made_ms / 1000, UTC).strftime("%Y-%m-%d")
        if len(self._days) > _MOST_REMEMBERED:
            self._days.pop(next(iter(self._days)))

    # -- one nonce after the other --------------------------------------------------------------------------------

    async def _private(
        self, call: Callable[..., Awaitable[Any]], query: dict[str, Any], hurry: Hurry = Hurry.QUESTION
    ) -> Any:
        async def in_turn(asked: dict[str, Any]) -> Any:
            return await self._in_turn(call, asked, hurry)

        return await self._read(in_turn, query)

    async def _in_turn(self, call: Callable[..., Awaitable[Any]], query: dict[str, Any], hurry: Hurry) -> Any:
        """Make a private request; the next one waits until this one is answered, or must have reached the venue."""
        async with self._turns.turn(hurry):
            task = asyncio.ensure_future(call(query))
            try:
                await asyncio.wait({task}, timeout=_TURN_SECONDS)
            except asyncio.CancelledError:
                task.cancel()
                with suppress(asyncio.CancelledError, ccxt.BaseError):
                    await task
                raise
        return await task

    def _submission_error(self, error: ccxt.BaseError) -> QuantumError:
        found = self._noted(translate(error, sending=True, exchange=self._exchange))
        if isinstance(found, OrderRefusedError):
            words = str(found).lower()
            found.code = next((code for said, code in _CODES if said in words), found.code)
        return found
