"""Where the stack of a QUANTUM_HOME runs its exchange, as its record tells."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE


class _Service(msgspec.Struct, frozen=True):
    url: str | None = None


class _StackRecord(msgspec.Struct, frozen=True):
    services: dict[str, _Service] = {}


def home_from_environment() -> Path:
    """Return the folder that QUANTUM_HOME names, by default var in the current directory."""
    return Path(os.environ.get("QUANTUM_HOME") or "var")


def stack_sandbox(home: Path) -> str | None:
    """Return the address of the home's exchange; None where none is recorded, or the record cannot be read."""
    try:
        record = msgspec.json.decode((home / "stack.json").read_bytes(), type=_StackRecord)
    except (OSError, *UNREADABLE):
        return None
    return record.services.get("sandbox", _Service()).url or None
