"""What the account's stream brings, taken where ccxt receives it, so that nothing is lost between two waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from feature_store.venue.ccxt_package import ccxt
from inference.exchange.ccxt_mapping import MalformedReportError, is_of_funding, stream_wallet
from inference.exchange.watching import is_private
from inference.telemetry.logs import logger

_ORDER_EVENTS = frozenset({"ORDER_TRADE_UPDATE", "ALGO_UPDATE"})
_KEY_LOST, _ACCOUNT, _ASSET = "listenKeyExpired", "ACCOUNT_UPDATE", "USDT"
# Far more than come between two looks at the account.
_WALLETS = 4_096
# Connections in a row that were given up for an answer, before the venue is held to answer nothing of the kind.
_IN_VAIN = 2
# No client of ours counts its own requests so far.
_PROBE_ID = 9_000_001
# What ccxt raises where a frame is not as it expects; it would never read from that connection again.
_UNFORESEEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ccxt.BaseError)

_log = logger("account_events")


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection was opened; what happened before that is not on it."""


@dataclass(frozen=True, slots=True)
class OrderEvent:
    """What the venue says of one order, and the symbol as we name it."""

    symbol: str
    raw: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KeyLost:
    """The venue ended the stream: its key was not kept alive."""


@dataclass(frozen=True, slots=True)
class Unreadable:
    """An order event without an order in it."""

    text: str


AccountEvent = Opened | OrderEvent | KeyLost | Unreadable


class AccountEvents:
    """
    Every event of the account's stream, in the order of its arrival.

    `watch_orders` loses events: what arrives after it returned and before it is called again wakes nobody, and a
    market order is accepted and filled within that time. So a client's messages are taken as ccxt receives them;
    its own book of orders, which nobody asks, is left out.
    """

    def __init__(
        self, exchange: Any, *, monotonic: Callable[[], float], on_funding: Callable[[], None] = lambda: None
    ) -> None:
        self._exchange = exchange
        self._monotonic = monotonic
        self._on_funding = on_funding
        self._events: asyncio.Queue[AccountEvent] = asyncio.Queue()
        self._pass_on = exchange.handle_message
        self._say_connected = exchange.on_connected
        self.last_order_event = monotonic()
        self._wallets: deque[tuple[float, Decimal]] = deque(maxlen=_WALLETS)
        self._asked: float | None = None
        self.has_answered = False
        self._in_vain = 0
        # Clients are given these two when they are made.
        exchange.handle_message = self._take
        exchange.on_connected = self._connected

    async def next(self) -> AccountEvent:
        """Return the next event as soon as there is one."""
        return await self._events.get()

    @property
    def unanswered_seconds(self) -> float:
        """For how long a question over the stream has waited; a venue that answers none of them is not judged by it."""
        if self._asked is None or (not self.has_answered and self._in_vain >= _IN_VAIN):
            return 0.0
        return self._monotonic() - self._asked

    async def ask(self, *, within: float) -> None:
        """Ask the venue something over the account's stream, unless it still owes an answer; pongs prove nothing."""
        client = next((one for url, one in self._exchange.clients.items() if is_private(url) and one.isConnected), None)
        if client is None or self._asked is not None:
            return
        self._asked = self._monotonic()
        with contextlib.suppress(ccxt.BaseError, OSError, TimeoutError):
            async with asyncio.timeout(within):
                await client.send({"method": "LIST_SUBSCRIPTIONS", "id": _PROBE_ID})

    def forget(self) -> None:
        """Expect no answer any more, and believe nothing of the account: the connection is another."""
        self._in_vain += self._asked is not None and not self.has_answered
        self._asked = None
        self._wallets.clear()

    def believe(self, wallet: Decimal) -> None:
        """Take a wallet balance to be known, as though the stream had told it."""
        self._wallets.append((self._monotonic(), wallet))

    def knows(self, wallet: Decimal, *, since: float) -> bool:
        """Whether the stream told of this wallet balance since a time, or of nothing else since the last it told."""
        earlier = [balance for told, balance in self._wallets if told < since]
        later = [balance for told, balance in self._wallets if told >= since]
        return not self._wallets or wallet in later or wallet in earlier[-1:]

    def _connected(self, client: Any, message: Any = None) -> None:
        self._say_connected(client, message)
        if is_private(client.url):
            self._asked = None
            self._events.put_nowait(Opened())

    def _take(self, client: Any, message: Any) -> None:
        ours = is_private(client.url)
        if ours and not isinstance(message, dict):
            self._events.put_nowait(Unreadable(str(message)[:200]))
            return
        if ours and message.get("id") == _PROBE_ID:
            self._asked, self.has_answered = None, True
            return
        kind = message.get("e") if ours else None
        if kind == _ACCOUNT:
            if is_of_funding(message):
                self._on_funding()
            with contextlib.suppress(MalformedReportError):
                if (wallet := stream_wallet(message, asset=_ASSET)) is not None:
                    self.believe(wallet)
        if kind in _ORDER_EVENTS:
            self.last_order_event = self._monotonic()
            self._events.put_nowait(self._order_event(message))
        elif kind == _KEY_LOST:
            # What is still read from a connection that was given up says nothing of the one that followed it.
            if client in self._exchange.clients.values():
                self._events.put_nowait(KeyLost())
        else:
            try:
                self._pass_on(client, message)
            except _UNFORESEEN as error:
                _log.warning(
                    "frame_unreadable", said=str(message)[:200], error=f"{type(error).__name__}: {error}"[:200]
                )

    def _order_event(self, message: Mapping[str, Any]) -> OrderEvent | Unreadable:
        order = message.get("o")
        if not isinstance(order, dict) or not isinstance(order.get("s"), str):
            return Unreadable(str(message)[:200])
        symbol = str(self._exchange.safe_symbol(order["s"], None, None, "contract"))
        # Events of conditional orders state their time on the outside.
        return OrderEvent(symbol, {"T": message.get("T")} | order)
