"""Where the local stack keeps what it writes, and where its programs are."""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from pathlib import Path

from infra.stack.errors import StackError

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Home:
    """One QUANTUM_HOME folder and the places in it."""

    root: Path

    @property
    def logs(self) -> Path:
        """Each service's output, one file per service."""
        return self.root / "logs"

    @property
    def record(self) -> Path:
        """The record of which processes are ours."""
        return self.root / "stack.json"

    @property
    def demo_mark(self) -> Path:
        """Here while a demonstration is under way, and still here after one that was interrupted."""
        return self.root / ".demo.unfinished"

    @property
    def prefect(self) -> Path:
        """Prefect's home: profiles, results and its SQLite file."""
        return self.root / "prefect"

    @property
    def prefect_database(self) -> Path:
        """Prefect's SQLite file."""
        return self.prefect / "prefect.db"

    @property
    def mlflow_database(self) -> Path:
        """MLflow's SQLite file."""
        return self.mlflow / "mlflow.db"

    @property
    def mlflow(self) -> Path:
        """MLflow's SQLite file and artifacts."""
        return self.root / "mlflow"

    @property
    def sandbox(self) -> Path:
        """The sandbox exchange's saved state."""
        return self.root / "sandbox"

    @property
    def worker_status(self) -> Path:
        """The inference worker's heartbeat and live figures."""
        return self.root / "worker" / "status.json"

    @property
    def shadow_status(self) -> Path:
        """What the shadow worker says of itself, where one runs."""
        return self.root / "shadow" / "status.json"

    @property
    def tables_status(self) -> Path:
        """What the follower of the journal says of itself, where one makes tables."""
        return self.root / "database" / "status.json"

    @property
    def journal(self) -> Path:
        """The inference worker's record."""
        return self.root / "journal" / "journal.jsonl"

    def prepare(self) -> None:
        """
        Create the folders that every service expects.

        Raises:
            StackError: The home cannot be written.
        """
        try:
            for folder in (self.logs, self.prefect, self.mlflow, self.mlflow / "artifacts", self.sandbox):
                folder.mkdir(parents=True, exist_ok=True)
            probe = self.root / f".write-probe-{os.getpid()}"
            try:
                # A full disk still makes empty files.
                probe.write_bytes(b"probe")
            finally:
                probe.unlink(missing_ok=True)
        except OSError as error:
            raise self.unwritable(error) from error

    def unwritable(self, error: OSError) -> StackError:
        """Say in one sentence that something could not be written here, and what helps."""
        found = error.strerror or str(error)
        if error.errno in _FULL:
            return StackError(
                f"No more can be written to QUANTUM_HOME {self.root} ({found}); "
                "free some space, or set QUANTUM_HOME to a folder on another disk"
            )
        return StackError(
            f"Cannot write to QUANTUM_HOME {self.root}: {found}; "
            "make it writable, or set QUANTUM_HOME to a folder that is"
        )


def home_from_environment() -> Home:
    """Return the home that QUANTUM_HOME names, by default the folder var of the current directory."""
    return Home(Path(os.environ.get("QUANTUM_HOME") or "var").resolve())


@dataclass(frozen=True, slots=True)
class Programs:
    """The two Python environments and the repository they serve."""

    repository: Path = REPOSITORY

    @property
    def pipeline_bin(self) -> Path:
        """Programs of the pipeline environment."""
        return self.repository / ".venv" / "bin"

    @property
    def worker_python(self) -> Path:
        """The interpreter of the light environment in which the inference worker runs."""
        return self.repository / ".venv-worker" / "bin" / "python"

    def check(self, *, with_worker: bool) -> None:
        """
        Refuse early, in one sentence, where an environment is missing.

        Raises:
            StackError: A program that the stack must start is not installed.
        """
        needed = [self.pipeline_bin / name for name in ("python", "prefect", "mlflow")]
        if with_worker:
            needed.append(self.worker_python)
        missing = [str(path.relative_to(self.repository)) for path in needed if not path.exists()]
        if missing:
            raise StackError(
                f"Not installed in {self.repository}: {', '.join(missing)}; run `make setup` (it needs Python 3.11)"
            )
