"""A web server on loopback that answers as it is told, for sources of other things than candles."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from aiohttp import web

from feature_store.context.mentions import Mentions
from feature_store.context.texts import Texts

NOW_MS = 1_700_000_000_000
HOUR_MS = 3_600_000
TEXTS = Texts(Mentions())
Answer = Callable[[web.Request], web.StreamResponse]


class WebDouble:
    """Answers each path by a function of the request; keeps every request it saw."""

    def __init__(self) -> None:
        self.answers: dict[str, Answer] = {}
        self.requests: list[web.Request] = []
        self.url = ""

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self.requests.append(request)
        answer = self.answers.get(request.path)
        return web.Response(status=404) if answer is None else answer(request)


@asynccontextmanager
async def web_double() -> AsyncIterator[WebDouble]:
    """Run the double on a free port while the context lasts."""
    double = WebDouble()
    application = web.Application()
    application.router.add_route("*", "/{path:.*}", double._answer)
    runner = web.AppRunner(application, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    double.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        yield double
    finally:
        await runner.cleanup()


def says(body: str | bytes, status: int = 200, **headers: str) -> Answer:
    """Return an answer that is always the same."""
    content = body.encode() if isinstance(body, str) else body
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda _: web.Response(body=content, status=status, headers=named)


async def no_pause(_seconds: float) -> None:
    """Wait for nothing."""


def rss(*entries: tuple[str, str, str], form: str = "rss") -> str:
    """Return a feed of (id, title, date) entries."""
    if form == "atom":
        items = "".join(
            f"<entry><id>{key}</id><title>{title}</title><published>{date}</published></entry>"
            for key, title, date in entries
        )
        return f'<?xml version="1.0"?><feed xmlns="http://www.w3.org/2005/Atom"><title>t</title>{items}</feed>'
    items = "".join(
        f"<item><guid>{key}</guid><title>{title}</title><pubDate>{date}</pubDate></item>"
        for key, title, date in entries
    )
    return f'<?xml version="1.0"?><rss version="2.0"><channel><title>t</title>{items}</channel></rss>'
