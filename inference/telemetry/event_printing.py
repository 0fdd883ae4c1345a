"""What the event bus answers to a person: its newest events, those of the past, dead letters and counts."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import msgspec
from rich.console import Console
from rich.table import Table

from inference.bus.address import local_file, open_bus
from inference.bus.catalogue import CATALOGUE
from inference.bus.envelope import EventError, iso, milliseconds
from inference.bus.port import BusError, EventBus, Stored, UnknownGroupError
from inference.telemetry.printed import print_json

_LOOKS_SECONDS = 0.2
_WIDTH = 160


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """Which part of the log is meant."""

    patterns: tuple[str, ...]
    from_offset: int
    since: str | None
    group: str | None


def existing_bus(address: str | None, home: Path) -> EventBus:
    """
    Return the bus that is meant; looking at one that is not there does not make it.

    Raises:
        BusError: No worker has made the local bus of this home yet.
        SettingsError: The address names none.
    """
    if address is None and not local_file(home).exists():
        raise BusError(
            f"There is no event bus at {local_file(home)}: a worker makes it when it starts;"
            " name its home with --home, or another bus with --bus"
        )
    return open_bus(address, home)


def tail(bus: EventBus, patterns: Sequence[str], *, lines: int, follow: bool, as_json: bool) -> int:
    """Print the newest events, and what comes where that is followed."""
    wanted = tuple(patterns) or ("*",)
    with closing(bus):
        last = bus.stats().last_offset
        for one in bus.newest(wanted, limit=max(1, lines)):
            _print(one, as_json=as_json)
            last = max(last, one.offset)
        while follow:
            for one in bus.replay(wanted, from_offset=last + 1):
                _print(one, as_json=as_json)
                last = one.offset
            time.sleep(_LOOKS_SECONDS)
    return 0


def replay(bus: EventBus, chosen: Chosen, *, as_json: bool) -> int:
    """
    Print events of the past, or let a group read on from there.

    Raises:
        EventError: The moment is none, or a group was asked to go back to a moment rather than to an offset.
    """
    with closing(bus):
        if chosen.group is not None:
            if chosen.since is not None or chosen.patterns:
                raise EventError(
                    "A group goes back to an offset, with the patterns it has: leave out --since and types"
                )
            bus.rewind(chosen.group, chosen.from_offset)
            _tell({"group": chosen.group, "reads_on_from": chosen.from_offset}, as_json=as_json)
            return 0
        from_ms = 0 if chosen.since is None else milliseconds(chosen.since)
        for one in bus.replay(chosen.patterns or ("*",), from_offset=chosen.from_offset, from_ms=from_ms):
            _print(one, as_json=as_json)
    return 0


def dead(bus: EventBus, group: str | None, *, as_json: bool) -> int:
    """Print the dead letters."""
    with closing(bus):
        letters = bus.dead_letters(group)
    if as_json:
        print_json(letters)
        return 0
    table = Table("died", "group", "event id", "type", "offset", "deliveries", "reason")
    for one in letters:
        envelope = one.envelope
        row = [iso(one.died_ms), one.group, envelope.event_id, envelope.event_type, str(one.offset)]
        table.add_row(*row, str(one.deliveries), one.reason[:_WIDTH])
    if letters:
        Console(soft_wrap=True).print(table)
    sys.stdout.write(f"{len(letters)} dead letters\n")
    return 0


def requeue(bus: EventBus, group: str, event_ids: Sequence[str], *, as_json: bool) -> int:
    """
    Have dead letters delivered again.

    Raises:
        UnknownGroupError: There is no such group, or it has none of those that were named.
    """
    with closing(bus):
        wanted = tuple(event_ids) or None
        known = {one.envelope.event_id for one in bus.dead_letters(group, limit=10**9)}
        missing = [one for one in event_ids if one not in known]
        if missing:
            raise UnknownGroupError(
                f"Group {group!r} has no dead letter {missing[0]!r}; `qtctl events dead` lists them"
            )
        count = bus.requeue(group, wanted)
    _tell({"group": group, "requeued": count}, as_json=as_json)
    return 0


def stats(bus: EventBus, *, as_json: bool) -> int:
    """Print the counts."""
    with closing(bus):
        found = bus.stats()
    if as_json:
        print_json(found)
        return 0
    sys.stdout.write(
        f"{found.published} events published, {found.kept} kept (offsets {found.first_offset} to {found.last_offset})\n"
    )
    table = Table("group", "hears", "reads next", "delivered", "acknowledged", "pending", "dead", "dropped")
    for name, one in found.groups.items():
        counts = (one.position, one.delivered, one.acknowledged, one.pending, one.dead, one.dropped)
        table.add_row(name, " ".join(one.patterns), *(str(count) for count in counts))
    if found.groups:
        Console(soft_wrap=True).print(table)
    else:
        sys.stdout.write("No group has subscribed.\n")
    return 0


def kinds(*, as_json: bool) -> int:
    """Print the catalogue of events."""
    if as_json:
        print_json([{**_plain(one), "source": one.said_by} for one in CATALOGUE])
        return 0
    for one in CATALOGUE:
        sys.stdout.write(f"{one.event_type:<28}  {one.said_by:<11}  {one.meaning}\n")
    return 0


def _plain(value: object) -> dict[str, object]:
    plain: dict[str, object] = msgspec.to_builtins(value)
    return plain


def _print(one: Stored, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(msgspec.json.encode(one).decode() + "\n")
    else:
        envelope = one.envelope
        data = msgspec.json.encode(envelope.data).decode()
        short = data if len(data) <= _WIDTH else f"{data[: _WIDTH - 1]}…"
        sys.stdout.write(f"{one.offset:>8}  {envelope.timestamp}  {envelope.event_type:<28}  {short}\n")
    sys.stdout.flush()


def _tell(answer: dict[str, object], *, as_json: bool) -> None:
    if as_json:
        print_json(answer)
    else:
        sys.stdout.write(", ".join(f"{name.replace('_', ' ')} {value}" for name, value in answer.items()) + "\n")
