"""Waiting on a ccxt stream, with every way in which that can end made visible."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from feature_store.venue.ccxt_package import ccxt


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The stream failed and must be opened anew."""

    reason: str


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing came in the time that was given; the wait goes on with the next call."""


class Watcher:
    """
    One `watch_…` call at a time, kept from wait to wait.

    Giving up on a call would cancel futures inside ccxt that its other callers wait for, the one of a connection being
    dialled among them; so a call is dropped only when its connection is closed anyway.
    """

    def __init__(self, watch: Callable[[], Coroutine[Any, Any, Any]]) -> None:
        self._watch = watch
        self._task: asyncio.Task[Any] | None = None

    async def next(self, *, within: float) -> object | Interrupted | Nothing:
        """Return what the call brings, or why it failed, or that nothing came yet."""
        if self._task is None:
            self._task = asyncio.ensure_future(self._watch())
        task = self._task
        done, _ = await asyncio.wait({task}, timeout=within)
        if not done:
            return Nothing()
        self._task = None
        # ccxt cancels our future when a client is closed; that must not look as if we were cancelled ourselves.
        if task.cancelled():
            return Interrupted("closed")
        error = task.exception()
        if error is None:
            result: object = task.result()
            return result
        if isinstance(error, ccxt.BaseError | OSError):
            return Interrupted(f"{type(error).__name__}: {error}"[:200])
        raise error

    async def drop(self) -> None:
        """Give up on the call that is waited for, if there is one."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


# A venue that has fallen silent does not answer a farewell either.
_FAREWELL_SECONDS = 0.5


async def close_clients(exchange: Any, *, which: Callable[[str], bool]) -> None:
    """Close the WebSocket clients whose URL is meant, so that the next `watch_…` opens new ones."""
    for url, client in list(exchange.clients.items()):
        if which(url):
            exchange.clients.pop(url, None)
            with contextlib.suppress(ccxt.BaseError, OSError, TimeoutError):
                async with asyncio.timeout(_FAREWELL_SECONDS):
                    await client.close()


# At Bitfinex and on Binance's spot the address tells the account's stream from the market's, live and at the sandbox.
_PRIVATE = ("//api.bitfinex.com/ws/", "/bitfinex/private/ws/", "/ws-api/v3")


def is_private(url: str) -> bool:
    """Tell whether a client is the account's stream, or stands for its authentication under way."""
    return "listenKey" in url or url.startswith("authentication") or any(one in url for one in _PRIVATE)


def pause_seconds(failures: int, chance: float, *, shortest: float = 0.2, longest: float = 30.0) -> float:
    """Return how long to wait before a stream is opened again: longer each time, and not when everybody does."""
    return min(longest, shortest * 2.0 ** min(failures, 10)) * (0.5 + chance / 2)
