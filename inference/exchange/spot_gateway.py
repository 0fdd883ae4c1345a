"""The trading side of one Binance spot account through ccxt: sends once, asks, cancels; never retries by itself."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Any, cast

from feature_store.errors import QuantumError
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OrderRefusedError,
    OutcomeUnknownError,
    RetryableError,
    translate,
)
from feature_store.venue.factory import RECV_WINDOW_MS
from inference.domain.market import Instrument, Quote
from inference.domain.order import Fill, OrderIntent, OrderReport, Side
from inference.exchange import spot_mapping as mapped
from inference.exchange.asking import VenueAsker
from inference.exchange.capabilities import CAPABILITIES, inexpressible
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.exchange.paging import PAGE
from inference.exchange.spot_mapping import Balance
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition
from inference.telemetry.logs import logger

_log = logger("gateway")

_SETTLEMENT = "USDT"
_CAPABILITIES = CAPABILITIES["binance"]
_DAY_MS = 86_400_000
_MOST_REMEMBERED = 10_000
# Refusals that execution acts on, by its own codes; spot has one number for every new order that it refuses, and ccxt
# passes on of some nothing but the words.
_CODES = (
    ("insufficient balance", -2010),
    ("would trigger immediately", -2021),
    ("immediately match and take", -5022),
)


class SpotGateway(VenueAsker):
    """
    Implements `inference.execution.ports.Gateway` for Binance spot against USDT.

    A balance is a long position, as far as it can be sold. A purchase pays its commission in what it buys: what is
    reported as filled is what is held afterwards, and the commission's worth in quote is its fee.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        clock: VenueClock,
        monotonic: Callable[[], float],
        on_accepted: Callable[[float], None] = lambda _: None,
        on_clock_moved: Callable[[], None] = lambda: None,
    ) -> None:
        super().__init__(exchange, clock=clock, monotonic=monotonic)
        self._on_accepted = on_accepted
        self._on_clock_moved = on_clock_moved
        self._clock_is_doubtful = False
        self._symbols: dict[str, str] = {}
        # Number of a purchase -> what each of its executions brought.
        self._received: OrderedDict[str, dict[str, Decimal]] = OrderedDict()
        exchange.nonce = self._timestamp_ms

    @property
    def recv_window_ms(self) -> int:
        """How long, in wall-clock milliseconds, the venue may still execute a request that we sent."""
        return RECV_WINDOW_MS

    def use_leverage(self, leverage: int) -> None:
        """Do nothing: spot has no leverage."""

    def remember(self, client_order_ids: Iterable[str]) -> None:
        """Do nothing: the venue keeps our ids as they are."""

    # -- the venue ------------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Learn the venue's time and its markets, and check that the account may trade."""
        await self.connect_public()
        account = self._object("Account", await self._read(self._exchange.privateGetAccount))
        if account.get("canTrade") is not True:
            raise AccountError("The venue lets this account not trade on spot; check the rights of QT_API_KEY")

    async def connect_public(self) -> None:
        """Learn the venue's time and its markets; this much needs no account."""
        await self.sync_clock()
        if not self._clock.is_settled:
            await asyncio.sleep(0.06)
            await self.sync_clock()
        await self._read(self._exchange.load_markets)
        self._symbols = {
            str(market["id"]): str(symbol) for symbol, market in self._exchange.markets.items() if market.get("spot")
        }

    async def sync_clock(self, *, afresh: bool = False) -> int:
        """Ask the venue for its time once, learn from it, and return it in milliseconds since 1970 UTC."""
        self._clock_is_doubtful = False
        sent = self._monotonic()
        answer = await self._ask(self._exchange.publicGetTime, None)
        received = self._monotonic()
        told = str(self._object("Time", answer).get("serverTime"))
        if not told.isdecimal():
            raise RetryableError(f"The venue's clock was not readable, its answer was {str(answer)[:80]!r}")
        if self._clock.add(TimeSample(sent=sent, received=received, venue_ms=int(told)), afresh=afresh):
            _log.warning("venue_clock_moved", venue_time_ms=int(told))
            self._on_clock_moved()
        return int(told)

    def instruments(self, symbols: Iterable[str]) -> dict[str, Instrument]:
        """Return steps and minimums of the symbols."""
        return {symbol: mapped.instrument(self._exchange.markets[symbol]) for symbol in symbols}

    def tradable_symbols(self) -> tuple[str, ...]:
        """Return every symbol against the settlement asset that trades, in a fixed order."""
        markets = self._exchange.markets
        known = (symbol for symbol in self._symbols.values() if markets[symbol].get("active"))
        return tuple(sorted(symbol for symbol in known if markets[symbol].get("quote") == _SETTLEMENT))

    async def quotes(self) -> dict[str, Quote]:
        """Return the best bid and ask of every symbol that has both, in one request."""
        answer = self._rows("Quotes", await self._read(self._exchange.publicGetTickerBookTicker))
        now_ms, found = self._timestamp_ms(), {}
        for row in answer:
            symbol = self._symbols.get(str(row.get("symbol")))
            if symbol is None:
                continue
            try:
                found[symbol] = mapped.quote(row, symbol=symbol, event_time_ms=now_ms)
            except MalformedReportError as error:
                _log.warning("quote_unreadable", symbol=symbol, error=str(error))
        return found

    async def quote(self, symbol: str) -> Quote:
        """Return the best bid and ask of one symbol."""
        row = await self._read(self._exchange.publicGetTickerBookTicker, {"symbol": self._id(symbol)})
        return cast("Quote", self._readable(mapped.quote, row, symbol=symbol, event_time_ms=self._timestamp_ms()))

    @property
    def has_countdown(self) -> bool:
        """Whether the venue cancels entries by itself once it has not heard of us; spot never does."""
        return False

    async def set_countdown(self, symbol: str, seconds: float) -> None:
        """Do nothing: the venue has no such thing."""

    # -- orders ---------------------------------------------------------------------------------------------------

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """Send one order once; what the account does not hold is never offered. See the port for what it raises."""
        if not self._is_listed(intent.symbol):
            raise OrderRefusedError(f"The venue does not list {intent.symbol} any more")
        if why := inexpressible(intent, _CAPABILITIES, opens_short=await self._opens_short(intent)):
            raise OrderRefusedError(f"{_CAPABILITIES.venue} cannot be asked for this order: {why}", code=why)
        if self._clock_is_doubtful:
            await self.sync_clock(afresh=True)
        self._refuse_while_closed()
        sent = self._monotonic()
        try:
            answer = await self._exchange.privatePostOrder(mapped.order_request(intent, self._id(intent.symbol)))
        except ccxt.BaseError as error:
            raise self._submission_error(error) from error
        try:
            report = self._report(answer, intent.symbol)
        except MalformedReportError as error:
            raise OutcomeUnknownError(f"Order {intent.client_order_id} may exist: {error}") from error
        self._on_accepted(sent)
        return report

    async def _opens_short(self, intent: OrderIntent) -> bool:
        if intent.side is Side.BUY:
            return False
        if not intent.reduce_only:
            return True
        try:
            held = (await self.balances()).get(self._base(intent.symbol))
        except RetryableError:
            # An exit does not wait for an answer: what is not held the venue refuses too.
            return False
        return held is None or held.total < intent.quantity

    async def query(self, intent: OrderIntent) -> OrderReport | None:
        """Ask for one order by its client order id; one that was triggered keeps its number."""
        if not self._is_listed(intent.symbol):
            return None
        named = {"symbol": self._id(intent.symbol), "origClientOrderId": intent.client_order_id}
        answer = await self._find(self._exchange.privateGetOrder, named)
        return None if answer is None else await self._reported(answer, intent.symbol)

    async def cancel(self, intent: OrderIntent) -> OrderReport | None:
        """Cancel one order; None where the venue has no such open order."""
        if not self._is_listed(intent.symbol):
            return None
        named = {"symbol": self._id(intent.symbol), "origClientOrderId": intent.client_order_id}
        answer = await self._find(self._exchange.privateDeleteOrder, named)
        return None if answer is None else await self._reported(answer, intent.symbol)

    async def open_orders(self) -> list[OrderReport]:
        """Return every order resting at the venue, ours or not."""
        rows = self._rows("Orders", await self._read(self._exchange.privateGetOpenOrders))
        return [await self._reported(row, self._symbol(row)) for row in rows]

    async def _reported(self, answer: object, symbol: str) -> OrderReport:
        order = self._object("Order", answer)
        number = str(order.get("orderId"))
        if mapped.is_purchase(order) and str(order.get("executedQty")).strip("0.") and symbol in self._exchange.markets:
            query = {"symbol": self._id(symbol), "orderId": number, "limit": PAGE}
            for row in self._rows("Executions", await self._read(self._exchange.privateGetMyTrades, query)):
                self.note(self._readable(self.fill_of, row, symbol=symbol))
        return cast("OrderReport", self._readable(self._report, order, symbol=symbol))

    def _report(self, answer: object, symbol: str) -> OrderReport:
        order = mapped.mapping_of(answer)
        number = str(order.get("orderId"))
        if mapped.is_purchase(order) and order.get("fills"):
            base, quote = self._assets(symbol)
            self._remembered(number).update(mapped.fills_of_answer(order, base=base, quote=quote))
        return mapped.order_report(order, symbol=symbol, received=self.received(order, number))

    # -- what purchases brought -----------------------------------------------------------------------------------

    def note(self, fill: Fill) -> None:
        """Remember what an execution brought, whoever told of it."""
        if fill.side is Side.BUY:
            self._remembered(fill.venue_order_id)[fill.fill_id] = fill.quantity

    def received(self, order: object, number: str) -> Decimal | None:
        """Return what a purchase is known to have brought; None of a sale, which gives what it says."""
        if not mapped.is_purchase(mapped.mapping_of(order)):
            return None
        return sum(self._received.get(number, {}).values(), Decimal(0))

    def _remembered(self, number: str) -> dict[str, Decimal]:
        known = self._received.setdefault(number, {})
        if len(self._received) > _MOST_REMEMBERED:
            self._received.popitem(last=False)
        return known

    # -- the account ----------------------------------------------------------------------------------------------

    async def balances(self) -> dict[str, Balance]:
        """Return what the account has of each asset."""
        answer = await self._read(self._exchange.privateGetAccount, {"omitZeroBalances": "true"})
        return cast("dict[str, Balance]", self._readable(mapped.balances, answer))

    async def wallet(self) -> Decimal:
        """Return what there is of the settlement asset, locked or not."""
        found = (await self.balances()).get(_SETTLEMENT)
        return Decimal(0) if found is None else found.total

    async def equity(self) -> Decimal:
        """Return what all assets against the settlement asset would fetch, without fees, in that asset."""
        held, quotes = await self.balances(), await self.quotes()
        total = held[_SETTLEMENT].total if _SETTLEMENT in held else Decimal(0)
        return total + sum(
            (held[self._base(one)].total * quotes[one].mid for one in self._held(held, quotes)), Decimal(0)
        )

    async def positions(self) -> list[VenuePosition]:
        """
        Return every balance that can be sold, as a long position; what is worth less than that is dust.

        Spot remembers no entry price: the market's stands in its place.
        """
        held, quotes = await self.balances(), await self.quotes()
        found = []
        for symbol in self._held(held, quotes):
            one = mapped.instrument(self._exchange.markets[symbol])
            quantity, mid = held[self._base(symbol)].total, quotes[symbol].mid
            if one.round_quantity(quantity) * mid >= one.min_notional:
                found.append(
                    VenuePosition(symbol=symbol, signed_quantity=quantity, entry_price=mid, mark_price=mid)
                )  # fmt: skip
        return found

    def _held(self, held: dict[str, Balance], quotes: dict[str, Quote]) -> list[str]:
        return [one for one in self.tradable_symbols() if one in quotes and self._base(one) in held]

    async def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """Return the account's executions in one symbol since a venue time, oldest first."""
        if not self._is_listed(symbol):
            return []
        found: dict[str, Fill] = {}
        query: dict[str, Any] = {"symbol": self._id(symbol), "limit": PAGE}
        begin, now_ms = since_ms, self._timestamp_ms()
        # The venue looks through a day at a time; from the first execution on it counts by their numbers.
        asked = query | {"startTime": begin, "endTime": begin + _DAY_MS - 1}
        while begin <= now_ms:
            rows = self._rows("Executions", await self._read(self._exchange.privateGetMyTrades, asked))
            page = [cast("Fill", self._readable(self.fill_of, row, symbol=symbol)) for row in rows]
            found.update((one.fill_id, one) for one in page)
            if len(page) == PAGE or (page and "fromId" not in asked):
                asked = query | {"fromId": int(page[-1].fill_id) + 1}
                continue
            if found:
                break
            begin += _DAY_MS
            asked = query | {"startTime": begin, "endTime": begin + _DAY_MS - 1}
        for one in found.values():
            self.note(one)
        return sorted(found.values(), key=lambda one: (one.event_time_ms, int(one.fill_id)))

    async def funding(self, since_ms: int) -> list[FundingPayment]:
        """Return nothing: on spot nobody pays for holding."""
        del since_ms
        return []

    def fill_of(self, row: object, *, symbol: str) -> Fill:
        """Read an execution as REST states it."""
        base, quote = self._assets(symbol)
        return mapped.fill(row, symbol=symbol, base=base, quote=quote)

    def stream_report_of(self, event: object) -> OrderReport:
        """Read the account's event of an order."""
        raw = mapped.mapping_of(event)
        return mapped.stream_report(raw, symbol=self._symbol_of(raw), received=self.received(raw, str(raw.get("i"))))

    def stream_fill_of(self, event: object) -> Fill | None:
        """Read the execution in the account's event of an order, and remember what it brought."""
        raw = mapped.mapping_of(event)
        base, quote = self._assets(self._symbol_of(raw))
        found = mapped.stream_fill(raw, symbol=self._symbol_of(raw), base=base, quote=quote)
        if found is not None:
            self.note(found)
        return found

    def _submission_error(self, error: ccxt.BaseError) -> QuantumError:
        found = self._noted(translate(error, sending=True, exchange=self._exchange))
        self._clock_is_doubtful = self._clock_is_doubtful or isinstance(found, ClockError)
        words = str(error)
        code = next((code for said, code in _CODES if said in words), None)
        if isinstance(found, OrderRefusedError) and code is not None:
            return OrderRefusedError(str(found), code=code)
        return found

    def _assets(self, symbol: str) -> tuple[str, str]:
        market = self._exchange.markets[symbol]
        return str(market["baseId"]), str(market["quoteId"])

    def _base(self, symbol: str) -> str:
        return self._assets(symbol)[0]

    def _symbol(self, row: Any) -> str:
        native = str(row.get("symbol"))
        return self._symbols.get(native, native)

    def _symbol_of(self, event: Any) -> str:
        symbol = self._symbols.get(str(event.get("s")))
        if symbol is None:
            raise MalformedReportError("Order event", "symbol that we can name", event.get("s"))
        return symbol
