"""Journals for tests of anchors: written, cut off, put back."""

from __future__ import annotations

import json

from inference import cli
from inference.bootstrap.past import Past
from inference.domain.events import Noted
from inference.execution.book import Book
from inference.journal.head import Head, write_head
from inference.journal.keeping import RESTORED_MARKER
from inference.journal.outside_anchor import OutsideAnchor
from inference.journal.reader import read_entries
from inference.journal.writer import JournalWriter


def note(journal, number):
    """Journal one event."""
    journal.record(Noted(event_type="health.tested", detail={"number": str(number)}), timestamp_ms=number)


def write(path, count, *, start=0):
    """Write so many entries, and return the head after each of them."""
    heads = []
    with JournalWriter.open(path) as journal:
        for number in range(start, start + count):
            note(journal, number)
            heads.append(Head(seq=journal.seq, digest=journal.digest))
    return heads


def cut(path, keep):
    """Cut a journal off, and write the head beside it so that the home is of one mind."""
    lines = path.read_bytes().splitlines(keepends=True)[:keep]
    path.write_bytes(b"".join(lines))
    path.with_suffix(".head").unlink(missing_ok=True)
    if lines:
        write_head(path.with_suffix(".head"), Head(seq=keep, digest=json.loads(lines[-1])["digest"]))


def put_back(path, anchor, backup="backup"):
    """Start as a worker does in a home that says it was put back, and return what was journaled of it."""
    path.with_name(RESTORED_MARKER).write_text(backup)
    kept = OutsideAnchor(anchor)
    with JournalWriter.open(path, anchors=lambda: kept.vouched(path)) as journal:
        begun = journal.seq
        Past(Book()).heed_restore(journal, kept)
    return [one for one in read_entries(path) if one.seq > begun]


def asked(capsys, *arguments):
    """Ask `qtctl audit verify`; return its status and what it printed."""
    status = cli.run(["audit", "verify", *map(str, arguments)])
    printed = capsys.readouterr()
    return status, printed.out + printed.err
