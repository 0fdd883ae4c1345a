"""The same few bytes in Redis, for processes of several homes or machines behind one address."""

from __future__ import annotations

import asyncio
import importlib
import random
from typing import Any, TypeVar

from feature_store import clock
from feature_store.errors import BadInputError
from feature_store.venue.shared_file import Change, SharedBusyError

_T = TypeVar("_T")

# Write only over what was read; a process that dies between the two has changed nothing and holds nothing.
_SWAP = """
local found = redis.call('GET', KEYS[1])
if (found or '') ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1
"""
_FORGOTTEN_MS = 86_400_000 * 4
_ANSWERS_WITHIN_S = 1.0
_QUIET_S = 1.0


class SharedRedis:
    """
    A value in Redis that is changed by compare-and-swap; its clock is the server's, the same for all.

    While Redis does not answer, `update` fails at once for a moment, so that no request waits for it again and again.
    """

    def __init__(self, url: str, key: str) -> None:
        try:
            library = importlib.import_module("redis.asyncio")
            errors = importlib.import_module("redis.exceptions")
        except ModuleNotFoundError:
            raise BadInputError(
                "QT_BUDGETS names Redis, and its client is not installed: pip install 'quantum-trader[redis]'"
            ) from None
        try:
            self._client: Any = library.Redis.from_url(
                url, socket_timeout=_ANSWERS_WITHIN_S, socket_connect_timeout=_ANSWERS_WITHIN_S
            )
        except ValueError as error:
            raise BadInputError(f"QT_BUDGETS must be a folder or redis://host:port/0: {error}") from None
        self._swap = self._client.register_script(_SWAP)
        self._error: type[Exception] = errors.RedisError
        self._key = key
        self._silent_until = 0.0
        self._last: tuple[bytes | None, float, float] = (None, 0.0, 0.0)

    def __str__(self) -> str:
        return f"Redis, key {self._key}"

    async def update(self, change: Change[_T], *, patience_s: float = float("inf")) -> _T:
        """
        Change what is shared, as though alone.

        Raises:
            SharedBusyError: Redis does not answer, or others were quicker for longer than the patience.
        """
        began = clock.monotonic()
        if began < self._silent_until:
            raise SharedBusyError("Redis did not answer a moment ago")
        while True:
            try:
                text, now = await self._look()
                new, result = change(text, now, int(now * 1000))
                if await self._swap(keys=[self._key], args=[text or b"", new, _FORGOTTEN_MS]):
                    self._last = (new, now, clock.monotonic())
                    return result
            except (self._error, OSError) as error:
                self._silent_until = clock.monotonic() + _QUIET_S
                raise SharedBusyError(f"Redis does not answer: {error}"[:200]) from error
            if clock.monotonic() - began > patience_s:
                raise SharedBusyError(f"Others changed {self._key} for {patience_s:g} s")
            await asyncio.sleep(random.uniform(0.0, 0.002))

    async def jot(self, change: Change[_T]) -> bool:
        """Change what is shared; nobody can hold it, so it is done."""
        await self.update(change)
        return True

    def peek(self) -> tuple[bytes | None, float, int]:
        """Return what was last seen, with the server's clock as it must be by now."""
        text, server, here = self._last
        now = server + clock.monotonic() - here if server else clock.utc_now_ms() / 1000
        return text, now, int(now * 1000)

    async def close(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def _look(self) -> tuple[bytes | None, float]:
        async with self._client.pipeline(transaction=False) as both:
            both.get(self._key)
            both.time()
            text, (seconds, micros) = await both.execute()
        return text, seconds + micros / 1e6
