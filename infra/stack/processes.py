"""Our processes: how one is started, recognised as ours and ended with everything it started."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from time import sleep

import psutil

from feature_store.clock import monotonic

MARK = "QT_STACK_ID"
SERVICE = "QT_STACK_SERVICE"
# Creation times are read with clock ticks of 10 ms; a corrected wall clock moves them together by more.
_CREATE_TIME_TOLERANCE_S = 2.0
_PARENT_PATIENCE_S = 7.0


def start(command: Sequence[str], *, environment: Mapping[str, str], directory: Path, log: Path) -> int:
    """Start a process in a session of its own, with all output in its log, and return its pid; it outlives us."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(
            list(command),
            env=dict(environment),
            cwd=directory,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    # Outliving us is the point; without this the object would complain when it is forgotten.
    process.returncode = 0
    return process.pid


def exit_status(pid: int) -> int | None:
    """Return the status with which our child ended, or None while it runs."""
    try:
        ended, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return -1
    return os.waitstatus_to_exitcode(status) if ended else None


def _mark_of(process: psutil.Process) -> tuple[str, str] | None:
    try:
        if process.status() == psutil.STATUS_ZOMBIE:
            return None
        environment = process.environ()
    except (psutil.Error, OSError):
        return None
    if MARK not in environment:
        return None
    return environment[MARK], environment.get(SERVICE, "")


def find(pid: int, create_time: float, stack_id: str) -> psutil.Process | None:
    """Return the recorded process if it still runs and is ours; a recycled pid is never ours."""
    try:
        process = psutil.Process(pid)
        if abs(process.create_time() - create_time) > _CREATE_TIME_TOLERANCE_S:
            return None
    except psutil.Error:
        return None
    mark = _mark_of(process)
    return process if mark and mark[0] == stack_id else None


def marked(stack_id: str, services: Iterable[str] | None = None) -> list[psutil.Process]:
    """Return every process that carries the stack's mark, also those whose parents are gone."""
    wanted = None if services is None else set(services)
    found = []
    for process in psutil.process_iter():
        if process.pid == os.getpid():
            continue
        mark = _mark_of(process)
        if mark and mark[0] == stack_id and (wanted is None or mark[1] in wanted):
            found.append(process)
    return found


def service_of(process: psutil.Process) -> str:
    """Name the service a marked process belongs to."""
    mark = _mark_of(process)
    return mark[1] if mark else ""


def end(stack_id: str, service: str, grace_s: float) -> list[int]:
    """
    End a service with everything it started: ask, wait, then insist.

    Flow runs live in sessions of their own, so the mark in the environment, not the process group, says what is ours.

    Returns:
        The pids that had to be killed, but for those whose parent belongs to the service too: a computation has no
        duty to listen, and a parent that only waits for it ends by itself.
    """
    members = marked(stack_id, [service])
    _signal(members, signal.SIGTERM)
    _wait(members, grace_s)
    # A process that was starting children while we asked may have left some unasked.
    alive = marked(stack_id, [service])
    children = _children_among(alive)
    _signal(children, signal.SIGKILL)
    _wait(alive, _PARENT_PATIENCE_S)  # Also for one without children: on a busy machine saying goodbye takes longer.
    deaf = marked(stack_id, [service])
    _signal(deaf, signal.SIGKILL)
    _wait(deaf, 5.0)
    return [process.pid for process in deaf]


def _children_among(members: Sequence[psutil.Process]) -> list[psutil.Process]:
    pids = {process.pid for process in members}
    children = []
    for process in members:
        with contextlib.suppress(psutil.Error):
            if process.ppid() in pids:
                children.append(process)
    return children


def _wait(members: Iterable[psutil.Process], patience_s: float) -> None:
    """Wait until each has ended; one that only waits for its parent to notice counts as ended."""
    deadline = monotonic() + patience_s
    running = list(members)
    while running := [process for process in running if not _has_ended(process)]:
        if monotonic() > deadline:
            return
        sleep(0.05)


def _has_ended(process: psutil.Process) -> bool:
    try:
        ended = process.status() == psutil.STATUS_ZOMBIE
    except psutil.Error:
        return True
    if ended:
        exit_status(process.pid)
    return ended


def _signal(processes: Iterable[psutil.Process], number: signal.Signals) -> None:
    for process in processes:
        with contextlib.suppress(psutil.Error):
            process.send_signal(number)


def tail(log: Path, lines: int = 12, most_bytes: int = 16_384) -> str:
    """Return the last lines of a log, or nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - most_bytes))
            text = file.read().decode(errors="replace")
    except OSError:
        return ""
    return "\n".join(text.splitlines()[-lines:])
