"""What `make` says where Python, an environment or the disk is missing, and what `make clean` forgets."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from infra.stack.home import Home
from infra.stack.supervisor import Supervisor

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def clone(tmp_path):
    """Return a folder with what `make` reads, and no environment yet."""
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    return tmp_path


def make(clone: Path, *arguments: str, path: Path | None = None) -> tuple[int, list[str]]:
    """Run one target and return its status and what it said, without make's own last word."""
    clean = {name: value for name, value in os.environ.items() if name not in {"QUANTUM_HOME", "MAKEFLAGS", "PYTHON"}}
    if path is not None:
        clean["PATH"] = f"{path}:{clean['PATH']}"
    done = subprocess.run(
        ["make", *arguments], cwd=clone, env=clean, capture_output=True, text=True, timeout=60, check=False
    )
    said = (done.stdout + done.stderr).splitlines()
    return done.returncode, [line for line in said if not line.startswith("make")]


def with_environments(clone: Path, python: str) -> None:
    """Give the folder two environments that were set up before, with this interpreter."""
    for name in (".venv", ".venv-worker"):
        programs = clone / name / "bin"
        programs.mkdir(parents=True)
        (programs / "python").symlink_to(python)
        (programs / "qtctl").symlink_to(Path(sys.executable).parent / "qtctl")
        (clone / name / ".ready").touch()


@pytest.mark.parametrize(
    ("python", "says"),
    [("/no/such/python3.11", "Python 3.11 is missing"), ("/bin/false", "/bin/false is not Python 3.11")],
)
def test_a_missing_python_is_one_sentence(clone, python, says):
    """`make demo` without Python 3.11 says so with the way out, and makes nothing."""
    status, said = make(clone, "demo", f"PYTHON={python}")

    assert status != 0
    assert len(said) == 1
    assert says in said[0]
    assert "PYTHON=/path/to/python3.11" in said[0]
    assert not (clone / ".venv").exists()


def test_a_disk_too_small_for_the_environments_is_one_sentence(clone):
    """Before anything is downloaded, free space is held against what is needed."""
    (clone / "df").write_text("#!/bin/sh\nprintf 'head\\n/dev/disk 9000 8000 1000 90%% /\\n'\n")
    (clone / "df").chmod(0o755)
    status, said = make(clone, "setup", f"PYTHON={sys.executable}", path=clone)

    assert status != 0
    assert said == ["Only 1000 MB are free here: the environments need about 6000 MB; free some space and run again"]
    assert not (clone / ".venv").exists()


@pytest.mark.parametrize("index", ["", "https://wheels.example/cpu"], ids=["usual-index", "index-for-torch"])
def test_every_install_is_constrained_and_one_variable_moves_the_index_of_torch(clone, index):
    """Nothing is installed but at the pinned versions, and only what brings PyTorch asks the index that was named."""
    status, said = make(clone, "--dry-run", "setup", f"PYTHON={sys.executable}", f"TORCH_INDEX_URL={index}")
    installs = [line for line in said if "pip install" in line]

    assert status == 0
    assert len(installs) == (3 if index else 2)
    assert all("-c constraints.txt" in line for line in installs)
    assert [index in line for line in installs] == ([True, True, False] if index else [True, True])
    assert ("--index-url" in "".join(installs)) == bool(index)


def test_what_is_set_up_needs_no_python_of_the_system(clone):
    """With both environments there, `make setup` has nothing to do and asks for nothing."""
    with_environments(clone, sys.executable)

    assert make(clone, "setup", "PYTHON=/no/such/python3.11") == (0, [])


def test_an_environment_whose_python_is_gone_is_made_anew(clone):
    """After the interpreter was removed, `make demo` sets up again instead of failing on a bad interpreter."""
    with_environments(clone, "/no/longer/here/python3.11")
    _, said = make(clone, "demo", "PYTHON=/no/such/python3.11")

    assert len(said) == 1
    assert "Python 3.11 is missing" in said[0]


@pytest.mark.parametrize("lock", ["stack", "demo"])
def test_clean_starts_over_and_waits_for_whoever_works(clone, lock):
    """`make clean` forgets all that ran; while a command or a demonstration works on it nothing is taken away."""
    with_environments(clone, sys.executable)
    candles = clone / "var" / "lake" / "candles.parquet"
    candles.parent.mkdir(parents=True)
    candles.touch()
    with Supervisor(Home(clone / "var"), print).exclusive(lock):
        status, said = make(clone, "clean")
        kept = candles.exists()

    assert status != 0
    assert "wait until it has ended" in said[0]
    assert kept
    assert make(clone, "clean")[0] == 0
    assert not (clone / "var").exists()
