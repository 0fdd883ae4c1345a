"""Typing the README's commands in: in a newcomer's shell, to their end, with all that they print."""

from __future__ import annotations

import contextlib
import os
import time

import psutil

from infra.prove.proof import Size
from infra.prove.readme import environment_of, try_out
from infra.prove.readme_text import Step


def tried(command, *promised, folder, seconds=20.0):
    return try_out(Step(command, promised, 1), folder, {"PATH": os.environ["PATH"]}, seconds=seconds)


def alive_in_group(group):
    """Return the processes of a group that still run; one that ended may wait for its parent to look."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            if os.getpgid(process.pid) == group and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


def test_what_is_printed_anywhere_counts_in_order(tmp_path):
    """Standard error and standard output are one, as on a terminal, and the folder is the one given."""
    (tmp_path / "here").touch()

    assert tried("echo one >&2; echo two; ls", "one", "two", "here", folder=tmp_path) == []


def test_a_failing_command_is_a_problem_whatever_it_printed(tmp_path):
    """The exit status counts beside the promise, and the output's end is shown."""
    assert tried("echo as promised; exit 3", "as promised", folder=tmp_path) == [
        "`echo as promised; exit 3` ended with 3: as promised\n"
    ]


def test_a_broken_promise_is_a_problem_though_the_command_ends_well(tmp_path):
    """A command that prints something else is named with both."""
    assert tried("echo 'NOT HELD'", "held", folder=tmp_path) == [
        "`echo 'NOT HELD'` did not print: held (but: NOT HELD)"
    ]


def test_a_command_that_never_ends_is_ended_with_all_it_started(tmp_path):
    """Waiting has an end, though a child of the command holds its output open."""
    began = time.perf_counter()

    problems = tried("echo $$ > leader; sleep 600 & sleep 600", "done", folder=tmp_path, seconds=0.5)

    assert problems == ["`echo $$ > leader; sleep 600 & sleep 600` did not end within 0.5 s"]
    leader = int((tmp_path / "leader").read_text())
    while alive_in_group(leader) and time.perf_counter() - began < 100:
        time.sleep(0.05)
    assert alive_in_group(leader) == []
    assert time.perf_counter() - began < 200


def test_a_command_cannot_wait_for_an_answer(tmp_path):
    """Nobody sits at this keyboard: whoever asks reads the end at once."""
    assert tried("read -r answer || echo 'no answer'", "no answer", folder=tmp_path) == []


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path):
    """Broken output is no reason to fail with a traceback."""
    assert tried(r"printf 'a\xffb\n'", "a…b", folder=tmp_path) == []


def test_a_newcomers_shell_knows_nothing_of_ours(tmp_path, monkeypatch):
    """Our settings and what our own `make` was told do not reach the README's commands; the package index does."""
    ours = {"QT_MODE": "live", "PREFECT_API_URL": "x", "MLFLOW_TRACKING_URI": "x", "QUANTUM_HOME": "x", "SIZE": "ci"}
    for name, value in (ours | {"MAKEFLAGS": "SIZE=ci", "TORCH_INDEX_URL": "https://example.org"}).items():
        monkeypatch.setenv(name, value)

    shell = environment_of(Size.FULL, tmp_path)

    assert not {*ours, "MAKEFLAGS", "PYTHONPATH"} & shell.keys()
    assert shell["TORCH_INDEX_URL"] == "https://example.org"
    assert environment_of(Size.CI, tmp_path)["PYTHONPATH"] == str(tmp_path)
