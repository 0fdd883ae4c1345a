"""WebSocket: channels of the market for everybody, and the account's own channel for who signs."""

from __future__ import annotations

import asyncio
import itertools
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import msgspec
from aiohttp import WSMsgType, web

from feature_store import clock as wall
from feature_store.json_text import UNREADABLE
from infra.sandbox.bitfinex.account_channel import Account
from infra.sandbox.bitfinex.channels import Channel, channel_for
from infra.sandbox.bitfinex.refusals import Refusal
from infra.sandbox.bitfinex.signing import Doorkeeper
from infra.sandbox.streams import Connection

if TYPE_CHECKING:
    from infra.sandbox.server import Sandbox

HEARTBEAT_SECONDS = 15.0
MAX_CHANNELS = 25
CHECKSUMS = 131_072
_UNKNOWN_CHANNEL, _DUPLICATE, _UNKNOWN_EVENT, _LIMIT = 10_300, 10_301, 10_000, 10_305
_NOT_SUBSCRIBED = 10_400
_encode = msgspec.json.encode
_numbers = itertools.count(1)


class Session:
    """One connection: what it follows, and whether it may hear of the account."""

    def __init__(self, sandbox: Sandbox, doorkeeper: Doorkeeper, account: Account, connection: Connection) -> None:
        self._sandbox = sandbox
        self._doorkeeper = doorkeeper
        self._account = account
        self.connection = connection
        self._channels: dict[int, Channel] = {}
        self._with_checksums = False

    def welcome(self) -> None:
        """Say hello."""
        self._tell({"event": "info", "version": 2, "serverId": "sandbox", "platform": {"status": 1}})

    def take(self, text: str) -> None:
        """Handle one frame a client sent."""
        try:
            said = msgspec.json.decode(text, type=dict[str, Any])
        except UNREADABLE:
            self._tell({"event": "error", "msg": "invalid", "code": _UNKNOWN_EVENT})
            return
        handlers = {
            "subscribe": self._subscribe,
            "unsubscribe": self._unsubscribe,
            "auth": self._authenticate,
            "conf": self._configure,
            "ping": self._pong,
        }
        event = said.get("event")
        handler = handlers.get(event) if isinstance(event, str) else None
        if handler is None:
            self._tell({"event": "error", "msg": "event: unknown", "code": _UNKNOWN_EVENT})
        else:
            handler(said)

    def beat(self) -> None:
        """Tell the channels that had nothing to say that they are alive; what is frozen does not even say that."""
        if self.connection.frozen_by:
            return
        quiet, hub = wall.monotonic() - HEARTBEAT_SECONDS, self._sandbox.hub
        for channel in () if hub.frozen_market else self._channels.values():
            # One that was opened while nothing was sent, and of which nothing has happened since.
            channel.begin(self._sandbox.now_ms())
            if channel.told_at <= quiet:
                channel.send("hb")
        if self.connection in self._account.listeners and not hub.frozen_user:
            self._account.beat(self.connection, quiet)

    def leave(self) -> None:
        """Follow nothing any more."""
        for channel in self._channels.values():
            self._sandbox.hub.remove(channel)
        self._channels.clear()
        self._account.listeners.pop(self.connection, None)

    def _subscribe(self, said: dict[str, Any]) -> None:
        if len(self._channels) >= MAX_CHANNELS:
            self._refuse(said, "reached limit of open channels", _LIMIT)
            return
        number = next(_numbers)
        try:
            channel = channel_for(self._sandbox.venue, said, number, self.connection)
        except Refusal as refusal:
            self._refuse(said, refusal.text, _UNKNOWN_CHANNEL)
            return
        if any(one.topic == channel.topic for one in self._channels.values()):
            self._refuse(said, "subscribe: dup", _DUPLICATE)
            return
        channel.with_checksum = self._with_checksums
        self._channels[number] = channel
        self._tell({"event": "subscribed", "channel": said["channel"], "chanId": number} | channel.described)
        self._sandbox.hub.add(channel, [channel.stream])
        self._sandbox.feeds.watch()
        if not self._sandbox.hub.frozen_market:
            channel.begin(self._sandbox.now_ms())

    def _refuse(self, said: dict[str, Any], text: str, code: int) -> None:
        kept = {name: said[name] for name in ("channel", "symbol", "key") if name in said}
        self._tell({"event": "error", "msg": text, "code": code} | kept)

    def _unsubscribe(self, said: dict[str, Any]) -> None:
        told = said.get("chanId")
        # Looked for as it is written: not every row of digits is a number that Python reads.
        number = next((one for one in self._channels if told == str(one) or (type(told) is int and told == one)), None)
        channel = None if number is None else self._channels.pop(number)
        if channel is None:
            self._tell({"event": "error", "msg": "not subscribed", "code": _NOT_SUBSCRIBED})
            return
        self._sandbox.hub.remove(channel)
        self._tell({"event": "unsubscribed", "status": "OK", "chanId": channel.number})

    def _authenticate(self, said: dict[str, Any]) -> None:
        try:
            self._doorkeeper.admit_socket(said)
        except Refusal as refusal:
            told = {"event": "auth", "status": "FAILED", "chanId": 0, "code": refusal.code, "msg": refusal.text}
            self._tell(told)
            return
        self._tell(
            {"event": "auth", "status": "OK", "chanId": 0, "userId": 1, "caps": {"orders": {"read": 1, "write": 1}}}
        )
        self._account.join(self.connection)

    def _configure(self, said: dict[str, Any]) -> None:
        flags = said.get("flags")
        self._with_checksums = isinstance(flags, int) and bool(flags & CHECKSUMS)
        for channel in self._channels.values():
            channel.with_checksum = self._with_checksums
        self._tell({"event": "conf", "status": "OK", "flags": flags})

    def _pong(self, said: dict[str, Any]) -> None:
        self._tell({"event": "pong", "ts": self._sandbox.now_ms(), "cid": said.get("cid")})

    def _tell(self, message: dict[str, Any]) -> None:
        self.connection.push(_encode(message).decode())


async def serve(sandbox: Sandbox, doorkeeper: Doorkeeper, account: Account, request: web.Request, write: Any) -> Any:
    """Serve one WebSocket until either side closes it."""
    await sandbox.disturbed.answering.wait()
    if request.transport is None:
        return web.Response(status=499)
    if sandbox.disturbed.refuses_handshake():
        wait = f"{sandbox.disturbed.handshake_retry_after:g}"
        return web.Response(status=sandbox.disturbed.handshake_status, headers={"Retry-After": wait})
    # Pings are answered here, so that a black hole can leave them unanswered.
    socket = web.WebSocketResponse(heartbeat=180.0, autoping=False, compress=False)
    await socket.prepare(request)
    connection = Connection(socket, combined=False, transport=request.transport)
    sandbox.hub.add(connection)
    session = Session(sandbox, doorkeeper, account, connection)
    tasks = [asyncio.create_task(write(connection, sandbox.disturbed)), asyncio.create_task(_beat(session))]
    try:
        session.welcome()
        async for message in socket:
            if sandbox.disturbed.black_hole:
                continue
            if message.type == WSMsgType.PING:
                await socket.pong(message.data)
            elif message.type == WSMsgType.TEXT:
                session.take(message.data)
    finally:
        session.leave()
        sandbox.hub.remove(connection)
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
    return socket


async def _beat(session: Session) -> None:
    while True:
        await asyncio.sleep(HEARTBEAT_SECONDS / 3)
        session.beat()
