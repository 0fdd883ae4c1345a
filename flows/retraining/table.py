"""The table of retraining jobs and of their finished steps: one SQLite file of the home."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec

from feature_store.errors import CorruptFileError
from flows.retraining.job import Job, JobError, JobKind, Trigger, job_id_of

_BUSY_S = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS retraining_jobs (
    job_id VARCHAR(100) PRIMARY KEY,
    type VARCHAR(20) NOT NULL CHECK (type IN ('full', 'incremental')),
    status VARCHAR(20) NOT NULL CHECK (status IN ('queued', 'running', 'resumed', 'succeeded', 'failed')),
    trigger VARCHAR(20) NOT NULL CHECK (trigger IN ('schedule', 'drift', 'degradation', 'demand')),
    models JSON NOT NULL,
    kept JSON NOT NULL,
    parameters JSON NOT NULL,
    queued_at TIMESTAMP NOT NULL,
    started_at TIMESTAMP,
    completed_at TIMESTAMP,
    metrics JSON,
    version TEXT,
    run_id TEXT,
    replaced TEXT,
    promoted INTEGER,
    reasons JSON NOT NULL,
    error_message TEXT,
    resumes INTEGER NOT NULL,
    pid INTEGER
);
CREATE TABLE IF NOT EXISTS retraining_steps (
    job_id VARCHAR(100) NOT NULL REFERENCES retraining_jobs (job_id) ON DELETE CASCADE,
    step TEXT NOT NULL,
    value TEXT NOT NULL,
    completed_at TIMESTAMP NOT NULL,
    PRIMARY KEY (job_id, step)
);
"""
# The same in the words of other systems, for those whose queries know a job by them.
_VIEW = """
CREATE VIEW IF NOT EXISTS jobs AS SELECT
    job_id,
    upper(type) AS type,
    CASE status WHEN 'queued' THEN 'PENDING' WHEN 'succeeded' THEN 'SUCCESS' WHEN 'failed' THEN 'FAILED'
        ELSE 'RUNNING' END AS status,
    models, started_at, completed_at, metrics, error_message
FROM retraining_jobs;
"""
_JSON = frozenset({"models", "kept", "parameters", "metrics", "reasons"})
_COLUMNS = tuple(field.name for field in msgspec.structs.fields(Job))


class JobTable:
    """
    All jobs of one home.

    Write-ahead logging, and a commit with fsync for each change: what a reader sees has happened, and a process that is
    killed loses no step that it finished.
    """

    def __init__(self, path: Path) -> None:
        """Nothing is opened or made yet."""
        self.path = path

    def exists(self) -> bool:
        """Whether there was ever a job in this home."""
        return self.path.exists()

    def add(
        self, kind: JobKind, trigger: Trigger, models: tuple[str, ...], parameters: dict[str, Any], now: datetime
    ) -> Job:
        """Queue a job under an id of its own."""
        moment = now
        while True:
            job = Job(
                job_id=job_id_of(moment), type=kind, status="queued", trigger=trigger, models=models,
                parameters=parameters, queued_at=now,
            )  # fmt: skip
            try:
                with self._open() as database:
                    marks = ", ".join("?" for _ in _COLUMNS)
                    values = [_stored(name, getattr(job, name)) for name in _COLUMNS]
                    database.execute(f"INSERT INTO retraining_jobs ({', '.join(_COLUMNS)}) VALUES ({marks})", values)  # noqa: S608 - our own column names
            except sqlite3.IntegrityError:
                # Another was ordered within the same second.
                moment += timedelta(seconds=1)
            else:
                return job

    def change(self, job_id: str, **changes: Any) -> Job:
        """Change some fields of a job and return it as it is then."""
        names = ", ".join(f"{name} = ?" for name in changes)
        with self._open() as database:
            values = [_stored(name, value) for name, value in changes.items()]
            database.execute(f"UPDATE retraining_jobs SET {names} WHERE job_id = ?", [*values, job_id])  # noqa: S608 - as above
        return self.job(job_id)

    def remove(self, job_id: str) -> None:
        """Take a job out that never began."""
        with self._open() as database:
            database.execute("DELETE FROM retraining_jobs WHERE job_id = ?", [job_id])

    def job(self, job_id: str) -> Job:
        """
        Return one job.

        Raises:
            JobError: There is none of that id.
        """
        found = self._jobs("WHERE job_id = ?", job_id) if self.exists() else []
        if not found:
            raise JobError(f"There is no job {job_id!r} in {self.path}; `qtctl jobs` lists those that are there")
        return found[0]

    def jobs(self, limit: int = 1000) -> list[Job]:
        """Return the newest jobs, the newest first."""
        return self._jobs("ORDER BY queued_at DESC, job_id DESC LIMIT ?", limit) if self.exists() else []

    def finish_step(self, job_id: str, step: str, value: Any, now: datetime) -> None:
        """Keep what a step came to; from here on it is never done again in this job."""
        with self._open() as database:
            database.execute(
                "INSERT OR REPLACE INTO retraining_steps VALUES (?, ?, ?, ?)",
                [job_id, step, msgspec.json.encode(value).decode(), now.isoformat()],
            )

    def steps(self, job_id: str) -> dict[str, bytes]:
        """Return what the finished steps of a job came to, as JSON, in the order in which they ended."""
        with self._open() as database:
            rows = database.execute(
                "SELECT step, value FROM retraining_steps WHERE job_id = ? ORDER BY completed_at, rowid", [job_id]
            ).fetchall()
        return {step: value.encode() for step, value in rows}

    def forget_steps(self, job_id: str) -> None:
        """Remove the steps of a job that will not go on."""
        with self._open() as database:
            database.execute("DELETE FROM retraining_steps WHERE job_id = ?", [job_id])

    def _jobs(self, rest: str, *values: object) -> list[Job]:
        with self._open() as database:
            rows = database.execute(f"SELECT {', '.join(_COLUMNS)} FROM retraining_jobs {rest}", values).fetchall()  # noqa: S608 - as above
        return [_read(row) for row in rows]

    @contextlib.contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            database = sqlite3.connect(self.path, timeout=_BUSY_S)
            try:
                database.execute("PRAGMA journal_mode = WAL")
                database.execute("PRAGMA synchronous = FULL")
                database.execute("PRAGMA foreign_keys = ON")
                database.executescript(_SCHEMA + _VIEW)
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.IntegrityError:
            raise
        except sqlite3.DatabaseError as error:
            if isinstance(error, sqlite3.OperationalError) and "disk" not in str(error):
                raise JobError(f"The job table {self.path} cannot be used: {error}; look at who holds it") from error
            remedy = "Move it aside: jobs are counted anew, and no model is lost by that"
            raise CorruptFileError(self.path, str(error), remedy) from error


def _stored(name: str, value: Any) -> Any:
    if value is None:
        return None
    if name in _JSON:
        return msgspec.json.encode(value).decode()
    return value.isoformat() if isinstance(value, datetime) else value


def _read(row: tuple[Any, ...]) -> Job:
    values = {
        name: msgspec.json.decode(value) if name in _JSON and value is not None else value
        for name, value in zip(_COLUMNS, row, strict=True)
    }
    values["promoted"] = None if values["promoted"] is None else bool(values["promoted"])
    return msgspec.convert({name: value for name, value in values.items() if value is not None}, Job, strict=False)
