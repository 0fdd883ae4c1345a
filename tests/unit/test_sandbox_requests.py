"""How the venue reads a request and writes an answer, held against the libraries that do the same at more length."""

from __future__ import annotations

import asyncio
import re
from urllib.parse import parse_qsl, unquote_plus

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from hypothesis import given
from hypothesis import strategies as st

from infra.sandbox.answers import WholeAnswer, answer
from infra.sandbox.engine.errors import VenueError
from infra.sandbox.late_frames import LateFrames
from infra.sandbox.protocol.params import form_values
from infra.sandbox.protocol.signing import Credentials, check_signature

FORMS = st.text(alphabet="ab=&%+20é ", max_size=40)
PAIRS = st.lists(st.sampled_from(["a=1", "signature=x", "signature=", "b", "", "xsignature=y", "signature=%41"]))
TOLD = {"X-MBX-USED-WEIGHT-1M": "7"}


@given(FORMS)
def test_a_form_reads_as_the_library_reads_it(raw):
    """Blank, odd and encoded parameters are what the standard library makes of them."""
    assert form_values(raw) == dict(parse_qsl(raw, keep_blank_values=True))


def signed_part(raw: str) -> tuple[str, list[str]]:
    """Return what is signed of a query or body and the signatures in it, pair by pair."""
    pairs = raw.split("&")
    kept = "&".join(one for one in pairs if not one.startswith("signature="))
    return kept, [unquote_plus(one.removeprefix("signature=")) for one in pairs if one.startswith("signature=")]


@given(PAIRS, PAIRS)
def test_a_signature_may_stand_anywhere(query, body):
    """What is signed is all but the signatures; of several the last counts, wherever it stands."""
    credentials = Credentials("key", "secret")
    (asked, in_query), (sent, in_body) = signed_part("&".join(query)), signed_part("&".join(body))
    right = credentials.sign(asked + sent)
    texts = ["&".join(query), "&".join(body)]
    told = [*in_query, *in_body]
    with pytest.raises(VenueError) as refusal:
        check_signature(credentials, *texts)
    assert refusal.value.code == (-1022 if told and told[-1] else -1102)

    texts[1] = f"{texts[1]}&signature={right}" if texts[1] else f"signature={right}"
    check_signature(credentials, *texts)


async def _talk(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request)
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].partition(b"\r\n")[0])
    body = b"" if request.startswith(b"HEAD") else await reader.readexactly(length)
    writer.close()
    return re.sub(rb"Date: [^\r]+", b"Date", head + body)


@pytest.mark.parametrize("status", [200, 400, 401, 404, 503])
@pytest.mark.parametrize(
    "asked",
    [b"GET /%s HTTP/1.1\r\nHost: v\r\n\r\n", b"GET /%s HTTP/1.1\r\nHost: v\r\nConnection: close\r\n\r\n",
     b"GET /%s HTTP/1.0\r\n\r\n", b"HEAD /%s HTTP/1.1\r\nHost: v\r\n\r\n"],
)  # fmt: skip
async def test_an_answer_is_written_as_the_library_writes_it(asked, status):
    """Byte for byte, to clients that stay, clients that leave, and old ones."""
    data, made = {"code": -1, "msg": "é"}, []

    async def ours(request: web.Request) -> web.StreamResponse:
        made.append(answer(request, data, status=status, headers=TOLD))
        return made[-1]

    async def theirs(request: web.Request) -> web.StreamResponse:
        del request
        body = '{"code":-1,"msg":"é"}'.encode()
        return web.Response(body=body, status=status, headers=TOLD, content_type="application/json")

    app = web.Application()
    app.router.add_get("/ours", ours)
    app.router.add_get("/theirs", theirs)
    async with TestServer(app) as server:
        assert server.port is not None
        one, other = [await _talk(server.port, asked % path) for path in (b"ours", b"theirs")]
    assert one == other
    assert isinstance(made[0], WholeAnswer) == (asked.startswith(b"GET") and asked.count(b"\r\n") == 3)


async def test_an_answer_to_a_client_that_left_is_told_to_the_server():
    """Nobody is written to who is gone."""

    class Gone:
        transport = None

    with pytest.raises(ConnectionResetError, match="left"):
        await WholeAnswer(b"{}", status=200, headers={}).prepare(Gone())


class EarlyLoop:
    """A loop that counts in whole milliseconds, and calls so much too early."""

    def __init__(self) -> None:
        self.now = 0.0
        self.timers = []

    def time(self) -> float:
        """The time it believes it is."""
        return self.now

    def call_at(self, when, call) -> object:
        """Remember a timer."""
        self.timers.append((when, call))
        return call

    def fire(self, at: float) -> None:
        """Let the first timer go off at a time."""
        self.now = at
        self.timers.pop(0)[1]()


class Reader:
    """Keeps what it is sent."""

    def __init__(self) -> None:
        self.frames: list[str] = []

    def push(self, frame: str) -> None:
        """Take a frame."""
        self.frames.append(frame)


def test_late_frames_outlast_a_loop_that_calls_too_early(monkeypatch):
    """A frame that is not due yet when its timer goes off is waited for again, by one timer."""
    loop, reader, late = EarlyLoop(), Reader(), LateFrames()
    monkeypatch.setattr(asyncio, "get_running_loop", lambda: loop)
    late.seconds = 0.0104
    late.push(reader, "first")
    late.push(reader, "second")
    assert len(loop.timers) == 1

    loop.fire(0.010)
    assert reader.frames == []
    assert len(loop.timers) == 1

    loop.fire(0.011)
    assert reader.frames == ["first", "second"]
    assert loop.timers == []
