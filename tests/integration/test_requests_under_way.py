"""A loop that calls too early, as one may that counts in whole milliseconds: requests under way arrive all the same."""

from __future__ import annotations

import asyncio
import json
from urllib.parse import urlencode

import aiohttp
import pytest
from aiohttp import web

from feature_store.clock import monotonic
from infra.sandbox.bitfinex.signing import signature
from infra.sandbox.order_rules import changed
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.server import application
from tests.unit.test_sandbox_latency import make_sandbox

KEY, SECRET = "key", "secret"


class HastyLoop(asyncio.SelectorEventLoop):
    """Calls ten milliseconds before it should."""

    def call_later(self, delay, callback, *args, context=None):
        """Call too early."""
        return super().call_later(max(0.0, delay - 0.01), callback, *args, context=context)


def bitfinex(sandbox):
    """Return path, headers and body of a market order in Bitfinex's words."""
    del sandbox
    path, body = "/v2/auth/w/order/submit", json.dumps({"type": "MARKET", "symbol": "tSOLF0:USTF0", "amount": "1"})
    signed = signature(SECRET, f"/api{path}1{body}")
    return "/bitfinex" + path, {"bfx-nonce": "1", "bfx-apikey": KEY, "bfx-signature": signed}, body


def binance(sandbox):
    """Return path, headers and body of a market order in Binance's words."""
    now_ms = sandbox.clock.reported_ms(monotonic())
    query = urlencode({"symbol": "SOLUSDT", "side": "BUY", "type": "MARKET", "quantity": 1, "timestamp": now_ms})
    signed = Credentials(KEY, SECRET).sign(query)
    return f"/fapi/v1/order?{query}&signature={signed}", {"X-MBX-APIKEY": KEY}, ""


async def answered(sandbox, request):
    """Send a request to a venue that no ticks move, and return the status of its answer."""
    app = application(sandbox)
    # Without its loop, only the request's own alarm moves time on.
    app.cleanup_ctx.clear()
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        host, port = runner.addresses[0][:2]
        path, headers, body = request(sandbox)
        async with (
            asyncio.timeout(20),
            aiohttp.ClientSession(headers=headers) as session,
            session.post(f"http://{host}:{port}{path}", data=body) as answer,
        ):
            return answer.status, await answer.text()
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("request_of", [binance, bitfinex])
def test_an_order_under_way_does_not_wait_for_a_tick(request_of):
    """Both fronts set their alarm again where it rang too early, and the order is filled."""

    async def story():
        sandbox = make_sandbox()
        sandbox.venue.exchange.state.rules = changed(sandbox.venue.exchange.state.rules, {"insert_ms": 40})
        return await answered(sandbox, request_of), sandbox.venue.exchange.state

    with asyncio.Runner(loop_factory=HastyLoop) as runner:
        (status, text), state = runner.run(story())
    assert status == 200, text
    assert [one.status for one in state.orders.values()] == ["FILLED"]
