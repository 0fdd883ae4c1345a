"""Whether this machine and this home are fit to run, and how to mend what is not."""

from __future__ import annotations

import asyncio

from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.stack import checks, reachability
from infra.stack.checks import Finding, Level
from infra.stack.home import Home, Programs
from infra.stack.record import read_record

_COLOURS = {Level.OK: "green", Level.WARN: "yellow", Level.FAIL: "bold red"}


async def examine(home: Home, programs: Programs) -> list[Finding]:
    """Answer every question; a failing one does not keep the others from being asked."""
    record, _ = read_record(home.record)
    local = await asyncio.to_thread(_local, home, programs)
    return [*local, await reachability.venue(record), *await reachability.servers(record)]


def _local(home: Home, programs: Programs) -> list[Finding]:
    record, _ = read_record(home.record)
    return [
        checks.python_version(),
        checks.libgomp(),
        checks.environment(programs, ".venv"),
        checks.environment(programs, ".venv-worker"),
        checks.home_is_writable(home),
        checks.disk(home),
        *checks.record_and_processes(home),
        *checks.ports(record),
        *checks.sqlite_files(home),
        checks.lake(home),
        *checks.sources(home),
        *checks.paper(home),
        checks.journal(home, programs),
    ]


def show(findings: list[Finding], console: Console) -> None:
    """Print the findings as a table, and the worst last."""
    table = Table(box=None, pad_edge=False)
    for heading in ("", "check", "found", "how to mend it"):
        table.add_column(heading, overflow="fold")
    for one in findings:
        table.add_row(Text(one.level, style=_COLOURS[one.level]), one.check, one.found, one.mend)
    console.print(table)
    failed = [one.check for one in findings if one.level is Level.FAIL]
    if failed:
        console.print(f"Not fit to run: {', '.join(failed)}.")
    else:
        console.print("Fit to run.")
