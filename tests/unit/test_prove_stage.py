"""A proof's stage: what a killed proof left in its home is ended, and two proofs do not share one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.prove.stage import ProofError, Stage, end_left_over, hold_alone, left_over

_WAIT = "import time\nprint('on', flush=True)\ntime.sleep(600)"
_STUBBORN = f"import signal\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\n{_WAIT}"


@pytest.fixture
def begin() -> Iterator:
    """Return a function that starts a process in a home and waits until it runs."""
    started: list[subprocess.Popen[str]] = []

    def start(home: Path, code: str = _WAIT) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-S", "-c", code], env={"QUANTUM_HOME": str(home)}, stdout=subprocess.PIPE, text=True
        )
        started.append(process)
        assert process.stdout.readline() == "on\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.wait(30)
        process.stdout.close()


def test_what_was_left_in_a_home_ends_and_no_other(begin, tmp_path):
    """A worker of the same home, one below it and one that ignores the request end; a home with a longer name lives."""
    home = tmp_path / "proof"
    left = [begin(home), begin(home / "part"), begin(home, _STUBBORN)]
    other = begin(tmp_path / "proof-of-others")

    ended = end_left_over(home, patience=0.5)

    assert set(ended) == {process.pid for process in left}
    # Whoever waited first took the exit status: here only that they have ended can be seen.
    assert all(process.wait(30) is not None for process in left)
    assert other.poll() is None
    assert left_over(home) == []


def test_nothing_left_is_nothing_to_do(tmp_path):
    """An empty home, or none, has no processes; this one is never among them, whatever its environment says."""
    assert end_left_over(tmp_path / "none") == []


def test_this_process_and_who_started_it_are_never_ended(monkeypatch, tmp_path):
    """Where a person's shell names the home, the proof that it started finds nothing to end."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    code = "from pathlib import Path; import sys; from infra.prove.stage import left_over; "
    code += "print(len(left_over(Path(sys.argv[1]))))"
    asked = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=True)

    assert asked.stdout == "0\n"


def test_a_second_proof_in_one_home_is_refused_and_says_what_to_do(tmp_path):
    """While one proof holds the home another is told whose it is; once it is let go it is free."""
    first = hold_alone(tmp_path / "proof")
    with pytest.raises(ProofError, match=rf"process {os.getpid()}\) runs in .*wait until"):
        hold_alone(tmp_path / "proof")
    elsewhere = hold_alone(tmp_path / "other")
    os.close(first)
    again = hold_alone(tmp_path / "proof")

    for lock in (elsewhere, again):
        os.close(lock)


def test_a_stage_begins_without_what_a_killed_proof_left(begin, monkeypatch, tmp_path):
    """Entering ends the worker of the last run, and forgets its files; a second stage of the name is refused."""
    monkeypatch.setattr("infra.prove.stage.KEPT_LOGS", tmp_path)
    monkeypatch.setattr(Stage, "qtctl", lambda *_, **__: None)
    home = tmp_path / "shadow"
    home.mkdir()
    (home / "stack.json").write_text("{}")
    worker = begin(home)

    with Stage("shadow") as stage:
        assert worker.poll() is not None
        assert list(stage.home.iterdir()) == []
        with pytest.raises(ProofError, match="Another proof"), Stage("shadow"):
            pass
    with Stage("shadow"):
        pass
