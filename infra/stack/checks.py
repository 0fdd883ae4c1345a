"""What the doctor looks at, one function per question."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import sqlite3
import subprocess
import sys
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

import msgspec

from feature_store.json_text import UNREADABLE
from infra.stack import processes
from infra.stack.home import Home, Programs
from infra.stack.ports import holder, is_free
from infra.stack.record import StackRecord, read_record
from infra.stack.services import PREFERRED_PORTS, base_environment

_GIB = 1024**3
_PARQUET_MAGIC = b"PAR1"
# `python -m venv` brings them, at versions of its own; nothing in the worker's environment runs on them.
_BROUGHT_BY_VENV = {"pip", "setuptools"}


class Level(StrEnum):
    """How bad a finding is."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


class Finding(msgspec.Struct, frozen=True):
    """One answer of the doctor: what was looked at, what was found, and how to mend it."""

    check: str
    level: Level
    found: str
    mend: str = ""


class _PaperWallet(msgspec.Struct, frozen=True):
    wallet: Decimal


class _PaperAccount(msgspec.Struct, frozen=True):
    engine: _PaperWallet


class _SourceState(msgspec.Struct, frozen=True):
    """What a source's own record says that the doctor looks at."""

    name: str
    failures: int = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Patient:
    """What is examined."""

    home: Home
    programs: Programs
    record: StackRecord | None


def python_version() -> Finding:
    """The interpreter is the one the pins were made for."""
    version: tuple[int, ...] = tuple(sys.version_info[:3])
    found = ".".join(map(str, version))
    if version[:2] == (3, 11):
        return Finding("python", Level.OK, found)
    return Finding("python", Level.FAIL, found, "The pinned versions need Python 3.11: make setup PYTHON=python3.11")


def libgomp() -> Finding:
    """XGBoost and LightGBM find the OpenMP library they load."""
    try:
        ctypes.CDLL("libgomp.so.1")
    except OSError:
        mend = "Install it, on Debian and Ubuntu: apt-get install libgomp1"
        return Finding("libgomp", Level.FAIL, "libgomp.so.1 is missing", mend)
    return Finding("libgomp", Level.OK, "libgomp.so.1")


def disk(home: Home) -> Finding:
    """There is room for candles, models and logs."""
    folder = next(path for path in (home.root, *home.root.parents) if path.exists())
    free = shutil.disk_usage(folder).free
    text = f"{free / _GIB:.1f} GiB free"
    if free < 2 * _GIB:
        return Finding("disk", Level.FAIL, text, "A run needs 2 GiB; free some space or move QUANTUM_HOME")
    if free < 5 * _GIB:
        return Finding("disk", Level.WARN, text, "Enough for now; a long run grows")
    return Finding("disk", Level.OK, text)


def home_is_writable(home: Home) -> Finding:
    """QUANTUM_HOME can be written."""
    folder = next(path for path in (home.root, *home.root.parents) if path.exists())
    probe = folder / ".doctor-probe"
    try:
        probe.touch()
        probe.unlink()
    except OSError as error:
        mend = f"chown or chmod it for this user, or set QUANTUM_HOME (was {home.root})"
        return Finding("home", Level.FAIL, f"{folder}: {error.strerror}", mend)
    return Finding("home", Level.OK, str(home.root) if folder == home.root else f"{home.root} (not made yet)")


def environment(programs: Programs, name: str) -> Finding:
    """An environment holds what constraints.txt says, and nothing else in its place."""
    check = f"packages {name}"
    folder = programs.repository / name
    site = next(iter(sorted(folder.glob("lib/python3.*/site-packages"))), None)
    if site is None:
        return Finding(check, Level.FAIL, "not installed", "make setup")
    installed = {_key(one): one.version for one in distributions(path=[str(site)]) if one.metadata["Name"]}
    pinned = _pins(programs.repository / "constraints.txt")
    if not pinned:
        return Finding(check, Level.WARN, "constraints.txt is missing or empty", "make constraints")
    wrong = [
        f"{key} {installed[key]} (pinned {version})"
        for key, version in sorted(pinned.items())
        if key in installed and key not in _BROUGHT_BY_VENV and installed[key].split("+")[0] != version.split("+")[0]
    ]
    if wrong:
        shown = ", ".join(wrong[:4]) + (f" and {len(wrong) - 4} more" if len(wrong) > 4 else "")
        return Finding(check, Level.FAIL, shown, f"rm {name}/.ready && make setup")
    return Finding(check, Level.OK, f"{len(installed)} packages as pinned")


def _key(one: Distribution) -> str:
    return _normal(one.metadata["Name"])


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _pins(path: Path) -> dict[str, str]:
    if not path.exists():
        return {}
    pins = {}
    for line in path.read_text().splitlines():
        name, equals, version = line.split("#")[0].split(";")[0].strip().partition("==")
        if equals:
            pins[_normal(name.split("[")[0])] = version.strip()
    return pins


def record_and_processes(home: Home) -> list[Finding]:
    """stack.json can be read, and what it lists runs."""
    record, damage = read_record(home.record)
    if damage is not None:
        return [Finding("stack.json", Level.FAIL, damage, "`qtctl up` sets it aside and finds what still runs")]
    if record is None or not record.services:
        return [Finding("services", Level.OK, "none is running", "qtctl up starts them")]
    findings = []
    for name, known in record.services.items():
        alive = processes.find(known.pid, known.create_time, record.stack_id) is not None
        if alive:
            findings.append(Finding(f"service {name}", Level.OK, f"process {known.pid}"))
        else:
            mend = f"qtctl up starts it anew; why it ended is in {known.log}"
            findings.append(Finding(f"service {name}", Level.FAIL, f"process {known.pid} is gone", mend))
    return findings


def ports(record: StackRecord | None) -> list[Finding]:
    """The usual ports are free, or ours."""
    ours = {known.port: name for name, known in record.services.items()} if record else {}
    findings = []
    for name, port in PREFERRED_PORTS.items():
        if port in ours:
            findings.append(Finding(f"port {port}", Level.OK, f"used by our {ours[port]}"))
        elif is_free(port):
            findings.append(Finding(f"port {port}", Level.OK, f"free for {name}"))
        else:
            mend = f"nothing to do: {name} will take a free port and print it"
            findings.append(Finding(f"port {port}", Level.WARN, f"in use by {holder(port)}", mend))
    return findings


def sqlite_files(home: Home) -> list[Finding]:
    """Each SQLite file under the home is whole."""
    findings = []
    for path in sorted(home.root.glob("*/*.db")):
        check = f"sqlite {path.relative_to(home.root)}"
        damage = sqlite_damage(path)
        if damage is None:
            findings.append(Finding(check, Level.OK, "ok"))
        else:
            mend = f"stop the stack, then restore {path.name} from a backup or move it away to begin anew"
            findings.append(Finding(check, Level.FAIL, damage, mend))
    return findings


def sqlite_damage(path: Path) -> str | None:
    """Return what is wrong with a SQLite file, or None where it is whole; nothing is changed."""
    try:
        connection = sqlite3.connect(f"file:{quote(str(path))}?mode=ro", uri=True, timeout=5.0)
        try:
            answer = str(connection.execute("PRAGMA quick_check(1)").fetchone()[0])
        finally:
            connection.close()
    except sqlite3.Error as error:
        return str(error)
    return None if answer == "ok" else answer


def lake(home: Home) -> Finding:
    """Each Parquet file of the lake begins and ends as one."""
    files = sorted(path for venue in (home.root / "lake").glob("exchange=*") for path in venue.rglob("*.parquet"))
    torn = [path for path in files if not _is_parquet(path)]
    if torn:
        mend = "`qtctl ingest --repair` sets them aside and fetches their candles again"
        shown = ", ".join(str(path.relative_to(home.root)) for path in torn[:3])
        return Finding("lake", Level.FAIL, f"{len(torn)} of {len(files)} files are torn: {shown}", mend)
    if not files:
        return Finding("lake", Level.OK, "empty", "qtctl ingest fills it")
    return Finding("lake", Level.OK, f"{len(files)} files")


def paper(home: Home) -> list[Finding]:
    """Each paper account of the home can be read, and whoever trades on paper is told what that means."""
    findings = []
    if os.environ.get("QT_MODE") == "paper":
        venue = os.environ.get("QT_VENUE") or "sandbox"
        findings.append(Finding("mode paper", Level.OK, f"prices of {venue}, fills made here; no key is used or sent"))
    for path in sorted((home.root / "paper").glob("*.json")):
        check = f"paper {path.stem}"
        try:
            account = msgspec.json.decode(path.read_bytes(), type=_PaperAccount)
        except (OSError, msgspec.MsgspecError) as error:
            mend = f"restore {path} from a backup, or move it away to begin a new account"
            findings.append(Finding(check, Level.FAIL, f"cannot be read: {error}", mend))
        else:
            findings.append(Finding(check, Level.OK, f"wallet {account.engine.wallet:.2f} USDT"))
    return findings


def sources(home: Home) -> list[Finding]:
    """Other sources than venues answer, where any was ever asked; none of them is needed."""
    findings = []
    for path in sorted((home.root / "lake" / "observations").glob("source=*/state.json")):
        try:
            state = msgspec.json.decode(path.read_bytes(), type=_SourceState)
        except (OSError, msgspec.MsgspecError):
            continue  # It is written anew when the source is asked next.
        if state.failures:
            found = f"down, {state.failures} times in a row: {state.reason}"
            mend = "nothing needs it; take it out of QT_SOURCES, or see its settings"
            findings.append(Finding(f"source {state.name}", Level.WARN, found, mend))
        else:
            findings.append(Finding(f"source {state.name}", Level.OK, "answers"))
    return findings


def _is_parquet(path: Path) -> bool:
    try:
        with path.open("rb") as file:
            head = file.read(4)
            size = file.seek(0, 2)
            file.seek(max(0, size - 8))
            foot = file.read(8)
    except OSError:
        return False
    declared = int.from_bytes(foot[:4], "little")
    return head == _PARQUET_MAGIC and foot[4:] == _PARQUET_MAGIC and 0 < declared <= size - 12


def journal(home: Home, programs: Programs) -> Finding:
    """Every entry of the worker's journal carries the digest of the one before."""
    if not home.journal.exists():
        return Finding("journal", Level.OK, "none yet")
    verified, found, aside = verify_journal(home, programs)
    if verified and aside:
        mend = "Delete what was set aside once you know that a restore was meant; `qtctl audit verify` says more"
        return Finding("journal", Level.WARN, f"{found}; anchors of before a restore: {', '.join(aside)}", mend)
    if verified:
        return Finding("journal", Level.OK, found)
    mend = "`qtctl audit verify` names the entry; keep the file, it is evidence"
    return Finding("journal", Level.FAIL, found, mend)


def verify_journal(home: Home, programs: Programs) -> tuple[bool, str, list[str]]:
    """Ask `qtctl audit verify`, which knows the journal's form, and what anchors were set aside."""
    environment_ = base_environment() | {"QUANTUM_HOME": str(home.root), "PYTHONPATH": str(programs.repository)}
    try:
        done = subprocess.run(
            [str(programs.pipeline_bin / "python"), "-m", "inference.cli", "audit", "verify", "--json"],
            env=environment_,
            cwd=home.root,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return False, f"could not be checked: {error}", []
    try:
        verdict = msgspec.json.decode(done.stdout.encode(), type=dict[str, Any])
    except UNREADABLE:
        last = (done.stderr.strip() or done.stdout.strip()).splitlines()[-1:]
        return False, last[0][:300] if last else f"`qtctl audit verify` ended with status {done.returncode}", []
    entries = f"{verdict.get('entries', 0)} entries"
    found = f"{entries}: {verdict['finding']}" if verdict.get("finding") else entries
    aside = [f"{one['where']} (entry {one['seq']})" for one in verdict.get("set_aside", ())]
    return done.returncode == 0, found, aside
