"""Asking a venue again, later each time, where nothing can have happened."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp

from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import RateLimitedError, RetryableError, VenueDownError, translate

ATTEMPTS = 5
FIRST_WAIT_SECONDS = 0.25
LONGEST_WAIT_SECONDS = 20.0
# A ban may last three days: who asked learns of it now, and not when it is over.
LONGEST_PATIENCE_SECONDS = 300.0

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

    Each wait is longer than the one before and partly chance, lest many ask again at once.

    Raises:
        QuantumError: What `translate` makes of the last failure.
    """
    for attempt in range(attempts):
        try:
            return await call()
        except (ccxt.BaseError, aiohttp.ClientError, OSError, TimeoutError) as error:
            ours = translate(error, exchange=exchange)
            if not isinstance(ours, RetryableError) or attempt == attempts - 1 or _is_too_long(ours):
                raise ours from error
        except RetryableError as error:
            ours = error
            if attempt == attempts - 1 or _is_too_long(ours):
                raise
        await sleep(_wait_seconds(ours, attempt))
    raise AssertionError("attempts must be positive")  # pragma: no cover


def _asked_to_wait(error: RetryableError) -> float:
    return (error.retry_after_seconds or 0.0) if isinstance(error, RateLimitedError | VenueDownError) else 0.0


def _is_too_long(error: RetryableError) -> bool:
    return _asked_to_wait(error) > LONGEST_PATIENCE_SECONDS


def _wait_seconds(error: RetryableError, attempt: int) -> float:
    jitter = random.uniform(0.5, 1.5)
    if asked := _asked_to_wait(error):
        return asked + jitter * FIRST_WAIT_SECONDS
    return float(min(LONGEST_WAIT_SECONDS, FIRST_WAIT_SECONDS * 2**attempt) * jitter)
