"""What a spot account holds: assets instead of positions."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from decimal import Decimal

from infra.sandbox.engine.instrument import Instrument
from infra.sandbox.engine.model import ZERO, AlgoOrder, Order, Side
from infra.sandbox.engine.state import EngineState

QUOTE = "USDT"
# The venue's smallest notional; and steps of quantity a hundred times finer than a contract's, so that what is left of
# a purchase after its commission, which is taken in what was bought, is worth a cent at most.
MIN_NOTIONAL = Decimal(5)
_FINER = 2


@dataclass(frozen=True, slots=True)
class Pair:
    """
    A limit and an order that waits for a price, of which one at most is executed; both together lock once.

    It is open while neither has traded, triggered or ended; then the other one ends too.
    """

    list_id: int
    client_list_id: str
    symbol: str
    limit_id: int
    stop_id: int
    created_ms: int
    updated_ms: int
    is_open: bool = True

    @property
    def time_ms(self) -> int:
        """When it last changed."""
        return self.updated_ms

    @property
    def numbers(self) -> tuple[int, int]:
        """The numbers of its orders."""
        return self.limit_id, self.stop_id


@dataclass(frozen=True, slots=True)
class Transfer:
    """An asset that came to the account, or left it where the amount is negative, without an order."""

    asset: str
    amount: Decimal
    time_ms: int


@dataclass(slots=True)
class SpotState(EngineState):
    """
    The account's assets, its orders and their history.

    What is held is kept; how much of it is locked follows from the orders that are open, and is never stored.
    """

    assets: dict[str, Decimal] = field(default_factory=dict)
    # Id of a market order -> what it was to spend or to bring in, where that was asked for.
    quote_quantities: dict[int, Decimal] = field(default_factory=dict)
    transfers: list[Transfer] = field(default_factory=list)
    pairs: dict[int, Pair] = field(default_factory=dict)
    # Number of an order -> the pair that it is one of.
    pair_of: dict[int, int] = field(default_factory=dict)
    next_list_id: int = 1

    def held(self, asset: str) -> Decimal:
        """Return what is held of an asset, locked or not."""
        return self.assets.get(asset, ZERO)

    def pair(self, order_id: int) -> Pair | None:
        """Return the pair that an order is one of."""
        return self.pairs.get(self.pair_of.get(order_id, 0))


def new_spot_state(balance: Decimal) -> SpotState:
    """Return an account that holds so much of the quote asset and nothing else."""
    return SpotState(wallet=ZERO, opening_balance=balance, assets={QUOTE: balance})


def lot_of(one: Instrument) -> Instrument:
    """Return the steps and minimums of spot for what a contract is made of."""
    return replace(one, quantity_decimals=one.quantity_decimals + _FINER, min_notional=MIN_NOTIONAL)


def lock_of(one: Order | AlgoOrder, instrument: Instrument) -> tuple[str, Decimal]:
    """Return what an open order keeps from others: the asset and how much of it; a market order to buy, nothing."""
    remaining = one.remaining if isinstance(one, Order) else one.quantity
    if one.side is Side.SELL:
        return instrument.base, remaining
    price = one.price if isinstance(one, Order) else (one.price or one.trigger_price)
    return instrument.quote, remaining * price
