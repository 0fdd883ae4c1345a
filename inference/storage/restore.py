"""Making a home from a backup: proved whole first, put in place in one step, and never over another home."""

from __future__ import annotations

import fcntl
import os
import shutil
from pathlib import Path

from inference.journal.keeping import RESTORED_MARKER
from inference.storage.errors import BackupError
from inference.storage.manifest import MANIFEST, Manifest, check, digest_of


def restore(backup: Path, home: Path) -> Manifest:
    """
    Restore a backup into a home that does not exist yet, or is an empty folder.

    Raises:
        BackupError: The backup is not whole, the home holds anything, or the disk refuses; nothing was changed.
    """
    _require_free(home)
    manifest = check(backup)
    partial = home.parent / f".{home.name}.restoring-{os.getpid()}"
    try:
        home.parent.mkdir(parents=True, exist_ok=True)
        try:
            partial.mkdir(mode=0o700)
            for name, note in manifest.files.items():
                target = partial / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(backup / name, target)
                _make_durable(target)
                # What was proved is the backup; what will be used is this copy.
                if digest_of(target) != note.sha256:
                    raise BackupError(f"{name} came out different on {home}; look at that disk. Nothing was restored")
            journals = partial / "journal"
            if journals.is_dir():
                (journals / RESTORED_MARKER).write_text(backup.name)
                _make_durable(journals / RESTORED_MARKER)
            for folder, _, _ in os.walk(partial):
                _make_durable(Path(folder))
            _require_free(home)
            # Over an empty folder this works, over any other it fails.
            partial.rename(home)
            _make_durable(home.parent)
        finally:
            shutil.rmtree(partial, ignore_errors=True)
    except OSError as error:
        raise BackupError(
            f"The backup could not be restored to {home}: {error.strerror or error}; nothing was changed there. Make "
            "room or give leave, and run it again"
        ) from error
    return manifest


def _require_free(home: Path) -> None:
    if home.is_symlink():
        raise BackupError(f"{home} is a link; name the folder itself")
    try:
        held = next(home.iterdir(), None)
    except FileNotFoundError:
        return
    except OSError as error:
        raise BackupError(f"{home} cannot hold a home: {error.strerror}; name another with --home") from error
    if held is None:
        return
    if (home / MANIFEST).exists():
        raise BackupError(f"{home} is itself a backup; name the home to make with --home")
    if _is_written(home / "journal" / "journal.lock"):
        raise BackupError(f"A worker runs in {home}: stop it first (`qtctl down`), then move {home} away")
    raise BackupError(f"{home} is not empty, and nothing is written over: move it away, or name another with --home")


def _is_written(lock: Path) -> bool:
    """Whether somebody holds a journal's lock."""
    try:
        descriptor = os.open(lock, os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _make_durable(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
