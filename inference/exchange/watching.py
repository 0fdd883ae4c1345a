"""One wait on a ccxt stream, with every way in which it can end made visible."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import ccxt


@dataclass(frozen=True, slots=True)
class Interrupted:
    """The stream brought nothing and must be opened anew."""

    reason: str


async def next_of(watch: Coroutine[Any, Any, Any], *, within: float) -> object | Interrupted:
    """
    Return what a `watch_…` call brings, or why it brought nothing.

    ccxt cancels our future when a client is closed; that must not look as if we were cancelled ourselves.
    """
    task = asyncio.ensure_future(watch)
    try:
        done, _ = await asyncio.wait({task}, timeout=within)
    except asyncio.CancelledError:
        task.cancel()
        raise
    if not done:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return Interrupted(f"nothing for {within:.1f} s")
    if task.cancelled():
        return Interrupted("closed")
    error = task.exception()
    if error is None:
        result: object = task.result()
        return result
    if isinstance(error, ccxt.BaseError | OSError):
        return Interrupted(f"{type(error).__name__}: {error}"[:200])
    raise error


async def close_clients(exchange: Any, *, which: Callable[[str], bool]) -> None:
    """Close the WebSocket clients whose URL is meant, so that the next `watch_…` opens new ones."""
    for url, client in list(exchange.clients.items()):
        if which(url):
            exchange.clients.pop(url, None)
            with contextlib.suppress(ccxt.BaseError, OSError):
                await client.close()


def is_private(url: str) -> bool:
    """Tell whether a client's URL is the account's stream."""
    return "listenKey" in url
