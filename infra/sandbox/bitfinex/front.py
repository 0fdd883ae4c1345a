"""The front as a whole: its routes in the web application, and what it is told of the account."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from aiohttp import web

from infra.sandbox.bitfinex import socket
from infra.sandbox.bitfinex.account_channel import Account
from infra.sandbox.bitfinex.names import PREFIX
from infra.sandbox.bitfinex.rest import Rest
from infra.sandbox.bitfinex.signing import Doorkeeper
from infra.sandbox.engine.model import Event

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox


class Bitfinex:
    """A second front before one venue: the same account, the same time, the same faults."""

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self.doorkeeper = Doorkeeper(sandbox.credentials)
        self.account = Account(sandbox.venue, sandbox.hub)
        self.rest = Rest(sandbox, self.doorkeeper)

    def tell(self, events: Iterable[Event]) -> None:
        """Pass on what happened to the account."""
        self.account.tell(events)

    def add_routes(self, app: web.Application, write: Callable[..., Awaitable[Any]]) -> None:
        """Answer below the front's own prefix; `write` sends what waits for a connection."""

        async def handle_socket(request: web.Request) -> Any:
            return await socket.serve(self._sandbox, self.doorkeeper, self.account, request, write)

        for room in ("", "/public", "/private"):
            app.router.add_get(f"{PREFIX}{room}/ws/2", handle_socket)
        app.router.add_route("*", PREFIX + "/{path:.*}", self.rest.handle)
