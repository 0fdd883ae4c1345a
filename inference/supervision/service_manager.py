"""Readiness and life signs for systemd, over the socket it names; without one nothing is sent."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Mapping


class ServiceManager:
    """Speaks sd_notify: `READY=1`, `WATCHDOG=1`, `STATUS=…`, `STOPPING=1`."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")
        if self._address.startswith("@"):
            self._address = "\0" + self._address[1:]
        watchdog = environment.get("WATCHDOG_USEC", "")
        self.watchdog_seconds = int(watchdog) / 1_000_000 if watchdog.isdigit() else None

    def ready(self, status: str) -> None:
        """Say that the worker has started."""
        self._send(f"READY=1\nSTATUS={status}")

    def alive(self, status: str) -> None:
        """Say that the loop still turns."""
        self._send(f"WATCHDOG=1\nSTATUS={status}")

    def stopping(self) -> None:
        """Say that the worker is going down on purpose."""
        self._send("STOPPING=1")

    def _send(self, message: str) -> None:
        if not self._address:
            return
        # A service manager that does not listen must not stop a worker that trades.
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as connection:
            connection.sendto(message.encode(), self._address)
