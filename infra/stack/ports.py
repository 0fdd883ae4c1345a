"""Which local ports are free, and who holds the others."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

import psutil

HOST = "127.0.0.1"


def is_free(port: int) -> bool:
    """Tell whether a server could listen on this local port now."""
    with socket.socket() as probe:
        # Servers set the same option, so a port left in TIME_WAIT counts as free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """Return a port that the system hands out as free."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def holder(port: int) -> str:
    """Name the program that listens on a local port, as far as we may see it."""
    try:
        connections = psutil.net_connections(kind="tcp")
    except psutil.AccessDenied:
        return "another program"
    for connection in connections:
        listens = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if listens and connection.pid:
            try:
                return f"{psutil.Process(connection.pid).name()} (process {connection.pid})"
            except psutil.Error:
                break
    return "another program"


def is_listening(members: Iterable[psutil.Process], port: int) -> bool:
    """Tell whether one of some processes listens on a port."""
    for process in members:
        with contextlib.suppress(psutil.Error):
            for connection in process.net_connections(kind="tcp"):
                address = connection.laddr
                if connection.status == psutil.CONN_LISTEN and address and address.port == port:
                    return True
    return False


def reserve(port: int) -> int | None:
    """
    Keep other stacks of this user from choosing a port while our server is on its way to it.

    Returns:
        A file descriptor to close once the server listens; the kernel closes it for a command that ends, however it
        ends. None where another stack reserved the port first.
    """
    folder = Path(tempfile.gettempdir()) / f"quantum-trader-ports-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    reservation = os.open(folder / str(port), os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(reservation, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(reservation)
        return None
    return reservation
