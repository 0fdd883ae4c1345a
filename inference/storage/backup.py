"""Copying a home while it is in use: journals cut at a whole entry, databases by their own backup, the rest by file."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import sqlite3
import stat
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO
from urllib.parse import quote

import msgspec

from inference.domain.errors import JournalError
from inference.journal.codec import GENESIS
from inference.journal.head import Head, read_head, write_head
from inference.journal.verify import BrokenChainError, verified
from inference.storage.errors import BackupError
from inference.storage.manifest import (
    EDITION,
    MANIFEST,
    FileNote,
    JournalNote,
    Kind,
    Manifest,
    digest_of,
    read_manifest,
    sqlite_damage,
)

FOLDER = "backups"
# The venue's own state, what is asked or computed again, what is made from the journal, and what no restart wants.
_LEFT_OUT = ("budgets", "database", "export", "features", "logs", "sandbox", FOLDER)
_LAKE = "lake"
_NO_FILES = ("stack.json", "worker/status.json", "shadow/status.json")
_NO_ENDINGS = (".lock", ".tmp", "-wal", "-shm", "-journal")
_SQLITE = b"SQLite format 3\0"
_NAME = re.compile(r"backup-\d{8}T\d{6}Z(-\d+)?")
_PARTIAL = ".partial-"
_REMOVED = ".removed-"
_CHUNK = 2**20


@dataclass(frozen=True, slots=True, kw_only=True)
class Backup:
    """A backup that was made: where, what it holds, and the digest of its list, by which it can be known again."""

    folder: Path
    manifest: Manifest
    sha256: str
    removed: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """How much it holds."""
        return sum(note.bytes for note in self.manifest.files.values())


@dataclass(slots=True)
class _Copied:
    journals: dict[str, JournalNote] = field(default_factory=dict)
    files: dict[str, FileNote] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)


def make_backup(
    home: Path, *, to: Path | None, now: datetime, program: str, keep: int | None = None, with_lake: bool = False
) -> Backup:
    """
    Back up a home, whoever uses it meanwhile; the backup appears whole or not at all.

    Args:
        home: What is backed up.
        to: The folder in which backups lie; by default `backups` in the home.
        now: UTC, for its name.
        program: The version that makes it.
        keep: How many backups of this home stay there, this one among them; None removes none.
        with_lake: Whether candles are backed up too, which the venue has anyway.

    Raises:
        BackupError: There is nothing to back up, something in it is damaged, or the disk refuses.
    """
    if not home.is_dir():
        raise BackupError(f"There is no home at {home}; name it with --home or QUANTUM_HOME")
    target = (to or home / FOLDER).resolve()
    _check_place(home.resolve(), target)
    try:
        target.mkdir(parents=True, exist_ok=True, mode=0o700)
        with _alone(target):
            partial = _begin(target, home, with_lake=with_lake)
            try:
                manifest = _fill(home, partial, now=now, program=program, with_lake=with_lake)
                folder = _finish(partial, target, now)
                sha256 = digest_of(folder / MANIFEST)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
            removed = _retire(target, keep, made=folder, home=manifest.home)
    except OSError as error:
        raise BackupError(
            f"The backup in {target} could not be made: {error.strerror or error}"
            f"{f' ({error.filename})' if error.filename else ''}; make room or give leave, and run it again"
        ) from error
    return Backup(folder=folder, manifest=manifest, sha256=sha256, removed=removed)


def backups_in(folder: Path) -> list[Path]:
    """Return the backups in a folder, the oldest first; one that is being made is none yet."""
    try:
        return sorted(one for one in folder.iterdir() if _NAME.fullmatch(one.name) and (one / MANIFEST).is_file())
    except FileNotFoundError:
        return []


def _check_place(home: Path, target: Path) -> None:
    if target.is_relative_to(home) and target.relative_to(home).parts[:1] != (FOLDER,):
        raise BackupError(
            f"Backups in {target} would hold each other: name a folder outside of {home}, or leave out --to"
        )


@contextmanager
def _alone(target: Path) -> Iterator[None]:
    descriptor = os.open(target / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    except BlockingIOError as error:
        raise BackupError(f"Another backup into {target} is being made; wait for it") from error
    finally:
        os.close(descriptor)


def _begin(target: Path, home: Path, *, with_lake: bool) -> Path:
    for left in [*target.glob(f"{_PARTIAL}*"), *target.glob(f"{_REMOVED}*")]:
        shutil.rmtree(left, ignore_errors=True)
    needed = sum(path.stat().st_size for path, _ in _chosen(home, _Copied(), with_lake=with_lake))
    free = shutil.disk_usage(target).free
    if free < needed:
        raise BackupError(
            f"A backup of {home} needs {needed / 2**20:.0f} MB, {target} has {free / 2**20:.0f} MB free; make room, or "
            "name another folder with --to"
        )
    partial = target / f"{_PARTIAL}{os.getpid()}"
    partial.mkdir(mode=0o700)
    return partial


def _fill(home: Path, partial: Path, *, now: datetime, program: str, with_lake: bool) -> Manifest:
    copied = _Copied()
    chosen = list(_chosen(home, copied, with_lake=with_lake))
    # Journals first: what they name, a bundle or a policy, is then in the backup too.
    for path, name in sorted(chosen, key=lambda one: (not _is_journal(one[0]), one[1])):
        try:
            _copy(path, partial / name, name, copied)
        except FileNotFoundError:
            # Whoever uses the home took it away, as it may: a bundle of long ago, an old day.
            copied.left_out.append(name)
            (partial / name).unlink(missing_ok=True)
    manifest = Manifest(
        edition=EDITION,
        made_at=now.isoformat(),
        program=program,
        home=str(home.resolve()),
        journals=copied.journals,
        files=dict(sorted(copied.files.items())),
        left_out=sorted(copied.left_out),
    )
    (partial / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest), indent=1))
    _make_durable(partial)
    return manifest


def _chosen(home: Path, copied: _Copied, *, with_lake: bool) -> Iterator[tuple[Path, str]]:
    skipped = {*_LEFT_OUT} if with_lake else {*_LEFT_OUT, _LAKE}
    for root, folders, names in os.walk(home):
        here = Path(root)
        top = here == home
        folders[:] = sorted(
            one for one in folders if not (top and one in skipped) and not one.startswith((".", "incoming-"))
        )
        for name in sorted(names):
            path = here / name
            relative = path.relative_to(home).as_posix()
            if name.startswith(".") or name.endswith(_NO_ENDINGS) or relative in _NO_FILES or _is_head(path):
                continue
            try:
                mode = path.lstat().st_mode
            except FileNotFoundError:
                continue
            if not stat.S_ISREG(mode) or not relative.isprintable():
                # A link may lead anywhere, a socket is nobody's, and such a name is none that we gave.
                copied.left_out.append(ascii(relative).strip("'"))
                continue
            yield path, relative


def _is_head(path: Path) -> bool:
    # A journal's anchor is written anew for where the copy ends.
    return path.suffix == ".head" and path.with_suffix(".jsonl").exists()


def _is_journal(path: Path) -> bool:
    return path.suffix == ".jsonl" and (path.parent.name == "journal" or path.with_suffix(".head").exists())


def _kind(path: Path, name: str) -> Kind:
    if _is_journal(path):
        return "journal"
    if name.endswith((".jsonl", ".journal")):
        return "lines"
    with path.open("rb") as file:
        return "sqlite" if file.read(len(_SQLITE)) == _SQLITE else "plain"


def _copy(path: Path, target: Path, name: str, copied: _Copied) -> None:
    target.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    kind = _kind(path, name)
    match kind:
        case "journal":
            copied.journals[name] = _copy_journal(path, target)
            head = target.with_suffix(".head")
            copied.files[head.relative_to(_root(target, name)).as_posix()] = _note(head, "head")
        case "sqlite":
            _copy_database(path, target)
        case "lines":
            _copy_lines(path, target)
        case _:
            with path.open("rb") as source, target.open("xb") as copy:
                shutil.copyfileobj(source, copy, _CHUNK)
    copied.files[name] = _note(target, kind)


def _root(target: Path, name: str) -> Path:
    return target.parents[len(Path(name).parts) - 1]


def _note(path: Path, kind: Kind) -> FileNote:
    path.chmod(0o600)
    # Read back from the file: what counts is what was written.
    return FileNote(kind=kind, bytes=path.stat().st_size, sha256=digest_of(path))


def _copy_journal(path: Path, target: Path) -> JournalNote:
    """Copy the entries that are there now, each proved to continue the chain."""
    try:
        # The anchor before the file: what it vouches for is in the file by then.
        anchor = read_head(path.with_suffix(".head"))
        seq, digest = 0, GENESIS
        with path.open("rb") as source, target.open("xb") as copy:
            for entry in verified(_copied_lines(source, copy), anchor):
                seq, digest = entry.seq, entry.digest
    except BrokenChainError as error:
        raise BackupError(
            f"The journal {path} is damaged at entry {error.finding.seq}: {error.finding.message}; a backup would "
            "keep the damage. `qtctl audit verify` says more; restore an earlier backup elsewhere"
        ) from error
    except JournalError as error:
        raise BackupError(str(error)) from error
    write_head(target.with_suffix(".head"), Head(seq=seq, digest=digest))
    return JournalNote(entries=seq, digest=digest)


def _copied_lines(source: IO[bytes], copy: IO[bytes]) -> Iterator[bytes]:
    """Yield the whole lines that a file holds at this moment, copying each."""
    end = os.fstat(source.fileno()).st_size
    place = 0
    while place < end:
        line = source.readline()
        place += len(line)
        if not line.endswith(b"\n") or place > end:
            return
        copy.write(line)
        yield line


def _copy_lines(path: Path, target: Path) -> None:
    with path.open("rb") as source, target.open("xb") as copy:
        for _ in _copied_lines(source, copy):
            pass


def _copy_database(path: Path, target: Path) -> None:
    try:
        with (
            closing(sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=10)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            # In one step: whoever writes meanwhile waits for milliseconds, or not at all with a log of changes.
            source.backup(copy)
            # One file, without a log of its own beside it.
            copy.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise BackupError(
            f"The SQLite file {path} cannot be backed up: {error}; `qtctl doctor` says whether it is whole"
        ) from error
    if damage := sqlite_damage(target):
        raise BackupError(f"The SQLite file {path} is damaged: {damage}; a backup of it would keep the damage")


def _make_durable(folder: Path) -> None:
    for root, _, names in os.walk(folder):
        for name in (*names, "."):
            descriptor = os.open(Path(root) / name, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)


def _is_of(folder: Path, home: str) -> bool:
    try:
        return read_manifest(folder).home == home
    except BackupError:
        return False


def _finish(partial: Path, target: Path, now: datetime) -> Path:
    name = f"backup-{now:%Y%m%dT%H%M%SZ}"
    folder, again = target / name, 1
    while folder.exists():
        again += 1
        folder = target / f"{name}-{again}"
    partial.rename(folder)
    descriptor = os.open(target, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return folder


def _retire(target: Path, keep: int | None, *, made: Path, home: str) -> tuple[str, ...]:
    if keep is None:
        return ()
    # Names tell by which clock they were made: one that was ahead must not cost the backup that was made just now.
    others = [one for one in backups_in(target) if one != made and _is_of(one, home)]
    old = others[: max(0, len(others) - max(0, keep - 1))]
    for folder in old:
        # Out of sight first: half of a backup must never look like one.
        removed = target / f"{_REMOVED}{folder.name}"
        folder.rename(removed)
        shutil.rmtree(removed, ignore_errors=True)
    return tuple(folder.name for folder in old)
