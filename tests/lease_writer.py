"""A process that trades an account for as long as it holds the lease: an order every few milliseconds, and a word."""

from __future__ import annotations

import asyncio
import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

from feature_store.clock import monotonic, uptime
from feature_store.errors import QuantumError
from feature_store.venue.factory import RECV_WINDOW_MS, create_exchange
from feature_store.venue.requests import Urgency
from inference.domain.order import OrderIntent, OrderType, Purpose, Side
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.guarding import guard_writes
from inference.exchange.venue_clock import VenueClock
from inference.execution.lease import LeaseTerms
from inference.leases.holding import is_dead, this_process
from inference.leases.keeper import LeaseKeeper
from inference.leases.store import open_store
from tests.sandbox_support import API_KEY, API_SECRET

_EVERY_SECONDS = 0.05
SYMBOL = "BTC/USDT:USDT"


def say(what: str, **more: Any) -> None:
    """Write one line: what happened, and when by the clock that all processes of a machine share."""
    sys.stdout.write(json.dumps({"what": what, "at": monotonic()} | more) + "\n")
    sys.stdout.flush()


def order(key: str) -> OrderIntent:
    """Return a small market order."""
    return OrderIntent(
        client_order_id=key, trade_id=key, trace_id="", symbol=SYMBOL, side=Side.BUY, order_type=OrderType.MARKET,
        purpose=Purpose.ENTRY, quantity=Decimal("0.001"),
    )  # fmt: skip


async def send(gateway: CcxtGateway, key: str) -> None:
    """Send one order and say what came of it."""
    try:
        await gateway.submit(order(key))
    except QuantumError as error:
        say("failed", key=key, error=type(error).__name__)
    else:
        say("accepted", key=key)


async def trade(name: str, *, venue: str, leases: str, home: Path, seconds: float) -> None:
    """Wait for the lease, then send until it is another's."""
    terms = LeaseTerms(seconds=seconds, recv_window_seconds=RECV_WINDOW_MS / 1000)
    keeper = LeaseKeeper(
        open_store(leases, home), account="one", me=this_process(home), terms=terms, now=uptime, is_dead=is_dead
    )
    exchange = create_exchange("sandbox", url=venue, api_key=API_KEY, api_secret=API_SECRET)
    gateway = CcxtGateway(exchange, clock=VenueClock(accelerated=False), monotonic=monotonic, leverage=3)

    def check(urgency: Urgency) -> str:
        at = monotonic()
        reason = keeper.check(urgency)
        if not reason:
            say("signed", at=at)
        return reason

    guard_writes(exchange, check)
    await gateway.connect()
    say("connected")
    await keeper.take(wait=True, waiting=lambda reason: say("waiting", reason=reason))
    keeping = asyncio.create_task(keeper.keep())
    await asyncio.sleep(keeper.begins_in)
    say("begins", token=keeper.token)
    under_way, number = set(), 0
    while not keeper.lost:
        number += 1
        task = asyncio.create_task(send(gateway, f"qt-{name}-E{number}"))
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(_EVERY_SECONDS)
    say("lost", reason=keeper.lost)
    keeping.cancel()
    if under_way:
        await asyncio.wait(under_way, timeout=5.0)
    await gateway.close()


if __name__ == "__main__":
    _name, _venue, _leases, _home, _seconds = sys.argv[1:]
    asyncio.run(trade(_name, venue=_venue, leases=_leases, home=Path(_home), seconds=float(_seconds)))
