"""The way to the venue put together: transport, gateway, market data, and the executor that trades over them."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from feature_store.clock import monotonic
from feature_store.venue.budget import budget_of
from feature_store.venue.factory import create_exchange
from inference.bootstrap.account_lease import AccountLease
from inference.domain.policy import Policy
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.gateways import AccountGateway, VenueGateway, gateway_of
from inference.exchange.guarding import guard_entries, refuse_private
from inference.exchange.paper_file import PaperFile
from inference.exchange.paper_gateway import PaperGateway
from inference.exchange.transport import Transport, govern
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.heard import HeardJournal
from inference.execution.submission import ExecutionSettings
from inference.feed.history import closed_candles
from inference.feed.market_data import MarketData
from inference.settings import Mode, Settings


@dataclass(frozen=True, slots=True)
class VenueParts:
    """What speaks with the venue; nothing of it is connected yet."""

    exchange: Any
    transport: Transport
    gateway: AccountGateway
    market: MarketData


def make_venue(
    settings: Settings,
    stack: AsyncExitStack,
    *,
    clock: VenueClock,
    lease: AccountLease,
    policy: Policy,
    on_event: Callable[[str, Mapping[str, str]], None],
    on_accepted: Callable[[float], None],
    sent_before: Iterable[str],
) -> VenueParts:
    """
    Make what speaks with the venue; the stack closes it.

    Args:
        settings: Which venue, and by whose keys.
        stack: Closes the gateway, then the transport.
        clock: The venue's time, which the gateway keeps.
        lease: Whoever does not hold it sends nothing.
        policy: Says which leverage is set at the venue before a symbol's first order, and what paper trading charges.
        on_event: Hears of circuits and pauses.
        on_accepted: Hears that an order was accepted, whose event is due on the account's stream.
        sent_before: Client ids of orders that earlier lives sent.
    """
    is_paper = settings.mode is Mode.PAPER
    # A paper account needs no keys, and is given none to send.
    key, secret = (
        ("", "") if is_paper else (settings.api_key.get_secret_value(), settings.api_secret.get_secret_value())
    )
    exchange = create_exchange(
        settings.venue,
        url=settings.venue_url,
        test_network=settings.is_test_network,
        api_key=key,
        api_secret=secret,
    )
    budget = budget_of(settings.home, settings.venue, exchange)
    transport = govern(exchange, budget=budget, monotonic=monotonic, on_event=on_event)
    stack.push_async_callback(transport.close)
    lease.guard(exchange)
    venue = gateway_of(
        settings.venue,
        exchange,
        clock=clock,
        monotonic=monotonic,
        leverage=policy.leverage,
        on_accepted=on_accepted,
        on_clock_moved=lease.doubt,
    )
    gateway = _paper(venue, exchange, settings, clock=clock, lease=lease, policy=policy) if is_paper else venue
    gateway.remember(sent_before)
    stack.push_async_callback(gateway.close)
    market = MarketData(
        exchange,
        gateway,
        timeframe=settings.timeframe,
        clock=clock,
        monotonic=monotonic,
        capabilities=CAPABILITIES[settings.venue],
        closed_seconds=lambda: gateway.closed_seconds,
        on_running=gateway.hear_running if isinstance(gateway, PaperGateway) else lambda *_: None,
        on_closed=gateway.hear_closed if isinstance(gateway, PaperGateway) else lambda *_: None,
    )
    return VenueParts(exchange, transport, gateway, market)


def _paper(
    market: VenueGateway, exchange: Any, settings: Settings, *, clock: VenueClock, lease: AccountLease, policy: Policy
) -> PaperGateway:
    refuse_private(exchange)
    return PaperGateway(
        market,
        exchange=exchange,
        file=PaperFile(settings.paper_file, venue=settings.venue, balance=settings.paper_balance),
        timeframe=settings.timeframe,
        capabilities=CAPABILITIES[settings.venue],
        clock=clock,
        monotonic=monotonic,
        leverage=policy.leverage,
        taker_fee=policy.taker_fee,
        past=partial(closed_candles, exchange),
        may_write=lease.why_not,
        is_writer=lambda: lease.is_held,
    )


def make_executor(
    venue: VenueParts,
    settings: Settings,
    *,
    journal: HeardJournal,
    book: Book,
    policy: Policy,
    now_ms: Callable[[], int],
    order_took: Callable[[float], None],
    is_followed: Callable[[str], bool],
) -> Executor:
    """Return the executor of an account, with what earlier lives left in its book; what bars entries stops any."""
    can = CAPABILITIES[settings.venue]
    executor = Executor(
        gateway=venue.gateway,
        journal=journal,
        book=book,
        now_ms=now_ms,
        monotonic=monotonic,
        sleep=asyncio.sleep,
        taker_fee=policy.taker_fee,
        settings=ExecutionSettings(
            approval_valid_ms=settings.timeframe.milliseconds,
            target_type=can.target_type,
        ),
        entry_style=policy.entry_style,
        entry_patience_seconds=policy.entry_patience_seconds,
        chance=random.random,
        no_capacity=venue.transport.no_room_for_entry,
        may_double=can.reduce_only,
        traded=venue.market.traded,
        order_took=order_took,
        is_followed=is_followed,
    )
    if isinstance(venue.gateway, PaperGateway):
        venue.gateway.guard_entries(lambda: executor.door.why_barred)
    else:
        guard_entries(venue.exchange, lambda: executor.door.why_barred)
    return executor
