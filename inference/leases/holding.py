"""Who we are among the processes of this machine, and whether another one still lives."""

from __future__ import annotations

import hashlib
import os
import socket
from pathlib import Path

from inference.execution.lease import Holder

_PROC = Path("/proc")


def account_key(venue: str, url: str | None, api_key: str) -> str:
    """Return the name of an account; the key that opens it cannot be read from it."""
    digest = hashlib.sha256(f"{venue}|{(url or '').rstrip('/')}|{api_key}".encode()).hexdigest()
    return f"{venue}-{digest[:16]}"


def this_process(home: Path) -> Holder:
    """Return this process as a holder."""
    pid = os.getpid()
    return Holder(
        host=socket.gethostname(),
        pid=pid,
        started=_started(pid)[0],
        kernel=_kernel(),
        home=str(home.resolve()),
    )


def is_dead(holder: Holder) -> bool:
    """Whether the holder ran on this machine, as this process numbers processes, and provably runs no more."""
    kernel = _kernel()
    if not kernel or not holder.started or holder.kernel != kernel:
        return False
    try:
        os.kill(holder.pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        # Another user's process: it may be hidden from us, yet there is one.
        return False
    started, has_ended = _started(holder.pid)
    return has_ended or started not in ("", holder.started)


def _kernel() -> str:
    # A process number means something only under one running kernel, in one namespace of numbers.
    try:
        boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {(_PROC / 'self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> tuple[str, bool]:
    """Return when a process began, in ticks since the machine started, and whether it is only waiting to be buried."""
    try:
        # The program's name stands in brackets and may hold anything, brackets too.
        fields = (_PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return "", False
    return fields[19], fields[0] in ("Z", "X")
