"""What each venue can express, as frozen values; an order that it cannot is refused before anything is sent."""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum

from inference.domain.order import OrderIntent, OrderType, Side


class Stream(StrEnum):
    """What a venue tells by WebSocket without being asked."""

    CANDLES = "CANDLES"
    CANDLES_OF_MANY = "CANDLES_OF_MANY"
    TICKERS = "TICKERS"
    BOOK = "BOOK"
    TRADES = "TRADES"
    ORDERS = "ORDERS"
    FILLS = "FILLS"
    BALANCE = "BALANCE"
    POSITIONS = "POSITIONS"


class TimeInForce(StrEnum):
    """How long an order works; POST_ONLY rests or does not happen."""

    GTC = "GTC"
    IOC = "IOC"
    FOK = "FOK"
    GTD = "GTD"
    POST_ONLY = "POST_ONLY"


class ClientIdForm(StrEnum):
    """What a venue accepts for an id of ours."""

    TEXT = "TEXT"
    INTEGER = "INTEGER"


class Inexpressible(StrEnum):
    """Why a venue cannot be asked for an order; the code of a refusal of ours, before anything is sent."""

    ORDER_TYPE_NOT_OFFERED = "ORDER_TYPE_NOT_OFFERED"
    REDUCE_ONLY_NOT_OFFERED = "REDUCE_ONLY_NOT_OFFERED"
    SHORT_NOT_OFFERED = "SHORT_NOT_OFFERED"
    TIME_IN_FORCE_NOT_OFFERED = "TIME_IN_FORCE_NOT_OFFERED"
    LIMIT_PRICE_MISSING = "LIMIT_PRICE_MISSING"
    TRIGGER_PRICE_MISSING = "TRIGGER_PRICE_MISSING"
    QUANTITY_NOT_POSITIVE = "QUANTITY_NOT_POSITIVE"
    CLIENT_ID_NOT_ACCEPTED = "CLIENT_ID_NOT_ACCEPTED"


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """
    What one venue can express.

    `stop_attached`: an entry can carry its stop in the same request. `positions`: it keeps positions, long and short;
    without them (spot) nothing can be sold that is not held, nor bought back. `countdown_cancel`: it cancels by itself
    when we fall silent. `own_clock`: it tells its time. `streams_per_connection`: how many subscriptions one WebSocket
    carries, of at most so many `connections`, of which no more than `connections_per_minute` may be opened.
    `quiet_candles`: a candle is told only when somebody trades. `target_type`: the order that holds a target there.
    """

    venue: str
    order_types: frozenset[OrderType]
    times_in_force: frozenset[TimeInForce]
    client_id: ClientIdForm
    positions: bool
    reduce_only: bool
    stop_attached: bool
    trailing_percent: bool
    hedge: bool
    set_leverage: bool
    countdown_cancel: bool
    own_clock: bool
    streams: frozenset[Stream]
    streams_per_connection: int
    connections: int
    connections_per_minute: int | None = None
    quiet_candles: bool = False
    target_type: OrderType = OrderType.TAKE_PROFIT_MARKET

    @property
    def post_only(self) -> bool:
        """Whether an order can be made to rest or not to happen."""
        return TimeInForce.POST_ONLY in self.times_in_force


_ALL_STREAMS = frozenset(Stream)
_TYPES = frozenset({OrderType.MARKET, OrderType.LIMIT, OrderType.STOP_MARKET, OrderType.TAKE_PROFIT_MARKET})

CAPABILITIES: dict[str, Capabilities] = {
    one.venue: one
    for one in (
        Capabilities(
            venue="binanceusdm",
            order_types=frozenset(OrderType),
            times_in_force=frozenset(TimeInForce),
            client_id=ClientIdForm.TEXT,
            positions=True,
            reduce_only=True,
            # A stop is an order of its own, at an endpoint of its own.
            stop_attached=False,
            trailing_percent=True,
            hedge=True,
            set_leverage=True,
            countdown_cancel=True,
            own_clock=True,
            streams=_ALL_STREAMS,
            streams_per_connection=200,
            connections=50,
        ),
        Capabilities(
            venue="binance",
            # A stop of spot is a limit order in disguise; what sells at any price when triggered is STOP_LOSS.
            order_types=_TYPES,
            times_in_force=frozenset(TimeInForce) - {TimeInForce.GTD},
            client_id=ClientIdForm.TEXT,
            positions=False,
            reduce_only=False,
            stop_attached=False,
            trailing_percent=False,
            hedge=False,
            set_leverage=False,
            countdown_cancel=False,
            own_clock=True,
            streams=_ALL_STREAMS - {Stream.POSITIONS},
            streams_per_connection=200,
            connections=50,
        ),
        Capabilities(
            venue="bitfinex",
            # A take profit exists there only as the other half of a pair (OCO), which ends the stop as soon as the
            # target fills in part; a limit order that only reduces holds a target and leaves the stop alone.
            order_types=_TYPES - {OrderType.TAKE_PROFIT_MARKET},
            target_type=OrderType.LIMIT,
            times_in_force=frozenset(TimeInForce) - {TimeInForce.GTD},
            client_id=ClientIdForm.INTEGER,
            positions=True,
            reduce_only=True,
            stop_attached=False,
            trailing_percent=False,
            hedge=False,
            # Leverage is part of each order there.
            set_leverage=False,
            countdown_cancel=False,
            own_clock=False,
            streams=_ALL_STREAMS - {Stream.CANDLES_OF_MANY, Stream.TICKERS, Stream.POSITIONS},
            # By the venue's documentation of its public channels; ccxt knows neither.
            streams_per_connection=25,
            connections=20,
            connections_per_minute=20,
            quiet_candles=True,
        ),
    )
}
CAPABILITIES["sandbox"] = CAPABILITIES["binanceusdm"]
CAPABILITIES["sandbox-bitfinex"] = CAPABILITIES["bitfinex"]
CAPABILITIES["sandbox-spot"] = CAPABILITIES["binance"]

_TEXT_ID = re.compile(r"[.A-Z:/a-z0-9_-]{1,36}")


def is_accepted_as_text(client_order_id: str) -> bool:
    """Whether Binance takes an id; what it does not take it answers with -4015."""
    return _TEXT_ID.fullmatch(client_order_id) is not None


def inexpressible(
    intent: OrderIntent, venue: Capabilities, *, time_in_force: TimeInForce | None = None, opens_short: bool = False
) -> Inexpressible | None:
    """
    Return why a venue cannot be asked for an order, or None where it can.

    Args:
        intent: The order.
        venue: What the venue offers.
        time_in_force: How long it is to work; as the order itself says, where nothing is given.
        opens_short: Whether it sells what is not held.
    """
    conditional, limited = intent.is_conditional, intent.order_type is OrderType.LIMIT
    force = time_in_force or (TimeInForce.POST_ONLY if intent.post_only else TimeInForce.GTC)
    text_id, buys = venue.client_id is ClientIdForm.TEXT, intent.side is Side.BUY
    # Money that is no number, or none at all, is never sent.
    finds = (
        (intent.order_type not in venue.order_types, Inexpressible.ORDER_TYPE_NOT_OFFERED),
        (intent.reduce_only and venue.positions and not venue.reduce_only, Inexpressible.REDUCE_ONLY_NOT_OFFERED),
        # Where nothing can be owed, nothing can be bought back.
        (intent.reduce_only and not venue.positions and buys, Inexpressible.REDUCE_ONLY_NOT_OFFERED),
        (opens_short and not venue.positions, Inexpressible.SHORT_NOT_OFFERED),
        (force not in venue.times_in_force, Inexpressible.TIME_IN_FORCE_NOT_OFFERED),
        (limited and not _is_price(intent.limit_price), Inexpressible.LIMIT_PRICE_MISSING),
        (conditional and not _is_price(intent.trigger_price), Inexpressible.TRIGGER_PRICE_MISSING),
        (not _is_price(intent.quantity), Inexpressible.QUANTITY_NOT_POSITIVE),
        (text_id and not is_accepted_as_text(intent.client_order_id), Inexpressible.CLIENT_ID_NOT_ACCEPTED),
        (not intent.client_order_id, Inexpressible.CLIENT_ID_NOT_ACCEPTED),
    )
    return next((why for found, why in finds if found), None)


def _is_price(number: object) -> bool:
    return isinstance(number, Decimal) and number.is_finite() and number > 0
