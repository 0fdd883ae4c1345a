"""WebSocket subscriptions and what is pushed to them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import WSCloseCode, web

from feature_store.json_text import UNREADABLE
from infra.sandbox.disturbed import Disturbed
from infra.sandbox.late_frames import LateFrames

MAX_QUEUE = 20_000
MAX_STREAMS = 1_024
# What the live venue hears from one socket in a second, where limits are on.
MAX_MESSAGES = 10
_encode = msgspec.json.encode


@dataclass(eq=False, slots=True)
class Connection:
    """One socket: its subscriptions and the frames that wait to be sent."""

    socket: web.WebSocketResponse
    combined: bool
    transport: asyncio.Transport | None = None
    listen_key: str | None = None
    streams: set[str] = field(default_factory=set)
    queue: asyncio.Queue[str | None] = field(default_factory=lambda: asyncio.Queue(MAX_QUEUE))
    # The frame that waits to be overtaken by the next one.
    held: str | None = None
    # The symbols for whose sake it gets nothing any more, though other sockets do.
    frozen_by: set[str] = field(default_factory=set)
    # Writes an event of a stream in another form, or says None where it has no such stream.
    dialect: Callable[[str, Any], Any] | None = None
    # When the last messages of its client came, and why it is cut off.
    heard: deque[float] = field(default_factory=deque)
    reason: bytes = b"client too slow"

    @property
    def carrier(self) -> Connection:
        """The socket's own connection: this one, unless it is one of several channels of a socket."""
        return self

    def push(self, frame: str) -> None:
        """Queue a frame; a client that reads too slowly is cut off."""
        try:
            self.queue.put_nowait(frame)
        except asyncio.QueueFull:
            self.cut_off(self.reason)

    def cut_off(self, reason: bytes) -> None:
        """Send nothing more but a farewell."""
        self.reason = reason
        while not self.queue.empty():
            self.queue.get_nowait()
        self.queue.put_nowait(None)


class Hub:
    """Who listens to what."""

    def __init__(self) -> None:
        self.connections: set[Connection] = set()
        self.by_stream: dict[str, set[Connection]] = {}
        # Streams whose subscribers have seen nothing yet.
        self.fresh: set[str] = set()
        self.frozen_market = False
        self.frozen_user = False
        # How many streams a socket may carry.
        self.most_streams = MAX_STREAMS
        # How many messages a second it may send; without a number as many as it likes.
        self.most_messages: int | None = None
        self.late = LateFrames()
        # Events come twice; each second one overtakes the one before.
        self.doubles = False
        self.reverses = False

    def sockets(self) -> set[Connection]:
        """Return the sockets that are open, each once, however many channels it carries."""
        return {one.carrier for one in self.connections}

    def add(self, connection: Connection, streams: Iterable[str] = ()) -> None:
        """Take in a connection."""
        self.connections.add(connection)
        self.subscribe(connection, streams)

    def remove(self, connection: Connection) -> None:
        """Forget a connection."""
        self.unsubscribe(connection, list(connection.streams))
        self.connections.discard(connection)

    def subscribe(self, connection: Connection, streams: Iterable[str]) -> None:
        """Add streams to a connection."""
        for stream in streams:
            connection.streams.add(stream)
            self.by_stream.setdefault(stream, set()).add(connection)
            self.fresh.add(stream)

    def unsubscribe(self, connection: Connection, streams: Iterable[str]) -> None:
        """Take streams from a connection."""
        for stream in streams:
            connection.streams.discard(stream)
            listeners = self.by_stream.get(stream)
            if listeners is not None:
                listeners.discard(connection)
                if not listeners:
                    del self.by_stream[stream]

    def is_flooded(self, connection: Connection, now: float) -> bool:
        """Note a message of a client at a time in seconds, and say whether that makes it too many."""
        if self.most_messages is None:
            return False
        heard = connection.heard
        while heard and now - heard[0] >= 1.0:
            heard.popleft()
        heard.append(now)
        return len(heard) > self.most_messages

    def freeze(self, symbol: str) -> int:
        """Send nothing any more over the sockets that carry a stream of a symbol; return how many those are."""
        name = symbol.lower() + "@"
        found = {one.carrier for one in self.connections if any(stream.startswith(name) for stream in one.streams)}
        for one in found:
            one.frozen_by.add(symbol)
        return len(found)

    def thaw(self, symbol: str | None = None) -> int:
        """End what `freeze` began for a symbol, or for all; return how many sockets get something again."""
        found = [one for one in self.connections if one.frozen_by]
        for one in found:
            one.frozen_by = set() if symbol is None else one.frozen_by - {symbol}
        thawed = {one for one in found if not one.frozen_by}
        for one in self.connections:
            if one.carrier in thawed:
                # What was subscribed meanwhile has seen nothing yet.
                self.fresh.update(one.streams)
        return len(thawed)

    def publish(self, stream: str, data: Any) -> None:
        """Send market data to all who subscribed the stream."""
        listeners = self.by_stream.get(stream)
        if not listeners or self.frozen_market:
            return
        raw = _encode(data).decode()
        wrapped: str | None = None
        others: dict[bool, str] = {}
        for connection in list(listeners):
            if connection.dialect is not None:
                if connection.combined not in others:
                    others[connection.combined] = _rewritten(connection, stream, data)
                if others[connection.combined]:
                    self.send(connection, others[connection.combined])
            elif connection.combined:
                wrapped = wrapped or f'{{"stream":"{stream}","data":{raw}}}'
                self.send(connection, wrapped)
            else:
                self.send(connection, raw)

    def hears_account(self, listen_key: str) -> bool:
        """Whether a socket of a listen key is open."""
        return any(one.listen_key == listen_key for one in self.connections)

    def publish_user(self, listen_key: str, data: Any) -> None:
        """Send an account event to every socket of a listen key."""
        if self.frozen_user:
            return
        raw = _encode(data).decode()
        for connection in self.connections:
            if connection.listen_key == listen_key:
                wrapped = f'{{"stream":"{listen_key}","data":{raw}}}'
                self.send(connection, wrapped if connection.combined else raw)

    def let_go(self) -> None:
        """Send what was held back to be overtaken."""
        self.doubles = self.reverses = False
        for connection in self.connections:
            held, connection.held = connection.held, None
            if held is not None:
                self.late.push(connection, held)

    def send(self, connection: Connection, frame: str) -> None:
        """Send one connection a frame, as late, as often and in the order that is wished; none if it is frozen."""
        if connection.carrier.frozen_by:
            return
        overtaken, connection.held = connection.held, None
        if self.reverses and overtaken is None:
            connection.held = frame
            return
        for one in (frame,) if overtaken is None else (frame, overtaken):
            self.late.push(connection, one)
            if self.doubles:
                self.late.push(connection, one)


def _rewritten(connection: Connection, stream: str, data: Any) -> str:
    told = None if connection.dialect is None else connection.dialect(stream, data)
    if told is None:
        return ""
    raw = _encode(told).decode()
    return f'{{"stream":"{stream}","data":{raw}}}' if connection.combined else raw


async def write_frames(connection: Connection, disturbed: Disturbed) -> None:
    """Send what is queued for a connection until it is cut off, or the task is cancelled."""
    while True:
        frame = await connection.queue.get()
        if disturbed.black_hole:
            continue
        if frame is None:
            await connection.socket.close(code=WSCloseCode.POLICY_VIOLATION, message=connection.reason)
            return
        with suppress(ConnectionError):
            await connection.socket.send_str(frame)


def reply_to(connection: Connection, hub: Hub, text: str) -> str:
    """Handle one frame a client sent and return the reply."""
    try:
        request = msgspec.json.decode(text, type=dict[str, Any])
    except UNREADABLE:
        return '{"error":{"code":3,"msg":"Invalid JSON: expected an object"}}'
    reply = _reply(connection, hub, request.get("method"), request.get("params") or [])
    return _encode({**reply, "id": request.get("id")}).decode()


def _reply(connection: Connection, hub: Hub, method: object, params: object) -> dict[str, Any]:
    if method in {"SUBSCRIBE", "UNSUBSCRIBE"}:
        if not isinstance(params, list) or not all(isinstance(one, str) for one in params):
            return _refusal("params must be an array of strings")
        if method == "UNSUBSCRIBE":
            hub.unsubscribe(connection, params)
        elif len(connection.streams | set(params)) > hub.most_streams:
            return _refusal(f"too many streams, at most {hub.most_streams}")
        else:
            hub.subscribe(connection, params)
        return {"result": None}
    results: dict[object, Any] = {
        "LIST_SUBSCRIPTIONS": sorted(connection.streams),
        "GET_PROPERTY": connection.combined,
        "SET_PROPERTY": None,
    }
    return {"result": results[method]} if method in results else _refusal(f"unknown method {method}")


def _refusal(reason: str) -> dict[str, Any]:
    return {"error": {"code": 2, "msg": f"Invalid request: {reason}"}}
