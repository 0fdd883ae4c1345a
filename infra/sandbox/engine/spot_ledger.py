"""The ledger of a spot account: assets, what open orders lock of them, and what is to be told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from decimal import Decimal

from infra.sandbox.engine.book import BookModel
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.fees import Fees
from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import ZERO, AlgoOrder, Event, Order
from infra.sandbox.engine.spot_state import Pair, SpotState, Transfer, lock_of, lot_of

SPOT_FEES = Fees(maker=Decimal("0.001"), taker=Decimal("0.001"))


@dataclass(frozen=True, slots=True)
class Balances:
    """What the account has of the assets that an order changed, once all of it had happened: free, then locked."""

    assets: dict[str, tuple[Decimal, Decimal]]
    time_ms: int


SpotEvent = Event | Balances | Transfer | Pair


class SpotLedger(Exchange):
    """What a spot account has and what of it is bound; orders are taken by the exchange made of this."""

    state: SpotState

    def __init__(
        self, instruments: Iterable[Instrument], state: SpotState, *, fees: Fees | None = None,
        book: BookModel | None = None,
    ) -> None:  # fmt: skip
        known = list(instruments)
        self.lots = {one.symbol: lot_of(one) for one in known}
        self._locked: dict[str, Decimal] = {}
        self._changed: dict[str, None] = {}
        self._moved: list[Transfer | Pair] = []
        # The book's steps are those of the contract, so that both accounts see one book.
        super().__init__(known, state, fees=fees or SPOT_FEES, book=book)
        self._changed.clear()

    # -- what the account has -------------------------------------------------------------------------------------

    def locked(self, asset: str) -> Decimal:
        """Return how much of an asset open orders keep."""
        return self._locked.get(asset, ZERO)

    def free(self, asset: str) -> Decimal:
        """Return how much of an asset a new order may use."""
        return self.state.held(asset) - self.locked(asset)

    def transfer(self, asset: str, amount: Decimal, *, now_ms: int) -> None:
        """Bring an asset to the account, or take it where the amount is negative, but never what is locked."""
        if self.free(asset) + amount < ZERO:
            raise insufficient()
        self._move(asset, amount)
        moved = Transfer(asset, amount, now_ms)
        self.state.transfers.append(moved)
        self._moved.append(moved)

    def news(self, now_ms: int) -> list[SpotEvent]:
        """Return what happened since the last call, and then what it left the account with."""
        if not (self._outbox or self._moved or self._changed):
            return []
        told: list[SpotEvent] = [*self.drain(), *self._moved]
        self._moved.clear()
        if self._changed:
            assets = {one: (self.free(one), self.locked(one)) for one in self._changed}
            self._changed.clear()
            told.append(Balances(assets, max([now_ms, *(one.time_ms for one in told)])))
        return told

    # -- bookkeeping ----------------------------------------------------------------------------------------------

    def _move(self, asset: str, amount: Decimal) -> None:
        self.state.assets[asset] = self.state.held(asset) + amount
        self._changed[asset] = None

    def _index(self, order: Order) -> None:
        known = self._open.get(order.symbol, {}).get(order.order_id)
        self._relock(self._lock(known), self._lock(order if order.is_open else None))
        super()._index(order)

    def _index_algo(self, algo: AlgoOrder) -> None:
        known = self._open_algos.get(algo.symbol, {}).get(algo.algo_id)
        self._relock(self._lock(known), self._lock(algo if algo.is_open else None))
        super()._index_algo(algo)

    def _lock(self, one: Order | AlgoOrder | None) -> tuple[str, Decimal] | None:
        if one is None:
            return None
        pair = self.state.pair(one.order_id) if isinstance(one, Order) else None
        asset, amount = lock_of(one, self.instruments[one.symbol])
        return asset, ZERO if pair is not None and pair.is_open else amount

    def _relock(self, before: tuple[str, Decimal] | None, after: tuple[str, Decimal] | None) -> None:
        if before == after:
            return
        for lock, sign in ((before, -1), (after, 1)):
            if lock is not None:
                asset, amount = lock
                self._locked[asset] = self.locked(asset) + sign * amount
                self._changed[asset] = None


def number(one: Order | AlgoOrder) -> int:
    """Return the number of an order, which it keeps when it is triggered."""
    return one.order_id if isinstance(one, Order) else one.algo_id


def client_id(one: Order | AlgoOrder) -> str:
    """Return the client's id of an order."""
    return one.client_order_id if isinstance(one, Order) else one.client_algo_id


def insufficient() -> VenueError:
    """Return the refusal of what the account does not have free."""
    return VenueError(-2010)
