"""Which stretches of time a venue was asked for and has answered whole, so that a run goes on where one ended."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from feature_store.absences import Span, joined
from feature_store.files import replace_bytes
from feature_store.kinds.definition import Kind, Subject
from feature_store.kinds.partition import folder_of
from feature_store.partitions import locked
from feature_store.storage import ObjectPlace, Place

_NAME = "asked"


class Asked:
    """
    The stretches of one kind and subject, in `asked.json` beside its rows.

    Notes lie on this machine. Of a lake in an object store they have a file of their own, named after its address:
    what one lake was told says nothing of what another holds.

    A stretch is noted after its rows are stored. Losing a note costs asking again and nothing else, so a file that
    cannot be read counts as empty.
    """

    def __init__(self, root: Path, place: Place, kind: Kind, subject: Subject) -> None:
        self._path = folder_of(root, kind, subject) / f"{_NAME}{_mark(place)}.json"

    def spans(self) -> tuple[Span, ...]:
        """Return what was asked for, oldest first."""
        try:
            return joined([Span(int(start), int(end)) for start, end in json.loads(self._path.read_bytes())["asked"]])
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return ()

    def note(self, start_ms: int, end_ms: int) -> None:
        """Note that every row with a time in `[start_ms, end_ms)` is stored."""
        with locked(self._path):
            spans = joined([*self.spans(), Span(start_ms, end_ms)])
            content = {"asked": [[span.start_ms, span.end_ms] for span in spans]}
            replace_bytes(self._path, json.dumps(content).encode())

    def forget(self) -> None:
        """Begin anew: everything is to be asked for again."""
        with locked(self._path):
            self._path.unlink(missing_ok=True)

    def lacking(self, start_ms: int, end_ms: int) -> tuple[Span, ...]:
        """Return what is left to ask for within `[start_ms, end_ms)`, oldest first."""
        lacking, begin_ms = [], start_ms
        for span in self.spans():
            lacking.append(Span(begin_ms, min(span.start_ms, end_ms)))
            begin_ms = max(begin_ms, span.end_ms)
        lacking.append(Span(begin_ms, end_ms))
        return tuple(span for span in lacking if span.start_ms < span.end_ms)


def _mark(place: Place) -> str:
    if not isinstance(place, ObjectPlace):
        return ""
    return f"-{hashlib.sha256(place.address.encode()).hexdigest()[:16]}"
