"""Events for tests of the bus, and both buses."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path

from inference.bus.envelope import Envelope, event_id_of, iso
from inference.bus.local import LocalBus
from inference.bus.port import EventBus
from inference.bus.redis_bus import RedisBus

T0 = 1_765_967_400_123
_prefixes = count()


def event(number: int, event_type: str = "trade.filled", *, at_ms: int | None = None) -> Envelope:
    """Return the so manieth event, one second after the one before."""
    return Envelope(
        event_id=event_id_of(f"test-{number}", event_type, 0),
        event_type=event_type,
        timestamp=iso(T0 + number * 1000 if at_ms is None else at_ms),
        trace_id=f"trace-{number}",
        source="execution",
        data={"number": number},
    )


def numbers(found) -> list[int]:
    """Return the numbers of deliveries, stored events or dead letters."""
    return [one.envelope.data["number"] for one in found]


@contextmanager
def opened(kind: str, folder: Path, redis_url: str | None) -> Iterator[EventBus]:
    """Open an empty bus of a kind."""
    if kind == "local":
        bus: EventBus = LocalBus(folder / "bus.db")
    else:
        assert redis_url is not None
        bus = RedisBus(redis_url, prefix=f"{{test-{next(_prefixes)}}}")
    try:
        yield bus
    finally:
        bus.close()
