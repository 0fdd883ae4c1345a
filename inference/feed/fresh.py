"""What is remembered for a while, and answered only while it is young; pure, with the moment as an argument."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Generic, TypeVar

T = TypeVar("T")


class FreshValues(Generic[T]):
    """
    The newest value of each key. One that is older than `bound_ms`, or dated ahead of now, is no answer.

    Its age counts from when it was asked for, so that an answer that was long on its way is old when it comes. What
    is too old is forgotten with the next new key, so that nothing grows.
    """

    def __init__(self, *, bound_ms: int) -> None:
        self.bound_ms = bound_ms
        self._known: dict[str, tuple[int, T]] = {}
        self._newest_ms = 0

    def __len__(self) -> int:
        return len(self._known)

    def put(self, values: Mapping[str, T], *, at_ms: int) -> None:
        """Remember values of one moment; an answer to an older question replaces none to a newer, forgotten or not."""
        self._newest_ms = max(self._newest_ms, at_ms)
        if at_ms < self._newest_ms - self.bound_ms:
            return
        if not values.keys() <= self._known.keys():
            oldest = at_ms - self.bound_ms
            self._known = {key: one for key, one in self._known.items() if one[0] >= oldest}
        for key, value in values.items():
            known = self._known.get(key)
            if known is None or known[0] <= at_ms:
                self._known[key] = (at_ms, value)

    def get(self, key: str, *, now_ms: int) -> T | None:
        """Return the value of a key, or None where there is none that is young enough."""
        known = self._known.get(key)
        return known[1] if known is not None and self._is_fresh(known[0], now_ms) else None

    def _is_fresh(self, at_ms: int, now_ms: int) -> bool:
        return 0 <= now_ms - at_ms <= self.bound_ms
