"""What is known of a series beside its candles: small files in its folder, replaced whole, and one lock."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from feature_store.candle import Series
from feature_store.lake import CandleLake
from feature_store.partitions import series_folder
from feature_store.storage import storage_of

VERSION = 1
_LOOKS_PER_SECOND = 10


def read_note(lake: CandleLake, series: Series, name: str) -> dict[str, Any]:
    """
    Return what a note says; nothing, where there is none, or none that this version can read.

    A note is never the only copy of anything: losing one costs asking again.
    """
    place = note_place(lake, series, name)
    try:
        source = storage_of(place).source(place)
        note = json.loads(source.read_bytes() if isinstance(source, Path) else source.read())
    except (FileNotFoundError, ValueError):
        return {}
    return note if isinstance(note, dict) and note.get("version", VERSION) == VERSION else {}


def has_note(lake: CandleLake, series: Series, name: str) -> bool:
    """Tell whether there is a note, readable or not."""
    place = note_place(lake, series, name)
    return bool(storage_of(place).glob(place.parent, place.name))


def write_note(lake: CandleLake, series: Series, name: str, content: dict[str, Any]) -> None:
    """Replace a note as a whole."""
    text = json.dumps({"version": VERSION, **content}, separators=(",", ":")).encode()

    def write(target: Any) -> None:
        if isinstance(target, Path):
            target.write_bytes(text)
        else:
            target.write(text)

    place = note_place(lake, series, name)
    storage_of(place).exchange(place, lambda _: write)


def note_place(lake: CandleLake, series: Series, name: str) -> Any:
    """Return where a note lies: beside the candles, in a folder or an object store."""
    return series_folder(lake.place, series) / f"{name}.json"


@contextlib.asynccontextmanager
async def alone_with(lake: CandleLake, series: Series) -> AsyncIterator[None]:
    """
    Hold the one lock under which a series is brought up to date; others that want the same wait for it.

    It holds on this machine; the kernel lets go of it when the process dies. Readers and other writers of candles need
    no lock of this kind: without it, pages would be fetched twice, and nothing would be stored twice.
    """
    path = series_folder(lake.root, series) / ".ingest.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        # Waiting in a thread could take all threads of the pool, and the holder needs one to store its page.
        while not _taken(handle):  # noqa: ASYNC110 - the holder may be another process, which sets no event
            await asyncio.sleep(1 / _LOOKS_PER_SECOND)
        yield
    finally:
        os.close(handle)


def _taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
