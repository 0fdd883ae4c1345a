"""One retraining at a time in a home: whose turn it is, and whether who had it last is still alive."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from feature_store.clock import monotonic
from flows.retraining.job import JobError

if TYPE_CHECKING:
    from collections.abc import Iterator

_SECONDS_BETWEEN_LOOKS = 1.0


@contextmanager
def turn(path: Path, *, patience_s: float, waits: Callable[[str], None] = lambda _: None) -> Iterator[None]:
    """
    Hold the turn of a home until the context ends, or this process does.

    The kernel gives a lock back when its holder dies, so that nobody has to guess whether a process is still there.

    Args:
        path: The file that is locked; who holds it is written into it.
        patience_s: How many seconds to wait for another.
        waits: Told once who has it, where there is something to wait for.

    Raises:
        JobError: Another has it, and still had it when patience ended.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        began, told = monotonic(), False
        while not _locked(file):
            holder = f"process {path.read_text().strip() or 'unknown'}"
            if monotonic() - began >= patience_s:
                raise JobError(
                    f"Another retraining is under way in this home ({holder}), and one runs at a time; "
                    "`qtctl jobs` shows it. Run this again when it is over"
                )
            if not told:
                waits(holder)
                told = True
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        file.seek(0)
        file.truncate()
        file.write(str(os.getpid()))
        file.flush()
        yield


def is_held(path: Path) -> bool:
    """Tell whether a live process has the turn."""
    try:
        with path.open("r+") as file:
            if not _locked(file):
                return True
            fcntl.flock(file, fcntl.LOCK_UN)
    except FileNotFoundError:
        pass
    return False


def _locked(file: IO[str]) -> bool:
    try:
        # Not inherited by programs that are started: Python closes it there.
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
