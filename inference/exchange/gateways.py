"""The gateway and the account's stream of a venue, by its name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feature_store.venue.factory import VENUES
from inference.domain.order import Fill, OrderReport
from inference.exchange.bitfinex_gateway import BitfinexGateway
from inference.exchange.bitfinex_stream import BitfinexStream
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.paper_gateway import PaperGateway
from inference.exchange.paper_stream import PaperStream
from inference.exchange.spot_gateway import SpotGateway
from inference.exchange.spot_stream import SpotStream
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import VenueClock

VenueGateway = CcxtGateway | BitfinexGateway | SpotGateway
AccountGateway = VenueGateway | PaperGateway
AccountStream = UserStream | BitfinexStream | SpotStream | PaperStream

_BITFINEX, _SPOT = "bitfinex", "binance"


def gateway_of(
    venue: str,
    exchange: Any,
    *,
    clock: VenueClock,
    monotonic: Callable[[], float],
    leverage: int,
    on_accepted: Callable[[float], None] = lambda _: None,
    on_clock_moved: Callable[[], None] = lambda: None,
) -> VenueGateway:
    """Return the trading side of an account at a venue; spot has no leverage."""
    if VENUES[venue].ccxt_id == _SPOT:
        return SpotGateway(
            exchange, clock=clock, monotonic=monotonic, on_accepted=on_accepted, on_clock_moved=on_clock_moved
        )
    make = BitfinexGateway if VENUES[venue].ccxt_id == _BITFINEX else CcxtGateway
    return make(
        exchange,
        clock=clock,
        monotonic=monotonic,
        leverage=leverage,
        on_accepted=on_accepted,
        on_clock_moved=on_clock_moved,
    )


def account_stream_of(
    gateway: AccountGateway,
    exchange: Any,
    *,
    on_report: Callable[[OrderReport], None],
    on_fill: Callable[[Fill], None],
    on_gap: Callable[[str], None],
    monotonic: Callable[[], float],
    on_funding: Callable[[], None] = lambda: None,
) -> AccountStream:
    """Return what follows the orders of a gateway's account; only that of contracts tells of funding."""
    if isinstance(gateway, PaperGateway):
        return PaperStream(gateway, on_report=on_report, on_fill=on_fill, on_gap=on_gap, on_funding=on_funding)
    if isinstance(gateway, SpotGateway):
        return SpotStream(
            exchange,
            reader=gateway,
            on_report=on_report,
            on_fill=on_fill,
            on_gap=on_gap,
            monotonic=monotonic,
            closed_seconds=lambda: gateway.closed_seconds,
        )
    if isinstance(gateway, BitfinexGateway):
        return BitfinexStream(
            exchange,
            reader=gateway,
            on_report=on_report,
            on_fill=on_fill,
            on_gap=on_gap,
            monotonic=monotonic,
            closed_seconds=lambda: gateway.closed_seconds,
        )
    return UserStream(
        exchange,
        on_report=on_report,
        on_fill=on_fill,
        on_gap=on_gap,
        monotonic=monotonic,
        look=gateway.wallet,
        closed_seconds=lambda: gateway.closed_seconds,
        on_funding=on_funding,
    )
