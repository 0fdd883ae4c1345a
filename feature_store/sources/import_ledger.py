"""Which files were imported into a lake, so that the next import reads only what is new."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from feature_store.candle import Series, Timeframe
from feature_store.errors import UnknownTimeframeError
from feature_store.storage import ObjectPlace

_NAME = "imports.jsonl"

Span = tuple[int, int]
"""First and last open time, in milliseconds."""


class ImportLedger:
    """
    The files of one origin that the lake holds, in `imports.jsonl` at the lake's root.

    The root is this machine's; a lake that lies in an object store is told apart from others by its address.

    A file is noted after its candles are stored. Losing a note costs reading a file again and nothing else, so a torn
    line counts as absent.
    """

    def __init__(self, root: Path, place: Path | ObjectPlace, origin: str) -> None:
        self._path = root / _NAME
        self._origin = f"{origin} into {place.address}" if isinstance(place, ObjectPlace) else origin
        self._known: dict[str, str] = {}
        self._series: dict[str, dict[Series, Span | None]] = {}
        self._read()

    def knows(self, part: str, fingerprint: str) -> bool:
        """Tell whether a file was imported with this content."""
        return bool(fingerprint) and self._known.get(part) == fingerprint

    def has(self, part: str) -> bool:
        """Tell whether a file of this name was imported, whatever it held."""
        return part in self._known

    def series_of(self, part: str) -> tuple[Series, ...]:
        """Return the series that a file brought; none, where that was not noted."""
        return tuple(self._series.get(part, ()))

    def spans(self) -> Iterator[tuple[str, Series, Span]]:
        """Yield by file what it said of each series when it was last imported, where that was noted."""
        for part, series in self._series.items():
            for one, span in series.items():
                if span is not None:
                    yield part, one, span

    def note(self, part: str, fingerprint: str, series: Mapping[Series, Span] | None = None) -> None:
        """Note that a file is imported, and from when to when it has candles of which series."""
        spans = dict(series or {})
        self._path.parent.mkdir(parents=True, exist_ok=True)
        keys = [[one.venue, one.symbol, str(one.timeframe), *span] for one, span in spans.items()]
        line = json.dumps({"origin": self._origin, "part": part, "fingerprint": fingerprint, "series": keys})
        # A line break on both sides: a line that a crash tore does not take this one with it.
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, f"\n{line}\n".encode())
        finally:
            os.close(handle)
        self._known[part], self._series[part] = fingerprint, {**spans}

    def _read(self) -> None:
        try:
            lines = self._path.read_text(encoding="utf-8", errors="replace").splitlines()
        except FileNotFoundError:
            return
        for line in lines:
            try:
                entry = json.loads(line)
                if entry["origin"] == self._origin:
                    part = str(entry["part"])
                    self._known[part] = str(entry["fingerprint"])
                    self._series[part] = dict(map(_noted, entry.get("series", ())))
            except (ValueError, LookupError, TypeError, UnknownTimeframeError):
                continue


def _noted(row: list[Any]) -> tuple[Series, Span | None]:
    """Return a series and from when to when it was noted; notes of earlier versions do not say that."""
    venue, symbol, timeframe, *span = row
    return Series(venue, symbol, Timeframe.parse(timeframe)), (int(span[0]), int(span[1])) if span else None
