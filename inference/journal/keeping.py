"""Taking a day of a daily journal away, whole: whoever reads needs no writer for it."""

from __future__ import annotations

import fcntl
import glob
import os
from pathlib import Path

from inference.journal.head import Head

# Beside a journal that was put back from a backup, until a worker has journaled that.
RESTORED_MARKER = "restored"
_SET_ASIDE = ".before-restore-"


def set_aside_name(anchor: Path, head: Head) -> Path:
    """Return where an anchor of before a restore is kept; each head has a file of its own."""
    return anchor.with_name(f"{anchor.name}{_SET_ASIDE}{head.seq}-{head.digest[:8]}")


def set_aside_beside(anchor: Path) -> list[Path]:
    """Return the anchors of before restores that nobody has deleted yet."""
    return sorted(anchor.parent.glob(f"{glob.escape(anchor.name)}{_SET_ASIDE}*"))


def parts_of_day(path: Path) -> list[Path]:
    """
    Return every file of a day's journal that exists, in the order in which they are taken away.

    Wherever a crash cuts that short, what is left is a whole journal without its anchor, or none at all.
    """
    torn = sorted(path.parent.glob(f"{path.stem}.torn-*"))
    parts = [path.with_suffix(".head"), *torn, path, path.with_suffix(".lock")]
    return [part for part in parts if part.exists()]


def remove_day(path: Path) -> bool:
    """
    Take a day's journal away; return False, and leave it, where somebody writes it.

    Raises:
        OSError: A file cannot be taken away; what has gone until then has gone.
    """
    lock = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for part in parts_of_day(path):
            part.unlink(missing_ok=True)
    except BlockingIOError:
        return False
    finally:
        os.close(lock)
    return True
