"""Where the MLflow server is that a person's question goes to."""

from __future__ import annotations

import contextlib
from pathlib import Path

import msgspec

from feature_store.json_text import UNREADABLE


class _Service(msgspec.Struct, frozen=True):
    url: str | None = None


class _Stack(msgspec.Struct, frozen=True):
    services: dict[str, _Service] = {}


def registry_address(home: Path, named: str | None) -> str | None:
    """Return the address that was named, else that of the stack that runs in the home; None where there is neither."""
    if named:
        return named
    with contextlib.suppress(OSError, *UNREADABLE):
        stack = msgspec.json.decode((home / "stack.json").read_bytes(), type=_Stack)
        return stack.services.get("mlflow", _Service()).url
    return None
