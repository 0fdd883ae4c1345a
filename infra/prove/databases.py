"""Redis and PostgreSQL servers of a proof's own, which it may kill, freeze and start again."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Self

from infra.prove.stage import ProofError, wait_until
from infra.stack.ports import HOST, any_free

_PATIENCE_S = 30.0
# Where Debian's package keeps the programs that it does not put on the path.
_POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))


class _Server(ABC):
    """A process on a port of its own that keeps its data in a folder."""

    def __init__(self, name: str, log: Path) -> None:
        self.port = any_free()
        self._name = name
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        """Start it."""
        self.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it."""
        self.kill()

    def start(self) -> None:
        """Start it, and wait until it can be reached."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                self._command(), stdout=log, stderr=log, cwd="/tmp", start_new_session=True
            )
        wait_until(self._answers, seconds=_PATIENCE_S, what=self._name)

    def kill(self) -> None:
        """End it as a crash does."""
        process, self._process = self._process, None
        if process is not None and process.poll() is None:
            process.kill()
            process.wait(_PATIENCE_S)

    def freeze(self, *, on: bool) -> None:
        """Let it stand still, its connections open, or go on."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP if on else signal.SIGCONT)

    @abstractmethod
    def _command(self) -> list[str]:
        """Return the program to start, with its arguments."""

    def _answers(self) -> bool:
        with socket.socket() as probe:
            probe.settimeout(1.0)
            return probe.connect_ex((HOST, self.port)) == 0


class RedisServer(_Server):
    """Keeps an append-only file, unless that is thrown away."""

    def __init__(self, folder: Path) -> None:
        """
        Choose a port; nothing starts yet.

        Raises:
            ProofError: The server is not installed.
        """
        folder.mkdir(parents=True, exist_ok=True)
        super().__init__("the Redis server", folder / "redis.log")
        self._folder = folder
        program = shutil.which("redis-server")
        if program is None:
            raise ProofError("This proof needs Debian's package redis-server")
        self._program = program

    @property
    def url(self) -> str:
        """Its address."""
        return f"redis://{HOST}:{self.port}/0"

    def forget(self) -> None:
        """Throw away what it has on its disk, while it does not run."""
        shutil.rmtree(self._folder / "appendonlydir", ignore_errors=True)

    def _command(self) -> list[str]:
        options = ["--port", str(self.port), "--bind", HOST, "--save", "", "--appendonly", "yes"]
        return [self._program, *options, "--dir", str(self._folder)]

    def _answers(self) -> bool:
        # It takes connections while it still reads its file, and answers nothing else then.
        with socket.socket() as probe:
            probe.settimeout(1.0)
            if probe.connect_ex((HOST, self.port)) != 0:
                return False
            probe.sendall(b"PING\r\n")
            try:
                return probe.recv(64).startswith(b"+PONG")
            except TimeoutError:
                return False


class PostgresServer(_Server):
    """A cluster of its own, outside the home, as root has to hand it to another user."""

    def __init__(self) -> None:
        """
        Make a cluster; nothing starts yet.

        Raises:
            ProofError: The server is not installed.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="qt-proof-pg-"))
        super().__init__("the PostgreSQL server", self._folder.with_suffix(".log"))
        self._owner = [] if os.geteuid() else ["runuser", "-u", "postgres", "--"]
        if self._owner:
            shutil.chown(self._folder, "postgres")
        make = [*self._owner, _program("initdb"), "-D", str(self._folder / "data"), "-A", "trust", "-U", "qt"]
        subprocess.run(make, check=True, cwd="/tmp", stdout=subprocess.DEVNULL)

    @property
    def url(self) -> str:
        """Its address."""
        return f"postgresql://qt@{HOST}:{self.port}/postgres"

    def crash(self) -> None:
        """End it at once, with nothing put in order: what it has to repair when it is started again."""
        if self._process is None:
            return
        # Who started it for another user passes no such signal on.
        number = int((self._folder / "data" / "postmaster.pid").read_text().split()[0])
        os.kill(number, signal.SIGQUIT)
        self._process.wait(_PATIENCE_S)
        self._process = None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """End it and take its files away."""
        self.crash()
        shutil.rmtree(self._folder, ignore_errors=True)
        self._log.unlink(missing_ok=True)

    def _command(self) -> list[str]:
        options = ["-p", str(self.port), "-h", HOST, "-k", str(self._folder)]
        return [*self._owner, _program("postgres"), "-D", str(self._folder / "data"), *options]

    def _answers(self) -> bool:
        asked = [_program("pg_isready"), "-h", HOST, "-p", str(self.port)]
        return subprocess.run(asked, check=False, capture_output=True).returncode == 0


def _program(name: str) -> str:
    found = shutil.which(name) or next((str(one / name) for one in _POSTGRES if (one / name).exists()), None)
    if found is None:
        raise ProofError("This proof needs Debian's package postgresql")
    return found
