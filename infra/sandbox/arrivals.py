"""Requests on their way to the engine: they arrive later than they were sent, and the market has moved on by then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from typing import Any

from infra.sandbox.engine.rules import Rules
from infra.sandbox.spot import paths

_CONTRACTS = frozenset({"/fapi/v1/order", "/fapi/v1/algoOrder", "/fapi/v1/batchOrders"})
_ORDERS = _CONTRACTS | paths.ORDERS
_CANCELS = _CONTRACTS | {"/fapi/v1/allOpenOrders", "/fapi/v1/algoOpenOrders"} | paths.CANCELS


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that was admitted and has not reached the engine; a saved venue keeps it."""

    due_ms: int
    number: int
    method: str
    path: str
    values: dict[str, str]
    legacy_conditionals: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """What the engine said to a request."""

    status: int
    data: Any


def latency_ms(rules: Rules, method: str, path: str) -> int:
    """Return how long a request takes to reach the engine; only what changes orders takes any time."""
    if method in {"POST", "PUT"} and path in _ORDERS:
        return rules.insert_ms
    return rules.cancel_ms if method == "DELETE" and path in _CANCELS else 0


class Arrivals:
    """Requests in flight, by the moment at which they arrive; those of one moment in the order they were sent."""

    def __init__(self) -> None:
        self.perform: Callable[[Arrival], Reply] | None = None
        self._heap: list[tuple[int, int, Arrival]] = []
        self._sent = 0
        self._waiting: dict[int, Callable[[Reply], None]] = {}

    def send(
        self,
        method: str,
        path: str,
        values: dict[str, str],
        *,
        due_ms: int,
        legacy_conditionals: bool = False,
        answered: Callable[[Reply], None] | None = None,
    ) -> Arrival:
        """Send a request; `answered` is told what came of it."""
        arrival = Arrival(due_ms, self._sent, method, path, values, legacy_conditionals)
        self._sent += 1
        heappush(self._heap, (due_ms, arrival.number, arrival))
        if answered is not None:
            self._waiting[arrival.number] = answered
        return arrival

    def due(self, until_ms: int) -> Iterator[Arrival]:
        """Take out what arrives until a moment, oldest first."""
        while self._heap and self._heap[0][0] <= until_ms:
            yield heappop(self._heap)[2]

    def deliver(self, arrival: Arrival) -> None:
        """Carry a request out and tell who waits; after a restart nobody does."""
        if self.perform is None:
            raise RuntimeError("A request arrived, and nobody was named who carries requests out")
        reply = self.perform(arrival)
        answered = self._waiting.pop(arrival.number, None)
        if answered is not None:
            answered(reply)

    def in_flight(self) -> list[Arrival]:
        """Requests that have not arrived, as they will arrive."""
        return [one for _, _, one in sorted(self._heap, key=lambda row: row[:2])]

    def forget(self) -> None:
        """Let nothing arrive any more; whoever waits is told that nobody knows what came of it."""
        waiting, self._waiting, self._heap = self._waiting, {}, []
        for answered in waiting.values():
            answered(Reply(503, {"code": -1007, "msg": "Timeout waiting for response from backend server."}))

    def restore(self, arrivals: Iterable[Arrival]) -> None:
        """Take in what was in flight when the venue was saved."""
        self._heap = [(one.due_ms, one.number, one) for one in arrivals]
        heapify(self._heap)
        self._sent = max((number + 1 for _, number, _ in self._heap), default=0)
