"""A switch at the venue: it cancels entries that rest once it has not heard of us for a while."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection

from feature_store.venue.errors import RequestRefusedError, VenueError
from inference.execution.ports import Gateway


class DeadMan:
    """
    Arms the switch of a symbol before an entry rests there, winds it up again while it does, and takes it back after.

    Off where the venue has none. Protective orders are conditional, and no switch cancels those.
    """

    def __init__(self, gateway: Gateway, *, seconds: float, monotonic: Callable[[], float]) -> None:
        self._gateway = gateway
        self._seconds = seconds
        self._monotonic = monotonic
        self._armed: dict[str, float] = {}
        # Symbols for which the venue refuses it.
        self._refused: set[str] = set()
        # Taking it back and winding it up may not overtake each other.
        self._turn = asyncio.Lock()
        self.is_off = not gateway.has_countdown

    async def arm(self, symbol: str) -> bool:
        """Return whether an entry may rest in a symbol: the switch is wound up, or there is none."""
        if self.is_off or symbol in self._refused:
            return True
        async with self._turn:
            began = self._monotonic()
            try:
                await self._gateway.set_countdown(symbol, self._seconds)
            except RequestRefusedError:
                self._refused.add(symbol)
                return True
            except VenueError:
                return False
            self._armed[symbol] = began
            return True

    async def follow(self, resting: Callable[[], Collection[str]]) -> None:
        """Wind up what is due where entries rest, and take it back where none does any more."""
        for symbol, armed in list(self._armed.items()):
            if symbol not in resting():
                async with self._turn:
                    if symbol not in resting():
                        await self._take_back(symbol)
            elif self._monotonic() - armed >= self._seconds / 3:
                await self.arm(symbol)

    async def _take_back(self, symbol: str) -> None:
        try:
            await self._gateway.set_countdown(symbol, 0)
        except VenueError:
            # Asked again at the next look; by itself it only cancels what rests, and nothing does.
            return
        self._armed.pop(symbol, None)
