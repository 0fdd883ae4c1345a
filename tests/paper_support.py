"""A paper account at the public market of a running sandbox."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from types import SimpleNamespace

from feature_store.candle import Timeframe
from feature_store.clock import monotonic
from feature_store.venue.factory import create_exchange
from inference.exchange.capabilities import CAPABILITIES
from inference.exchange.gateways import gateway_of
from inference.exchange.guarding import refuse_private
from inference.exchange.paper_file import PaperFile
from inference.exchange.paper_gateway import PaperGateway
from inference.exchange.paper_stream import PaperStream
from inference.exchange.venue_clock import VenueClock
from inference.feed.history import closed_candles


@asynccontextmanager
async def paper_gateway_at(url: str, *, file: Path, venue: str = "sandbox", follows: bool = True):
    """Yield a connected paper gateway and what its stream tells; with `follows` it asks for prices by itself."""
    exchange, clock = create_exchange(venue, url=url), VenueClock(accelerated=True)
    refuse_private(exchange)
    gateway = PaperGateway(
        gateway_of(venue, exchange, clock=clock, monotonic=monotonic, leverage=3),
        exchange=exchange,
        file=PaperFile(file, venue=venue, balance=Decimal(10_000)),
        timeframe=Timeframe.M5,
        capabilities=CAPABILITIES[venue],
        clock=clock,
        monotonic=monotonic,
        leverage=3,
        taker_fee=Decimal("0.0005"),
        past=partial(closed_candles, exchange),
    )
    told = SimpleNamespace(reports=[], fills=[], gaps=[], funding=[])
    stream = PaperStream(
        gateway,
        on_report=told.reports.append,
        on_fill=told.fills.append,
        on_gap=told.gaps.append,
        on_funding=lambda: told.funding.append(1),
    )
    following: asyncio.Task[None] | None = None
    try:
        await gateway.connect()
        if follows:
            following = asyncio.create_task(stream.run())
            assert await stream.connected(within=60)
        yield gateway, told
    finally:
        if following is not None:
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
        await gateway.close()
