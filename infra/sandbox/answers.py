"""Answers in JSON, written to the wire in one piece where a client takes them so."""

from __future__ import annotations

from email.utils import formatdate
from functools import lru_cache
from http.client import responses
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.abc import AbstractStreamWriter
from aiohttp.http import SERVER_SOFTWARE, HttpVersion11

from feature_store import clock as wall

_encode = msgspec.json.Encoder().encode
_MUCH = 64 * 1024


class WholeAnswer(web.StreamResponse):
    """
    An answer that is complete when it is made, to a client that speaks HTTP/1.1 and stays connected.

    The library can do much more: chunks, compression, cookies, older clients. The few lines that an answer of the venue
    needs are the same ones, and take a fraction of the time.
    """

    def __init__(self, body: bytes, *, status: int, headers: dict[str, str]) -> None:
        super().__init__(status=status)
        self.body = body
        self._told = headers

    @property
    def keep_alive(self) -> bool:
        """The client stays."""
        return True

    async def prepare(self, request: web.BaseRequest) -> AbstractStreamWriter | None:
        """
        Write all of it.

        Raises:
            ConnectionResetError: The client is gone.
        """
        transport = request.transport
        if transport is None or transport.is_closing():
            raise ConnectionResetError("The client has left")
        told = "".join([f"{name}: {value}\r\n" for name, value in self._told.items()])
        head = (
            f"HTTP/1.1 {self.status} {responses.get(self.status, '')}\r\n{told}Content-Type: application/json\r\n"
            f"Content-Length: {len(self.body)}\r\nDate: {_date(wall.utc_now_ms() // 1000)}\r\n"
            f"Server: {SERVER_SOFTWARE}\r\n\r\n"
        )
        transport.write(head.encode() + self.body)
        if transport.get_write_buffer_size() > _MUCH:
            await request.writer.drain()
        return None

    async def write_eof(self, data: bytes = b"") -> None:
        """All of it is written."""
        del data


def answer(request: web.BaseRequest, data: Any, *, status: int, headers: dict[str, str]) -> web.Response | WholeAnswer:
    """Answer in JSON; headers are words of our own."""
    body = _encode(data)
    if request.version == HttpVersion11 and request.keep_alive and request.method != "HEAD":
        return WholeAnswer(body, status=status, headers=headers)
    return web.Response(body=body, status=status, content_type="application/json", headers=headers)


@lru_cache(maxsize=1)
def _date(second: int) -> str:
    return formatdate(second, usegmt=True)
