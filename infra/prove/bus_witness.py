"""`python -m infra.prove.bus_witness URL FOLDER NAME`: a consumer that writes down what it handles, until killed."""

from __future__ import annotations

import sqlite3
import sys
import time
from collections import Counter
from pathlib import Path

from inference.bus.address import open_bus
from inference.bus.consumer import Consumer, ConsumerTerms
from inference.bus.envelope import Envelope
from inference.bus.handled import HandledEvents, Once
from inference.bus.port import OLDEST, BusError, Subscription

GROUP = "witness"
_IDLE_S = 2.0


def effects(folder: Path) -> Counter[str]:
    """Return how often each event had its effect, by its id."""
    path = folder / "handled.db"
    if not path.exists():
        return Counter()
    connection = sqlite3.connect(path, timeout=10)
    try:
        found = connection.execute("SELECT event_id, count(*) FROM effects GROUP BY event_id").fetchall()
    except sqlite3.OperationalError:
        return Counter()
    finally:
        connection.close()
    return Counter(dict(found))


def main(url: str, folder: Path, name: str) -> None:
    """Handle what comes, for ever."""
    handled = HandledEvents(folder / "handled.db")
    consumer = Consumer(
        open_bus(url, folder),
        handled,
        _write_down,
        group=GROUP,
        name=name,
        subscription=Subscription(start=OLDEST, max_deliveries=1_000),
        terms=ConsumerTerms(at_once=20, idle_seconds=_IDLE_S),
    )
    while True:
        try:
            consumer.turn(wait_seconds=0.5)
        except BusError:
            time.sleep(0.2)


def _write_down(event: Envelope, once: Once) -> None:
    once.connection.execute("CREATE TABLE IF NOT EXISTS effects (event_id TEXT, seq INTEGER, type TEXT)")
    once.connection.execute(
        "INSERT INTO effects VALUES (?, ?, ?)", (event.event_id, event.journal_seq, event.event_type)
    )


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
