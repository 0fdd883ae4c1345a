"""A sandbox exchange in a proof's own process, on a port of its own: cheap enough to have one for each story."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aiohttp import web

from infra.prove.desk import API_KEY, API_SECRET
from infra.sandbox import audit
from infra.sandbox.control import perform
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.serve import Options, build
from infra.sandbox.server import Sandbox, application

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
_START_MS = 1_767_574_800_000
"""2026-01-05, one o'clock: no funding is due within the minutes of a story."""


@dataclass(frozen=True, slots=True)
class OwnVenue:
    """A running venue: clients speak to it over HTTP and WebSocket, the proof disturbs it directly."""

    sandbox: Sandbox
    url: str

    async def do(self, **operation: Any) -> Any:
        """Carry out an operation of the control plane."""
        return await perform(self.sandbox, operation)

    def audit(self) -> dict[str, Any]:
        """Return what `GET /sandbox/audit` answers."""
        sandbox = self.sandbox
        sandbox.advance()
        return audit.report(
            sandbox.venue.exchange, sandbox.venue.auditor, now_ms=sandbox.now_ms(), wall_ms=sandbox.monotonic_ms()
        )


@asynccontextmanager
async def own_venue(
    *,
    symbols: tuple[str, ...] = ("BTCUSDT", "ETHUSDT"),
    speed: float = 1.0,
    seed: int = 7,
    edge: float = 0.0,
    heard: Callable[[str, str], None] = lambda *_: None,
) -> AsyncIterator[OwnVenue]:
    """Run a venue with a few symbols for the length of the block; `heard` is told method and path of each request."""
    options = Options(
        host="127.0.0.1", port=0, symbols=symbols, symbol_count=len(symbols), seed=seed, edge=edge, speed=speed,
        start_ms=_START_MS, history_days=1, balance=Decimal(1_000_000), taker_fee=Decimal("0.0005"),
        maker_fee=Decimal("0.0002"), spread_bps=Decimal(1), credentials=Credentials(API_KEY, API_SECRET),
    )  # fmt: skip
    sandbox = build(options)

    @web.middleware
    async def listening(request: web.Request, handler: Handler) -> web.StreamResponse:
        heard(request.method, request.path)
        return await handler(request)

    app = application(sandbox)
    app.middlewares.append(listening)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        yield OwnVenue(sandbox, f"http://{host}:{port}")
    finally:
        # A black hole would hold its requests for ever.
        await perform(sandbox, {"op": "clear"})
        await runner.cleanup()
