"""An account at the matching engine in the worker's words: what proofs and paper trading ask of it alike."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal

from feature_store.errors import QuantumError
from feature_store.venue.errors import OrderRefusedError, OutcomeUnknownError
from inference.domain.order import Fill, OrderIntent, OrderReport, OrderType
from inference.exchange import ccxt_mapping as mapped
from inference.execution.funding import FundingPayment
from inference.execution.ports import VenuePosition
from infra.sandbox.engine import model
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.protocol import shapes
from infra.sandbox.protocol.user_events import user_event

_DUPLICATE_ID = -4116
_FUNDING = "FUNDING_FEE"


class EngineAccount:
    """
    Reads and writes one account of the engine, through the words of its wire.

    Args:
        exchange: The engine.
        native: The engine's name of each symbol, by ours; a symbol that is not in it has the same name in both.
        beside_others: Whether an order that only reduces may rest beside others that would reduce all there is.
    """

    def __init__(self, exchange: Exchange, native: Mapping[str, str], *, beside_others: bool = False) -> None:
        self.exchange = exchange
        self._native = native
        self._names = {theirs: ours for ours, theirs in native.items()}
        self._beside_others = beside_others

    def place(self, intent: OrderIntent, *, now_ms: int) -> OrderReport:
        """
        Let the engine take an order, and match what can be matched now.

        Raises:
            VenueError: The engine refuses it; nothing happened.
        """
        side, kind = model.Side(intent.side.value), model.OrderType(intent.order_type.value)
        if intent.is_conditional:
            algo = model.AlgoRequest(
                symbol=self.native(intent.symbol),
                side=side,
                type=kind,
                quantity=intent.quantity,
                trigger_price=intent.trigger_price,
                reduce_only=intent.reduce_only,
                client_algo_id=intent.client_order_id,
            )
            return self._algo(self.exchange.submit_algo(algo, now_ms=now_ms))
        plain = model.OrderRequest(
            symbol=self.native(intent.symbol),
            side=side,
            type=kind,
            quantity=intent.quantity,
            price=intent.limit_price if intent.order_type is OrderType.LIMIT else None,
            time_in_force=model.TimeInForce.GTX if intent.post_only else model.TimeInForce.GTC,
            reduce_only=intent.reduce_only,
            client_order_id=intent.client_order_id,
            beside_others=self._beside_others,
        )
        return self._plain(self.exchange.submit(plain, now_ms=now_ms))

    def find(self, intent: OrderIntent) -> OrderReport | None:
        """Return what became of an order; None where the engine knows of none."""
        try:
            if intent.is_conditional:
                return self._algo(self.exchange.find_algo(client_algo_id=intent.client_order_id))
            symbol = self.native(intent.symbol)
            return self._plain(self.exchange.find_order(symbol, client_order_id=intent.client_order_id))
        except VenueError:
            return None

    def cancel(self, intent: OrderIntent, *, now_ms: int) -> bool:
        """Cancel one order; return whether it was open."""
        try:
            if intent.is_conditional:
                self.exchange.cancel_algo(client_algo_id=intent.client_order_id, now_ms=now_ms)
            else:
                symbol = self.native(intent.symbol)
                self.exchange.cancel(symbol, client_order_id=intent.client_order_id, now_ms=now_ms)
        except VenueError:
            return False
        return True

    def open_orders(self) -> list[OrderReport]:
        """Return every order at rest, plain and conditional."""
        plain = [self._plain(one) for one in self.exchange.open_orders()]
        return plain + [self._algo(one) for one in self.exchange.open_algos()]

    def positions(self) -> list[VenuePosition]:
        """Return every position that is not flat."""
        account = self.exchange.margin()
        return [
            mapped.venue_position(shapes.position_risk(self.exchange, one, account), symbol=self.name(one.symbol))
            for one in self.exchange.state.open_positions()
        ]

    def equity(self) -> Decimal:
        """Return wallet plus unrealised profit at the last prices, in the settlement currency."""
        return self.exchange.margin().balance

    def fills(self, symbol: str, since_ms: int) -> list[Fill]:
        """Return the executions in a symbol since a time, oldest first."""
        native = self.native(symbol)
        return [
            mapped.fill(shapes.trade(one), symbol=symbol)
            for one in self.exchange.state.trades
            if one.symbol == native and one.time_ms >= since_ms
        ]

    def funding(self, since_ms: int) -> list[FundingPayment]:
        """Return the funding that was paid and received since a time, oldest first."""
        return [
            mapped.funding_payment(shapes.income(one), symbol=self.name(one.symbol))
            for one in self.exchange.state.incomes
            if one.kind == _FUNDING and one.time_ms >= since_ms
        ]

    def told(self, events: Iterable[model.Event]) -> Iterator[OrderReport | Fill]:
        """Yield what the stream of the account says of some events: an execution before the report that tells of it."""
        for event in events:
            if not isinstance(event, model.OrderEvent | model.AlgoEvent):
                continue
            told = user_event(event, self.exchange.state)
            raw = {"T": told["T"], **told["o"]}
            name = self.name(raw["s"])
            if (fill := mapped.stream_fill(raw, symbol=name)) is not None:
                yield fill
            yield mapped.stream_report(raw, symbol=name)

    def native(self, symbol: str) -> str:
        """Return the engine's name of a symbol."""
        return self._native.get(symbol, symbol)

    def name(self, native: str) -> str:
        """Return our name of a symbol of the engine's."""
        return self._names.get(native, native)

    def _plain(self, order: model.Order) -> OrderReport:
        return mapped.order_report(shapes.order(order), symbol=self.name(order.symbol))

    def _algo(self, algo: model.AlgoOrder) -> OrderReport:
        child = self.exchange.state.orders.get(algo.order_id)
        report = mapped.algo_report(shapes.algo(algo, child), symbol=self.name(algo.symbol))
        return report if child is None else mapped.fired_report(report, self._plain(child))


def refusal(error: VenueError) -> QuantumError:
    """Return what a refusal of the engine means to whoever sent the order; with an id in use, it may exist already."""
    if error.code == _DUPLICATE_ID:
        return OutcomeUnknownError(error.message, code=error.code)
    return OrderRefusedError(error.message, code=error.code)
