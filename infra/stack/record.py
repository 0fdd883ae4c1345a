"""The record of the stack's processes: stack.json, written whole or not at all."""

from __future__ import annotations

import os
import secrets
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec

from feature_store.json_text import UNREADABLE


class ServiceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One process that we started, told apart from a later one with the same pid by its creation time."""

    pid: int
    create_time: float
    url: str | None
    port: int | None
    log: str
    state: str
    digest: str
    started_at: datetime
    grace_s: float = 10.0


class StackRecord(msgspec.Struct, frozen=True, kw_only=True):
    """
    All processes of one home, and the mark that each carries in its environment.

    `ports` are those that servers had last, also of servers that have stopped: what links to them should go on to.
    """

    stack_id: str
    services: dict[str, ServiceRecord] = {}
    ports: dict[str, int] = {}
    settings: dict[str, Any] = {}
    schema: int = 1

    def with_service(self, name: str, service: ServiceRecord) -> StackRecord:
        """Return the record with one service added or replaced."""
        ports = self.ports if service.port is None else {**self.ports, name: service.port}
        return msgspec.structs.replace(self, services={**self.services, name: service}, ports=ports)

    def without_service(self, name: str) -> StackRecord:
        """Return the record with one service removed."""
        return msgspec.structs.replace(
            self, services={other: kept for other, kept in self.services.items() if other != name}
        )


def new_record() -> StackRecord:
    """Return an empty record under a mark that nothing else carries."""
    return StackRecord(stack_id=secrets.token_hex(8))


def read_record(path: Path) -> tuple[StackRecord | None, str | None]:
    """
    Read the record; a file that cannot be read is reported, not raised.

    Returns:
        The record, or None where there is none or it is unusable, and in the second case what was found.
    """
    try:
        return msgspec.json.decode(path.read_bytes(), type=StackRecord), None
    except FileNotFoundError:
        return None, None
    except (OSError, *UNREADABLE) as error:
        return None, str(error)


def stack_id_in(path: Path) -> str | None:
    """Find the mark in a damaged record, so that processes it spoke of can still be found."""
    try:
        text = path.read_text(errors="replace")
    except OSError:
        return None
    _, found, rest = text.partition('"stack_id"')
    parts = rest.split('"')
    mark = parts[1] if found and len(parts) > 2 else ""
    return mark if len(mark) == 16 and all(letter in "0123456789abcdef" for letter in mark) else None


def write_record(path: Path, record: StackRecord) -> None:
    """Replace the record in one step, so that a reader or a crash never meets half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    with temporary.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(record), indent=2) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
