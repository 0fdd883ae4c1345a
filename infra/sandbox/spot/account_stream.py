"""The spot account's stream: orders, executions and balances as they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from infra.sandbox.engine.model import ZERO, AlgoEvent, AlgoOrder, AlgoStatus, Order, OrderEvent, Trade
from infra.sandbox.engine.spot import SpotExchange
from infra.sandbox.engine.spot_ledger import Balances, SpotEvent, client_id, number
from infra.sandbox.engine.spot_state import Pair, Transfer
from infra.sandbox.protocol.shapes import text
from infra.sandbox.spot.shapes import commission_asset, list_of, pair, status_of, worked_since
from infra.sandbox.spot.words import force_of, type_of
from infra.sandbox.streams import Connection, Hub
from infra.sandbox.venue import Venue

_ENDS = {AlgoStatus.NEW: "NEW", AlgoStatus.CANCELED: "CANCELED", AlgoStatus.EXPIRED: "EXPIRED"} | {
    AlgoStatus.REJECTED: "EXPIRED"
}
_encode = msgspec.json.encode


class AccountStream:
    """Everybody who has subscribed, each under a number of its own connection."""

    def __init__(self, venue: Venue, hub: Hub) -> None:
        self._venue = venue
        self._hub = hub
        self._listeners: dict[Connection, list[int]] = {}
        self._given = 0

    def join(self, connection: Connection) -> int:
        """Tell a connection what happens from now on, and return the number of its subscription."""
        known = self._listeners.setdefault(connection, [])
        # A connection begins with zero, as the live venue's do.
        given = len(known) and known[-1] + 1
        known.append(given)
        return given

    def leave(self, connection: Connection, subscription: int | None = None) -> None:
        """Tell a connection nothing more: of one subscription, or of all."""
        known = self._listeners.pop(connection, [])
        left = [one for one in known if subscription is not None and one != subscription]
        if left:
            self._listeners[connection] = left

    def subscriptions(self, connection: Connection) -> list[int]:
        """Return the numbers of a connection's subscriptions."""
        return list(self._listeners.get(connection, []))

    def tell(self, events: Iterable[SpotEvent]) -> None:
        """Tell everybody what happened."""
        if not self._listeners or self._hub.frozen_user:
            return
        for event in events:
            for told in written(self._venue.spot, event):
                self._send(told)

    def terminate(self, now_ms: int, *, silent: bool = False) -> bool:
        """End every subscription, with a word to its connection or without; return whether there was any."""
        if not self._listeners:
            return False
        if not silent:
            self._send({"e": "eventStreamTerminated", "E": now_ms})
        self._listeners.clear()
        return True

    def _send(self, told: dict[str, Any]) -> None:
        for connection, numbers in list(self._listeners.items()):
            for one in numbers:
                self._hub.send(connection, _encode({"subscriptionId": one, "event": told}).decode())


def written(spot: SpotExchange, event: SpotEvent) -> Iterator[dict[str, Any]]:
    """Write an event of the engine in the words of the venue."""
    if isinstance(event, OrderEvent):
        yield _report(spot, event.order, event.execution, event.time_ms, event.trade)
    elif isinstance(event, AlgoEvent):
        # That it was triggered is told by the order that it became.
        if event.algo.status in _ENDS:
            yield _report(spot, event.algo, _ENDS[event.algo.status], event.time_ms, None)
    elif isinstance(event, Balances):
        rows = [{"a": asset, "f": text(free), "l": text(locked)} for asset, (free, locked) in event.assets.items()]
        yield {"e": "outboundAccountPosition", "E": event.time_ms, "u": event.time_ms, "B": rows}
    elif isinstance(event, Pair):
        yield _of_list(spot, event)
    elif isinstance(event, Transfer):
        yield {
            "e": "balanceUpdate",
            "E": event.time_ms,
            "a": event.asset,
            "d": text(event.amount),
            "T": event.time_ms,
        }


def _of_list(spot: SpotExchange, one: Pair) -> dict[str, Any]:
    row = pair(spot, one)
    return {
        "e": "listStatus",
        "E": one.updated_ms,
        "s": one.symbol,
        "g": one.list_id,
        "c": row["contingencyType"],
        "l": row["listStatusType"],
        "L": row["listOrderStatus"],
        "r": "NONE",
        "C": one.client_list_id,
        "T": one.updated_ms,
        "O": [{"s": each["symbol"], "i": each["orderId"], "c": each["clientOrderId"]} for each in row["orders"]],
    }


def _report(
    spot: SpotExchange, one: Order | AlgoOrder, execution: str, time_ms: int, trade: Trade | None
) -> dict[str, Any]:
    own, is_plain = number(one), isinstance(one, Order)
    is_cancel = execution == "CANCELED"
    report: dict[str, Any] = {
        "e": "executionReport",
        "E": time_ms,
        "s": one.symbol,
        # Of a cancellation this is its own name, and the order's stands beside it.
        "c": f"cancel{own}" if is_cancel else client_id(one),
        "S": one.side.value,
        "o": type_of(one).value,
        "f": force_of(one),
        "q": text(one.quantity),
        "p": text(one.price),
        "P": text(one.stop_price if isinstance(one, Order) else one.trigger_price),
        "F": "0",
        "g": list_of(spot, own),
        "C": client_id(one) if is_cancel else "",
        "x": execution,
        "X": status_of(one),
        "r": "NONE",
        "i": own,
        "l": text(trade.quantity if trade else ZERO),
        "z": text(one.filled if isinstance(one, Order) else ZERO),
        "L": text(trade.price if trade else ZERO),
        "n": text(trade.fee if trade else ZERO),
        "N": commission_asset(spot, trade) if trade else None,
        "T": time_ms,
        "t": trade.trade_id if trade else -1,
        "I": 2 * own + (trade.trade_id if trade else 0),
        "w": is_plain,
        "m": trade.is_maker if trade else False,
        "M": False,
        "O": one.created_ms,
        "Z": text(one.filled_notional if isinstance(one, Order) else ZERO),
        "Y": text(trade.notional if trade else ZERO),
        "Q": text(spot.state.quote_quantities.get(own, ZERO)),
        "V": one.self_trade_prevention.value if isinstance(one, Order) else "EXPIRE_MAKER",
    }
    return report | {"W": worked_since(spot, one)} if is_plain else report
