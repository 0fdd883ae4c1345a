"""What the account's stream brings, taken where ccxt receives it, so that nothing is lost between two waits."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from inference.exchange.watching import is_private

_ORDER_EVENTS = frozenset({"ORDER_TRADE_UPDATE", "ALGO_UPDATE"})
_KEY_LOST = "listenKeyExpired"


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

    def __init__(self, exchange: Any, *, monotonic: Callable[[], float]) -> None:
        self._exchange = exchange
        self._monotonic = monotonic
        self._events: asyncio.Queue[AccountEvent] = asyncio.Queue()
        self._pass_on = exchange.handle_message
        self._say_connected = exchange.on_connected
        self.last_order_event = monotonic()
        # Clients are given these two when they are made.
        exchange.handle_message = self._take
        exchange.on_connected = self._connected

    async def next(self) -> AccountEvent:
        """Return the next event as soon as there is one."""
        return await self._events.get()

    def _connected(self, client: Any, message: Any = None) -> None:
        self._say_connected(client, message)
        if is_private(client.url):
            self._events.put_nowait(Opened())

    def _take(self, client: Any, message: Any) -> None:
        kind = message.get("e") if is_private(client.url) and isinstance(message, dict) else None
        if kind in _ORDER_EVENTS:
            self.last_order_event = self._monotonic()
            self._events.put_nowait(self._order_event(message))
        elif kind == _KEY_LOST:
            # What is still read from a connection that was given up says nothing of the one that followed it.
            if client in self._exchange.clients.values():
                self._events.put_nowait(KeyLost())
        else:
            self._pass_on(client, message)

    def _order_event(self, message: Mapping[str, Any]) -> OrderEvent | Unreadable:
        order = message.get("o")
        if not isinstance(order, dict) or not isinstance(order.get("s"), str):
            return Unreadable(str(message)[:200])
        symbol = str(self._exchange.safe_symbol(order["s"], None, None, "contract"))
        # Events of conditional orders state their time on the outside.
        return OrderEvent(symbol, {"T": message.get("T")} | order)
