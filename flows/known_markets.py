"""Which instruments a venue was ever seen to list: a file in the home, that tells what was never fetched."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

from feature_store.files import replace_bytes
from flows.settings import FlowSettings


def remember_markets(settings: FlowSettings, symbols: Iterable[str]) -> None:
    """Add the instruments that the venue lists now to those that it ever listed."""
    before = known_markets(settings)
    now = sorted({*before, *symbols})
    if now != list(before):
        replace_bytes(_path(settings), json.dumps(now).encode())


def known_markets(settings: FlowSettings) -> tuple[str, ...]:
    """Return every instrument that the venue was seen to list, in order; none, where it was never asked from here."""
    try:
        read = json.loads(_path(settings).read_bytes())
    except (FileNotFoundError, ValueError):
        return ()
    return tuple(str(one) for one in read) if isinstance(read, list) else ()


def _path(settings: FlowSettings) -> Path:
    return settings.home / "venues" / f"{settings.venue}.json"
