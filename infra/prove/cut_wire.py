"""A wire on loopback that a proof can cut or let swallow everything, between a client and its server."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from types import TracebackType
from typing import Self

from infra.stack.ports import HOST, any_free

_STARTS_WITHIN_S = 30.0
_BYTES = 65_536


class CutWire:
    """
    Passes every byte on to a local port and back.

    While it swallows, nothing comes through and no connection ends; what was sent meanwhile arrives afterwards, however
    late, as on a network that was parted. While it is cut, connections end and none can be made.
    """

    def __init__(self, to_port: int) -> None:
        self.port = any_free()
        self._to_port = to_port
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None
        self._passes = asyncio.Event()
        self._open: set[asyncio.StreamWriter] = set()
        self._pumps: set[asyncio.Task[None]] = set()

    def __enter__(self) -> Self:
        """Listen."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(_STARTS_WITHIN_S):
            raise TimeoutError("The wire was not laid")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End every connection and stop listening."""
        self._do(self._cut())
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    def swallow(self, *, on: bool) -> None:
        """Let nothing through, or go on."""
        self._do(self._let_through(through=not on))

    def cut(self) -> None:
        """End every connection and take no new one."""
        self._do(self._cut())

    def mend(self) -> None:
        """Take connections again."""
        self._do(self._listen())

    def _do(self, work: object) -> None:
        assert asyncio.iscoroutine(work)
        asyncio.run_coroutine_threadsafe(work, self._loop).result(_STARTS_WITHIN_S)

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        self._passes.set()
        self._loop.run_until_complete(self._listen())
        self._loop.call_soon(ready.set)
        self._loop.run_forever()
        for pump in self._pumps:
            pump.cancel()
        self._loop.run_until_complete(asyncio.gather(*self._pumps, return_exceptions=True))

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._connected, HOST, self.port)

    async def _let_through(self, *, through: bool) -> None:
        if through:
            self._passes.set()
        else:
            self._passes.clear()

    async def _cut(self) -> None:
        self._passes.set()
        if self._server is not None:
            self._server.close()
            self._server = None
        for writer in list(self._open):
            writer.transport.abort()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._passes.wait()
        try:
            to_reader, to_writer = await asyncio.open_connection(HOST, self._to_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_writer}
        self._open |= both
        for one, other in ((reader, to_writer), (to_reader, writer)):
            pump = asyncio.create_task(self._pump(one, other, both))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, both: set[asyncio.StreamWriter]
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(_BYTES):
                await self._passes.wait()
                writer.write(data)
                await writer.drain()
            await self._passes.wait()
        self._open -= both
        for one in both:
            with contextlib.suppress(OSError):
                one.close()
