"""Asking a venue again, later each time, where nothing can have happened."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import RateLimitedError, RetryableError, translate

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 20.0

_T = TypeVar("_T")


async def retrying(
    call: Callable[[], Awaitable[_T]],
    *,
    exchange: Any = None,
    attempts: int = ATTEMPTS,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> _T:
    """
    Return what a reading call answers; never for calls that create or change something.

    Raises:
        QuantumError: What `translate` makes of the last failure.
    """
    for attempt in range(attempts):
        try:
            return await call()
        except (ccxt.BaseError, aiohttp.ClientError, OSError, TimeoutError) as error:
            ours = translate(error, exchange=exchange)
            if not isinstance(ours, RetryableError) or attempt == attempts - 1:
                raise ours from error
        except RetryableError as error:
            ours = error
            if attempt == attempts - 1:
                raise
        await sleep(_wait_seconds(ours, attempt))
    raise AssertionError("attempts must be positive")  # pragma: no cover


def _wait_seconds(error: RetryableError, attempt: int) -> float:
    jitter = random.uniform(0.5, 1.5)
    if isinstance(error, RateLimitedError):
        return error.retry_after_seconds + jitter * FIRST_WAIT_SECONDS
    return float(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt) * jitter)
