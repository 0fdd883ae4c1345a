"""What a backup holds: every file with its digest, every journal with its head, and how a backup is found whole."""

from __future__ import annotations

import hashlib
import os
import sqlite3
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import Literal
from urllib.parse import quote

import msgspec

from feature_store.json_text import UNREADABLE
from inference.domain.errors import JournalError
from inference.journal.verify import verify
from inference.storage.errors import BackupError

MANIFEST = "manifest.json"
EDITION = 1
_MOST_BYTES = 64 * 2**20
_CHUNK = 2**20

Kind = Literal["journal", "head", "sqlite", "lines", "plain"]


class FileNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One file of a backup."""

    kind: Kind
    bytes: int
    sha256: str


class JournalNote(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Where a journal was cut: its number of entries, and the digest of the last one."""

    entries: int
    digest: str


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """All that a backup holds; paths are relative to it and to the home. `made_at` is ISO 8601 in UTC."""

    edition: int
    made_at: str
    program: str
    home: str
    journals: dict[str, JournalNote]
    files: dict[str, FileNote]
    left_out: list[str]


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    running = hashlib.sha256()
    with path.open("rb") as file:
        while part := file.read(_CHUNK):
            running.update(part)
    return running.hexdigest()


def sqlite_damage(path: Path) -> str | None:
    """Return what is wrong with a SQLite file; None where it is whole. Nothing is written beside it."""
    try:
        # Nobody else has a backup's file open, so no log of changes has to be looked for.
        address = f"file:{quote(str(path))}?mode=ro&immutable=1"
        with closing(sqlite3.connect(address, uri=True)) as connection:
            answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
    except sqlite3.Error as error:
        return str(error)
    return None if answer == "ok" else answer


def read_manifest(folder: Path) -> Manifest:
    """
    Return what a backup says that it holds.

    Raises:
        BackupError: There is none, it cannot be read, or a newer version made it.
    """
    path = folder / MANIFEST
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise BackupError(f"{path} is too large to be the list of a backup's files")
        text = path.read_bytes()
    except OSError as error:
        raise BackupError(
            f"{folder} is no backup: {path.name} cannot be read ({error.strerror}); name a folder that `qtctl backup` "
            "made"
        ) from error
    try:
        edition = msgspec.json.decode(text, type=dict[str, msgspec.Raw]).get("edition")
        if edition is not None and bytes(edition) != str(EDITION).encode():
            raise BackupError(f"{folder} was made by another version of this program; install that one to restore it")
        return msgspec.json.decode(text, type=Manifest)
    except UNREADABLE as error:
        raise BackupError(f"{path} cannot be read: {error}; take another backup") from error


def check(folder: Path) -> Manifest:
    """
    Prove a backup whole: every file is there as it was written, none is added, every journal's chain holds.

    Raises:
        BackupError: At the first thing that is not.
    """
    manifest = read_manifest(folder)
    for name in manifest.files:
        _require_plain_path(name)
    present = {path.relative_to(folder).as_posix() for path in _files_below(folder)} - {MANIFEST}
    if added := sorted(present - manifest.files.keys()):
        raise _damaged(folder, added[0], "it is not in the list")
    for name, note in sorted(manifest.files.items()):
        _check_file(folder, name, note)
    for name, noted in sorted(manifest.journals.items()):
        _check_journal(folder, name, noted, manifest.files)
    return manifest


def _check_file(folder: Path, name: str, note: FileNote) -> None:
    path = folder / name
    if not path.is_file() or path.is_symlink():
        raise _damaged(folder, name, "it is missing")
    size = path.stat().st_size
    if size != note.bytes:
        raise _damaged(folder, name, f"it has {size} bytes, the list says {note.bytes}")
    try:
        digest = digest_of(path)
    except OSError as error:
        raise _damaged(folder, name, f"it cannot be read: {error.strerror}") from error
    if digest != note.sha256:
        raise _damaged(folder, name, "its digest is not that of the list")
    if note.kind == "sqlite" and (damage := sqlite_damage(path)):
        raise _damaged(folder, name, damage)


def _check_journal(folder: Path, name: str, noted: JournalNote, listed: Mapping[str, FileNote]) -> None:
    path = folder / name
    if name not in listed or not path.is_file():
        raise _damaged(folder, name, "it is missing")
    try:
        found = verify(path, path.with_suffix(".head"))
    except JournalError as error:
        raise _damaged(folder, name, str(error)) from error
    if found.finding is not None:
        raise _damaged(folder, name, f"entry {found.finding.seq}: {found.finding.message}")
    if found.torn_bytes or (found.entries, found.digest) != (noted.entries, noted.digest):
        raise _damaged(folder, name, f"it ends with entry {found.entries}, the list says {noted.entries}")


def _files_below(folder: Path) -> list[Path]:
    found: list[Path] = []
    for root, folders, names in os.walk(folder):
        # A link to a folder is neither walked nor wanted.
        links = [one for one in folders if (Path(root) / one).is_symlink()]
        found += [Path(root) / name for name in (*names, *links)]
    return found


def _require_plain_path(name: str) -> None:
    path = PurePosixPath(name)
    if path.is_absolute() or not path.parts or any(part in ("..", "") or "\0" in part for part in path.parts):
        raise BackupError(f"The backup's list names {name!r}, which would lead out of the home; it is not ours")


def _damaged(folder: Path, name: str, found: str) -> BackupError:
    return BackupError(f"The backup {folder} is not whole: {name}: {found}. Nothing was restored; take another backup")
