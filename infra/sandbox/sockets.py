"""WebSockets: how one is opened and read, and those that bring market data and the account of contracts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from aiohttp import WSMsgType, web

from feature_store import clock as wall
from infra.sandbox.spot.streams import ROOM, dialect
from infra.sandbox.streams import Connection, reply_to, write_frames

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox


async def opened(sandbox: Sandbox, request: web.Request) -> web.WebSocketResponse | web.Response:
    """Shake hands, unless handshakes are refused or the client has left."""
    await sandbox.disturbed.answering.wait()
    if request.transport is None:
        return web.Response(status=499)
    if sandbox.disturbed.refuses_handshake():
        wait = f"{sandbox.disturbed.handshake_retry_after:g}"
        return web.Response(status=sandbox.disturbed.handshake_status, headers={"Retry-After": wait})
    # Pings are answered here, so that a black hole can leave them unanswered.
    socket = web.WebSocketResponse(heartbeat=180.0, autoping=False, compress=False)
    await socket.prepare(request)
    return socket


async def follow(sandbox: Sandbox, connection: Connection, take: Callable[[str], None]) -> None:
    """Send what is queued for a connection, and take what it sends, until either side closes it."""
    writer = asyncio.create_task(write_frames(connection, sandbox.disturbed))
    try:
        async for message in connection.socket:
            if sandbox.disturbed.black_hole:
                continue
            if message.type == WSMsgType.PING:
                await connection.socket.pong(message.data)
            elif message.type == WSMsgType.TEXT:
                take(message.data)
    finally:
        sandbox.hub.remove(connection)
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer


async def serve(sandbox: Sandbox, request: web.Request) -> web.StreamResponse:
    """Serve one WebSocket of streams: of contracts, or of spot below a room of its own."""
    socket = await opened(sandbox, request)
    if not isinstance(socket, web.WebSocketResponse):
        return socket
    path = request.path.rstrip("/")
    room = path.removeprefix(ROOM)
    written = dialect(sandbox.venue) if path.startswith(ROOM) else None
    connection = Connection(socket, combined="/stream" in room, transport=request.transport, dialect=written)
    names = [one for one in (request.query.get("streams") or "").split("/") if one]
    tail = path.rsplit("/ws/", 1)[1] if "/ws/" in path else ""
    if tail and not tail.isdigit():
        names.extend(tail.split("/"))
    key = request.query.get("listenKey") or next((n for n in names if n == sandbox.listen_keys.key), None)
    connection.listen_key = key
    sandbox.hub.add(connection, [name for name in names if name != key])
    sandbox.feeds.watch()

    def take(text: str) -> None:
        if sandbox.hub.is_flooded(connection, wall.monotonic()):
            connection.cut_off(b"too many messages")
            return
        reply = reply_to(connection, sandbox.hub, text)
        _adopt_listen_key(sandbox, connection)
        sandbox.feeds.watch()
        connection.push(reply)

    await follow(sandbox, connection, take)
    return socket


def _adopt_listen_key(sandbox: Sandbox, connection: Connection) -> None:
    # Some clients subscribe the listen key as though it were a stream.
    key = sandbox.listen_keys.key
    if key is not None and key in connection.streams:
        connection.listen_key = key
        sandbox.hub.unsubscribe(connection, [key])
