"""The store of policies: every version in a SQLite file, with a JSON snapshot beside it."""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from feature_store.files import replacing
from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.policy.versions import (
    FORMAT,
    PolicyConflictError,
    PolicyStoreError,
    PolicyVersion,
    Source,
    StoreFault,
    chained,
    damaged,
    entry_text,
    newest_of_snapshot,
    next_version,
    snapshot_text,
    version_of,
    versions_of_snapshot,
)

_BUSY_SECONDS = 5.0
_PATIENCE_SECONDS = 0.02
_TABLE = "CREATE TABLE IF NOT EXISTS version (number INTEGER PRIMARY KEY, entry TEXT NOT NULL)"


class PolicyStore:
    """
    All versions of one deployment's policy, the newest one in force.

    A version is made in one transaction, by one process at a time, or not at all. The snapshot is written beside it,
    whole: from it a damaged store is made again. What is read is checked: nobody gets rules that nobody wrote.
    """

    def __init__(self, folder: Path, *, now_ms: Callable[[], int], busy_seconds: float = _BUSY_SECONDS) -> None:
        self.path = folder / "policy.db"
        self.snapshot = folder / "policy.json"
        self._lock = folder / "policy.lock"
        self._now_ms = now_ms
        self._busy_seconds = busy_seconds

    @property
    def exists(self) -> bool:
        """Whether there ever was a version."""
        return self.path.exists() or self.snapshot.exists()

    def signature(self) -> tuple[int, ...]:
        """Return numbers that change with the file; nothing is read."""
        try:
            found = self.path.stat()
        except OSError:
            return ()
        return (found.st_mtime_ns, found.st_size, found.st_ino)

    def newest(self) -> PolicyVersion | None:
        """
        Return the version in force, None where there never was one.

        Raises:
            PolicyStoreError: It cannot be known.
        """
        if not self.exists:
            return None
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT number, entry, (SELECT count(*) FROM version) FROM version ORDER BY number DESC LIMIT 1"
            ).fetchall()
        kept = self._kept()
        if not rows:
            raise damaged("it holds no version")
        number, entry, count = rows[0]
        found = version_of(_as_text(entry))
        if not found.number == number == count:
            raise damaged(f"version {number} is version {found.number} of {count}")
        self._require_not_behind(found, kept)
        return found

    def history(self) -> tuple[PolicyVersion, ...]:
        """
        Return every version, the first one first.

        Raises:
            PolicyStoreError: One of them is missing or was changed.
        """
        if not self.exists:
            return ()
        with self._reading() as connection:
            versions = _all(connection)
        if not versions:
            raise damaged("it holds no version")
        self._require_not_behind(versions[-1], self._kept())
        return versions

    def version(self, number: int) -> PolicyVersion:
        """
        Return one version.

        Raises:
            PolicyError: There is no such version.
            PolicyStoreError: The store cannot be read.
        """
        versions = self.history()
        if not 1 <= number <= len(versions):
            known = f"there are 1 to {len(versions)}" if versions else "there are none yet"
            raise PolicyError(f"There is no policy version {number}; {known}, see `qtctl policy history`")
        return versions[number - 1]

    def append(
        self, policy: Policy, *, expected: int, author: str, reason: str, source: Source, of: str = ""
    ) -> PolicyVersion:
        """
        Make a version, the one after `expected`, which the caller has seen; 0 is before the first.

        Raises:
            PolicyConflictError: Another version has been made since.
            PolicyError: It changes nothing, or does not say who made it and why.
            PolicyStoreError: The store cannot be read or written; nothing was changed.
        """
        with self._locked():
            versions = self.history()
            before = versions[-1] if versions else None
            at = before.number if before is not None else 0
            if at != expected:
                raise PolicyConflictError(
                    f"The policy is at version {at}, not {expected}: it was changed meanwhile; see"
                    f" `qtctl policy diff {expected} {at}`, then try again"
                )
            made = next_version(
                before, policy, author=author, reason=reason, made_ms=self._now_ms(), source=source, of=of
            )
            with self._replacing_snapshot((*versions, made)), self._writing() as connection:
                connection.execute("INSERT INTO version VALUES (?, ?)", (made.number, entry_text(made)))
        return made

    def rollback(self, number: int, *, expected: int, author: str, reason: str) -> PolicyVersion:
        """
        Make a version that equals an earlier one; see `append`.

        Raises:
            PolicyError: There is no such version, or it says what the newest one does.
            PolicyConflictError: Another version has been made since.
            PolicyStoreError: The store cannot be read or written.
        """
        policy = self.version(number).policy
        return self.append(
            policy, expected=expected, author=author, reason=reason, source=Source.ROLLBACK, of=str(number)
        )

    def last_good(self) -> PolicyVersion:
        """
        Return the newest version of the snapshot.

        Raises:
            PolicyStoreError: There is none that can be trusted.
        """
        return self.kept()[-1]

    def kept(self) -> tuple[PolicyVersion, ...]:
        """
        Return every version of the snapshot, the first one first.

        Raises:
            PolicyStoreError: There is none that can be trusted.
        """
        return versions_of_snapshot(self._snapshot_bytes())

    def back_up(self) -> bool:
        """
        Write the snapshot where it is missing, damaged or behind; return whether it was.

        Raises:
            PolicyStoreError: The store cannot be read, or the snapshot not be written.
        """
        if not self.exists:
            return False
        with self._locked():
            versions = self.history()
            kept = self._kept()
            if kept is not None and kept.digest == versions[-1].digest:
                return False
            with self._replacing_snapshot(versions):
                pass
        return True

    def recover(self) -> tuple[PolicyVersion, Path | None]:
        """
        Make the store again from its snapshot; return what is in force then, and where the damaged file was put.

        Raises:
            PolicyError: The store is whole: there is nothing to recover.
            PolicyStoreError: The snapshot cannot be trusted either.
        """
        with self._locked():
            try:
                found = self.history()
            except PolicyStoreError as error:
                if error.fault in (StoreFault.BUSY, StoreFault.NEWER):
                    raise
            else:
                told = f"version {found[-1].number} is in force" if found else "there is none yet"
                raise PolicyError(f"The policy store is whole, nothing was done: {told}")
            versions = versions_of_snapshot(self._snapshot_bytes())
            aside = None
            try:
                # A journal that a crash left belongs to the damaged file, and would be played into the new one.
                for suffix in ("-journal", "-wal", "-shm", ""):
                    old = self.path.with_name(self.path.name + suffix)
                    if old.exists():
                        aside = old.with_name(f"{self.path.name}.damaged-{self._now_ms()}{suffix}")
                        old.rename(aside)
            except OSError as error:
                raise _unusable(self.path, error) from error
            with self._writing() as connection:
                connection.executemany(
                    "INSERT INTO version VALUES (?, ?)", [(one.number, entry_text(one)) for one in versions]
                )
        return versions[-1], aside

    def _require_not_behind(self, found: PolicyVersion, kept: PolicyVersion | None) -> None:
        if kept is not None and (
            kept.number > found.number or (kept.number == found.number and kept.digest != found.digest)
        ):
            raise PolicyStoreError(
                StoreFault.BEHIND,
                f"The policy store ends with version {found.number}, its snapshot with another, {kept.number}: a file"
                " of before was put in its place; put the right one back, or run `qtctl policy recover`",
            )

    def _kept(self) -> PolicyVersion | None:
        try:
            return newest_of_snapshot(self._snapshot_bytes())
        except PolicyStoreError:
            # A snapshot that is lost is written again; what is in force does not depend on it.
            return None

    def _snapshot_bytes(self) -> bytes:
        try:
            return self.snapshot.read_bytes()
        except OSError as error:
            raise PolicyStoreError(
                StoreFault.UNREADABLE, f"The policy's snapshot {self.snapshot} cannot be read: {error.strerror}"
            ) from error

    @contextmanager
    def _replacing_snapshot(self, versions: tuple[PolicyVersion, ...]) -> Iterator[None]:
        # On disk before the transaction is, in its place only after it: a crash leaves a snapshot that is one behind.
        try:
            with replacing(self.snapshot) as temporary:
                temporary.write_bytes(snapshot_text(versions))
                yield
        except OSError as error:
            raise _unusable(self.snapshot, error) from error

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Be the only process that writes; a lock that its holder left behind is none."""
        try:
            self._lock.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError as error:
            raise _unusable(self._lock, error) from error
        try:
            self._wait_for(handle)
            yield
        finally:
            os.close(handle)

    def _wait_for(self, handle: int) -> None:
        for _ in range(max(1, int(self._busy_seconds / _PATIENCE_SECONDS))):
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                time.sleep(_PATIENCE_SECONDS)
            else:
                return
        raise PolicyStoreError(StoreFault.BUSY, "Another process changes the policy just now; try again")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            raise PolicyStoreError(
                StoreFault.MISSING,
                f"The policy store {self.path} is gone, its snapshot is there; put it back, or run"
                " `qtctl policy recover`",
            )
        with self._connected("rw") as connection:
            yield connection

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        if not self.path.exists():
            self._begin()
        with self._connected("rwc") as connection:
            connection.execute("PRAGMA synchronous = FULL")
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(_TABLE)
            connection.execute(f"PRAGMA user_version = {FORMAT}")
            yield connection
            connection.execute("COMMIT")

    def _begin(self) -> None:
        """Make an empty store, whole: whoever reads meanwhile finds none, or one with its table."""
        fresh = self.path.with_name(f".{self.path.name}.new")
        try:
            fresh.unlink(missing_ok=True)
            with closing(sqlite3.connect(fresh, isolation_level=None)) as connection:
                connection.execute("BEGIN")
                connection.execute(_TABLE)
                connection.execute(f"PRAGMA user_version = {FORMAT}")
                connection.execute("COMMIT")
            fresh.replace(self.path)
        except (OSError, sqlite3.Error) as error:
            raise PolicyStoreError(
                StoreFault.UNREADABLE, f"The policy store {self.path} cannot be read or written: {error}"
            ) from error

    @contextmanager
    def _connected(self, mode: str) -> Iterator[sqlite3.Connection]:
        address = f"{self.path.absolute().as_uri()}?mode={mode}"
        try:
            with closing(
                sqlite3.connect(address, uri=True, timeout=self._busy_seconds, isolation_level=None)
            ) as connection:
                (found,) = connection.execute("PRAGMA user_version").fetchone()
                if found > FORMAT:
                    raise PolicyStoreError(
                        StoreFault.NEWER,
                        f"The policy store {self.path} has format {found}, this program reads {FORMAT}; update it",
                    )
                yield connection
        except sqlite3.OperationalError as error:
            if "locked" in str(error) or "busy" in str(error):
                raise PolicyStoreError(StoreFault.BUSY, f"The policy store is being changed: {error}") from error
            if "no such table" in str(error):
                raise damaged(str(error)) from error
            raise PolicyStoreError(
                StoreFault.UNREADABLE, f"The policy store {self.path} cannot be read or written: {error}"
            ) from error
        except sqlite3.Error as error:
            raise damaged(str(error)) from error


def _all(connection: sqlite3.Connection) -> tuple[PolicyVersion, ...]:
    rows = connection.execute("SELECT entry FROM version ORDER BY number").fetchall()
    return chained(version_of(_as_text(entry)) for (entry,) in rows)


def _as_text(entry: object) -> str | bytes:
    if not isinstance(entry, str | bytes):
        raise damaged(f"a version is {type(entry).__name__}, not text")
    return entry


def _unusable(path: Path, error: OSError) -> PolicyStoreError:
    return PolicyStoreError(
        StoreFault.UNREADABLE, f"{path} cannot be written: {error.strerror or error}; nothing was changed"
    )
