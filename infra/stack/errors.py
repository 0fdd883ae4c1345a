"""What can go wrong while the local stack starts, runs or stops; each error is one clear sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

from feature_store.errors import QuantumError

if TYPE_CHECKING:
    from pathlib import Path


class StackError(QuantumError):
    """The local stack cannot do what was asked; the message says why and what to do."""


class ServiceFailedError(StackError):
    """A service ended, or did not become healthy in time."""

    def __init__(self, name: str, found: str, log: Path, tail: str) -> None:
        shown = "\n".join(f"    {line}" for line in tail.splitlines())
        last = f"\n  The last lines of its log:\n{shown}" if shown else ""
        super().__init__(f"Service {name} {found}; read {log} for the whole story.{last}")
        self.name = name


class PortTakenError(StackError):
    """Another program began to listen on a service's port while the service was starting."""

    def __init__(self, name: str, port: int) -> None:
        super().__init__(f"Another program took port {port} while {name} was starting; run the command again")
        self.name = name
        self.port = port


class StackBusyError(StackError):
    """Another command is changing the same stack at this moment."""


class ServiceDownError(StackError):
    """A server of the stack does not answer a request."""
