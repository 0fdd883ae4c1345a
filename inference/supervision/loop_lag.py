"""How late the event loop comes to what is due: whatever holds it up holds up stops and exits as well."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable

_BEAT_SECONDS = 0.25
_KEPT_SECONDS = 10.0


class LoopLag:
    """Sleeps for a beat, over and over, and keeps by how much each sleep was too long."""

    def __init__(
        self, monotonic: Callable[[], float], *, sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    ) -> None:
        self._monotonic = monotonic
        self._sleep = sleep
        self._asleep_since: float | None = None
        self._lags: deque[tuple[float, float]] = deque()

    async def run(self) -> None:
        """Beat until cancelled."""
        while True:
            self._asleep_since = self._monotonic()
            await self._sleep(_BEAT_SECONDS)
            now = self._monotonic()
            self._keep(now, now - self._asleep_since - _BEAT_SECONDS)

    @property
    def seconds(self) -> float | None:
        """The worst of the last ten seconds, the beat that is due now included; None before the first one."""
        if self._asleep_since is None:
            return None
        now = self._monotonic()
        while self._lags and now - self._lags[0][0] > _KEPT_SECONDS:
            self._lags.popleft()
        waiting = now - self._asleep_since - _BEAT_SECONDS
        return max(0.0, waiting, *(lag for _, lag in self._lags))

    def _keep(self, now: float, lag: float) -> None:
        # What was shorter and came before can be the worst no more.
        while self._lags and self._lags[-1][1] <= lag:
            self._lags.pop()
        self._lags.append((now, lag))
