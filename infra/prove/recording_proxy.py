"""A proxy on loopback that notes which candles were asked for, and may end a process at any of them."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from time import sleep
from types import TracebackType
from typing import Any, Self

from aiohttp import ClientError, ClientSession, web

from feature_store.clock import monotonic

_CANDLES = "/fapi/v1/klines"
_TIME = "/fapi/v1/time"
_STARTS_WITHIN_S = 30.0
_QUIET_S, _SETTLES_WITHIN_S = 0.3, 30.0
_SESSION = web.AppKey("session", ClientSession)


@dataclass(frozen=True, slots=True)
class AskedPage:
    """One request for candles: in which run of the client, and what the venue answered."""

    run: int
    symbol: str
    start_ms: int
    first_ms: int | None
    last_ms: int | None
    rows: int


@dataclass(slots=True)
class RecordingProxy:
    """
    Passes every request on to a venue. `on_page` is called in the proxy's thread for each page of candles.

    It is called twice: as "asked" before the venue has the request, and as "answered" once the client has the page.
    """

    venue: str
    run: int = 0
    pages: list[AskedPage] = field(default_factory=list)
    began_ms: dict[int, int] = field(default_factory=dict)
    """The venue's time that each run was told first."""
    on_page: Callable[[str], None] = lambda _: None
    url: str = ""
    under_way: int = 0
    """Requests that came and are not answered yet."""
    _loop: asyncio.AbstractEventLoop = field(default_factory=asyncio.new_event_loop)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        """Listen on a free port."""
        ready = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(ready,), daemon=True)
        self._thread.start()
        if not ready.wait(_STARTS_WITHIN_S):
            raise TimeoutError("The proxy did not start")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Stop listening."""
        self._loop.call_soon_threadsafe(self._loop.stop)
        assert self._thread is not None
        self._thread.join()
        self._loop.close()

    def settle(self) -> None:
        """
        Wait until nothing has been under way for a moment.

        What a process asked for before it was killed may still lie in its connection: it belongs to that run, not to
        the next one.
        """
        deadline = monotonic() + _SETTLES_WITHIN_S
        quiet_since = monotonic()
        while monotonic() - quiet_since < _QUIET_S:
            if monotonic() > deadline:
                raise TimeoutError("Requests of a process that is gone do not come to an end")
            sleep(0.01)
            if self.under_way:
                quiet_since = monotonic()

    def _serve(self, ready: threading.Event) -> None:
        asyncio.set_event_loop(self._loop)
        runner = self._loop.run_until_complete(self._listen())
        ready.set()
        self._loop.run_forever()
        self._loop.run_until_complete(runner.cleanup())

    async def _listen(self) -> web.AppRunner:
        application = web.Application()
        application.router.add_route("*", "/{path:.*}", self._pass_on)
        application.cleanup_ctx.append(self._connected)
        runner = web.AppRunner(application, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        return runner

    async def _connected(self, application: web.Application) -> Any:
        async with ClientSession(auto_decompress=True) as session:
            application[_SESSION] = session
            yield

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        self.under_way += 1
        try:
            return await self._passed_on(request)
        finally:
            self.under_way -= 1

    async def _passed_on(self, request: web.Request) -> web.StreamResponse:
        is_page, run = request.path == _CANDLES, self.run
        if is_page:
            self.on_page("asked")
        try:
            async with request.app[_SESSION].request(
                request.method, f"{self.venue}{request.rel_url}", data=await request.read()
            ) as answer:
                body = await answer.read()
                status, kind = answer.status, answer.content_type
        except ClientError:
            return web.Response(status=502)
        if is_page and status == web.HTTPOk.status_code:
            self._note(run, request.query, json.loads(body))
        if request.path == _TIME and status == web.HTTPOk.status_code:
            self.began_ms.setdefault(run, int(json.loads(body)["serverTime"]))
        response = web.Response(body=body, status=status, content_type=kind)
        if is_page:
            try:
                await response.prepare(request)
                await response.write_eof()
            except ConnectionError:
                return response
            self.on_page("answered")
        return response

    def _note(self, run: int, query: Any, rows: list[list[Any]]) -> None:
        first, last = (int(rows[0][0]), int(rows[-1][0])) if rows else (None, None)
        self.pages.append(AskedPage(run, query["symbol"], int(query["startTime"]), first, last, len(rows)))
