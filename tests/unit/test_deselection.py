"""A tool that is missing leaves its tests out with a word, and is an error where everything is required."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import LONGEST

ROOT = Path(__file__).resolve().parents[2]
ADVICE = "install Debian's package systemd"
UNITS = len(list((ROOT / "infra" / "systemd").glob("quantum-*")))


def without_tools(*options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the tests of the systemd unit where no program is on the path."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/unit/test_systemd_unit.py"]
    command += options
    environment |= {"PATH": "/nowhere", "HOME": "/nowhere"}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("require_all", [{}, {"REQUIRE_ALL": ""}], ids=["unset", "empty"])
def test_what_is_missing_is_left_out_and_named(require_all):
    """Without systemd-analyze the other tests of the file pass, and the last lines say what was left out and why."""
    done = without_tools(**require_all)

    assert done.returncode == 0, done.stdout
    assert f"deselected {UNITS} test(s) marked needs_systemd: {ADVICE}" in done.stdout
    assert f"passed, {UNITS} deselected" in done.stdout


def test_nothing_is_left_out_where_everything_is_required():
    """With REQUIRE_ALL=1 the same is an error before any test runs."""
    done = without_tools(REQUIRE_ALL="1")

    assert done.returncode != 0
    assert f"needs_systemd: {ADVICE}" in done.stderr
    assert "passed" not in done.stdout


def test_several_processes_say_what_they_leave_out():
    """Run by several processes, as `make test` runs them, the tests say the same."""
    done = without_tools("-n", "2")

    assert done.returncode == 0, done.stdout
    assert f"deselected {UNITS} test(s) marked needs_systemd: {ADVICE}" in done.stdout
    assert " passed" in done.stdout


def test_several_processes_leave_nothing_out_where_everything_is_required():
    """With REQUIRE_ALL=1 a test that cannot run fails, and says what to install."""
    done = without_tools("-n", "2", REQUIRE_ALL="1")

    assert done.returncode == 1
    assert f"needs_systemd: {ADVICE}" in done.stdout
    assert f"{UNITS} failed, " in done.stdout or f" passed, {UNITS} error" in done.stdout


def test_the_longest_files_are_there():
    """A file that was renamed would be run last again without anybody seeing it."""
    folder = Path(__file__).resolve().parents[1]
    assert [name for name in LONGEST if not (folder / name).is_file()] == []


def test_what_may_be_lacking_is_left_out_where_all_else_is_required():
    """What no machine of a kind can have is named; it is left out with a word, and nothing else is."""
    done = without_tools(REQUIRE_ALL="1", MAY_LACK="needs_systemd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert ADVICE in done.stdout
    refused = without_tools(REQUIRE_ALL="1", MAY_LACK="needs_redis")
    assert refused.returncode != 0
