"""The account's channel: orders, executions, positions and wallet as they change."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from feature_store import clock as wall
from infra.sandbox.bitfinex.shapes import order_row, position_row, stop_row, trade_row, wallet_row
from infra.sandbox.engine.model import AccountEvent, AlgoEvent, AlgoStatus, Event, OrderEvent
from infra.sandbox.streams import Connection, Hub
from infra.sandbox.venue import Venue

_ENDS = frozenset({AlgoStatus.CANCELED, AlgoStatus.EXPIRED, AlgoStatus.REJECTED})
Message = tuple[str, Any]
_encode = msgspec.json.encode


class Account:
    """Everybody who has signed, and what they are told."""

    def __init__(self, venue: Venue, hub: Hub) -> None:
        self._venue = venue
        self._hub = hub
        # When each was last told something.
        self.listeners: dict[Connection, float] = {}
        # The positions they know of.
        self._held: set[str] = set()

    def join(self, connection: Connection) -> None:
        """Tell a connection what there is, and from now on what changes."""
        exchange = self._venue.exchange
        account = exchange.margin()
        orders = [order_row(exchange, one) for one in exchange.open_orders()]
        orders += [stop_row(exchange, one) for one in exchange.open_algos()]
        positions = [position_row(exchange, one, account) for one in exchange.state.open_positions()]
        if not self.listeners:
            self._held = {one.key for one in exchange.state.open_positions()}
        self.listeners[connection] = wall.monotonic()
        for kind, data in (("ps", positions), ("ws", [wallet_row(account)]), ("os", orders)):
            connection.push(_encode([0, kind, data]).decode())

    def tell(self, events: Iterable[Event]) -> None:
        """Tell everybody what happened."""
        if not self.listeners:
            # An order of somebody who uses the other front costs nothing here.
            return
        messages = [message for event in events for message in self._messages(event)]
        if self._hub.frozen_user:
            return
        for kind, data in messages:
            frame = _encode([0, kind, data]).decode()
            for connection in self.listeners:
                self.listeners[connection] = wall.monotonic()
                self._hub.send(connection, frame)

    def beat(self, connection: Connection, quiet_since: float) -> None:
        """Tell one that was told nothing that the channel is alive."""
        if self.listeners[connection] <= quiet_since:
            self.listeners[connection] = wall.monotonic()
            connection.push('[0,"hb"]')

    def _messages(self, event: Event) -> Iterator[Message]:
        if isinstance(event, OrderEvent):
            yield from self._of_order(event)
        elif isinstance(event, AlgoEvent):
            exchange = self._venue.exchange
            if event.algo.status is AlgoStatus.NEW:
                yield "on", stop_row(exchange, event.algo)
            elif event.algo.status in _ENDS:
                yield "oc", stop_row(exchange, event.algo)
        elif isinstance(event, AccountEvent):
            yield from self._of_account(event)

    def _of_order(self, event: OrderEvent) -> Iterator[Message]:
        exchange, order = self._venue.exchange, event.order
        row = order_row(exchange, order)
        if event.trade is None:
            # What a stop becomes is no new order.
            first = "ou" if order.algo_id else "on"
            yield {"NEW": first, "AMENDMENT": "ou"}.get(event.execution, "oc"), row
            return
        yield "te", trade_row(exchange, event.trade, with_fee=False)
        yield ("ou" if order.is_open else "oc"), row
        yield "tu", trade_row(exchange, event.trade)

    def _of_account(self, event: AccountEvent) -> Iterator[Message]:
        if event.reason == "MARGIN_TYPE_CHANGE":
            # Of the other front: a client of this one knows of no choice.
            return
        exchange = self._venue.exchange
        account = exchange.margin()
        for position in event.positions:
            was_held = position.key in self._held
            if position.quantity:
                self._held.add(position.key)
                yield ("pu" if was_held else "pn"), position_row(exchange, position, account)
            elif was_held:
                self._held.discard(position.key)
                yield "pc", position_row(exchange, position, account)
        yield "wu", wallet_row(account)
