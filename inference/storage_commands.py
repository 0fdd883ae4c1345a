"""`qtctl db`: the tables that are made from the journal, and what they answer."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

# Named here, so that an install without it offers no such command.
import alembic
import msgspec
from cyclopts import App, Parameter
from rich.console import Console
from rich.table import Table

from feature_store.errors import BadInputError
from feature_store.files import replace_bytes
from feature_store.terminal import help_end
from inference.settings import Settings
from inference.storage.settings import StorageSettings

if TYPE_CHECKING:
    from inference.storage.database import Database
    from inference.storage.results import Page

del alembic

_NO_DATABASE = "the database does not answer, or its tables are not of this version"

db = App(
    name="db",
    help="""The journal as tables, in SQLite or PostgreSQL: trades, positions, signals, models, days, jobs, acts.

The journal stays the record; the tables are made from it, and can be made again at any time. They lie in the folder
database of the home, or where QT_DATABASE_URL says: postgresql://user@host/database, or sqlite:////path/to/file.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl db rebuild",
        "qtctl db show trades --symbol BTC/USDT:USDT",
        "qtctl db query 'SELECT * FROM source_daily_performance'",
        statuses={0: "done", 1: _NO_DATABASE},
        as_json=True,
    ),
)

Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON for machines; by default words.")]
Home = Annotated[
    Path | None,
    Parameter(name="--home", help="Folder of everything written; by default QUANTUM_HOME, else ./var."),
]
Journal = Annotated[Path | None, Parameter(help="Journal file; by default journal/journal.jsonl in the home folder.")]
What = Literal[
    "trades", "positions", "signals", "models", "days", "events", "settings", "audit", "jobs", "drift", "shadow"
]
_BY_SYMBOL = ("trades", "positions", "signals", "shadow")


@db.command(
    help_epilogue=help_end(
        "qtctl db upgrade",
        "qtctl db upgrade --json | jq -r .revision",
        statuses={0: "the tables are of this version's form", 1: _NO_DATABASE},
        as_json=True,
    )
)
def upgrade(*, home: Home = None, json: Json = False) -> int:
    """Make the tables, or bring those of an older version to this version's form."""
    from inference.storage.migrating import upgrade as bring_up  # noqa: PLC0415 - only who runs it pays for its imports

    with _database(home) as database:
        before, after = bring_up(database)
    if json:
        _print_json({"before": before, "revision": after})
    else:
        _print(f"Revision {after}, as before." if before == after else f"Revision {after}, before: {before or 'none'}.")
    return 0


@db.command(
    help_epilogue=help_end(
        "qtctl db downgrade 0004",
        "qtctl db downgrade 0004 --json | jq -r .revision",
        statuses={0: "the tables have that form, and are empty", 1: _NO_DATABASE},
        as_json=True,
    )
)
def downgrade(
    revision: Annotated[str, Parameter(help="The form that the older version works with, such as 0004.")],
    /,
    *,
    home: Home = None,
    json: Json = False,
) -> int:
    """Take the tables back to an older version's form; all rows go, and that version makes its own from the journal."""
    from inference.storage.migrating import downgrade as take_back  # noqa: PLC0415 - as above

    with _database(home) as database:
        before, after = take_back(database, revision)
    if json:
        _print_json({"before": before, "revision": after})
    else:
        _print(f"Revision {after}, before: {before}. The tables are empty.")
    return 0


@db.command(
    help_epilogue=help_end(
        "qtctl db rebuild",
        "qtctl db rebuild --journal /backup/journal.jsonl --json | jq .entries",
        statuses={0: "the tables tell the whole journal", 1: f"the journal is damaged, or {_NO_DATABASE}"},
        as_json=True,
    )
)
def rebuild(*, journal: Journal = None, home: Home = None, json: Json = False) -> int:
    """Forget all rows and make them again from the journal's first entry."""
    from inference.storage.migrating import upgrade as bring_up  # noqa: PLC0415 - as above
    from inference.storage.projector import Projector  # noqa: PLC0415 - as above

    path = _journal(journal, home)
    if not path.exists():
        raise BadInputError(f"There is no journal at {path}; name one with --journal, or its home with --home")
    damages: list[str] = []
    with _database(home) as database:
        bring_up(database)
        projector = Projector(database, path, shadow=_shadow(home))
        projector.begin_anew()
        count = projector.catch_up(on_damage=damages.append)
    for one in damages:
        sys.stderr.write(f"{one}\n")
    if json:
        _print_json({"entries": count})
    else:
        _print(f"The tables tell the whole journal: {count} entries.")
    return 1 if damages else 0


@db.command(
    help_epilogue=help_end(
        "qtctl db follow",
        "qtctl db follow --once",
        "qtctl db follow --every 5",
        statuses={0: "stopped as asked; with --once: caught up", 1: f"the journal is damaged, or {_NO_DATABASE}"},
        as_json=True,
    )
)
def follow(
    *,
    every: Annotated[float, Parameter(help="Seconds between looks at the journal; by default 1.")] = 1.0,
    once: Annotated[
        bool, Parameter(negative="", help="Take in what is there, and end; by default go on until SIGTERM.")
    ] = False,
    journal: Journal = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Take in what the journal says, as it is written, beside the worker and without a word to it."""
    from inference.storage.projector import Projector  # noqa: PLC0415 - as above

    if not 0.05 <= every <= 3600:
        raise BadInputError(f"--every needs seconds from 0.05 to 3600, was {every}")
    with _database(home) as database:
        projector = Projector(database, _journal(journal, home), shadow=_shadow(home))
        if once:
            damages: list[str] = []
            projector.prepare()
            count = projector.catch_up(on_damage=damages.append)
            for one in damages:
                sys.stderr.write(f"{one}\n")
            if json:
                _print_json({"entries": count})
            else:
                _print(f"{count} new entries.")
            return 1 if damages else 0
        status = _StatusFile(_home(home) / "database" / "status.json")
        stop = threading.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        projector.follow(status.told(stop.wait), every=every, on_trouble=status.trouble)
        status.say("stopped")
    return 0


@db.command(
    help_epilogue=help_end(
        "qtctl db status",
        "qtctl db status --json | jq .behind",
        statuses={0: "the tables are of this version's form", 1: _NO_DATABASE},
        as_json=True,
    )
)
def status(*, journal: Journal = None, home: Home = None, json: Json = False) -> int:
    """Say which form the tables have, and how far they tell the journal."""
    from inference.storage.migrating import (  # noqa: PLC0415 - as above
        Standing,
        newest_revision,
        revision_of,
        standing_of,
    )
    from inference.storage.projector import kept_of, last_entry  # noqa: PLC0415 - as above

    last = last_entry(_journal(journal, home))
    entries = 0 if last is None else last.seq
    with _database(home) as database, database.reading() as connection:
        standing, revision = standing_of(connection), revision_of(connection)
        told = kept_of(connection).seq if standing is Standing.CURRENT else 0
    if json:
        found = {"database": database.name, "standing": standing, "revision": revision, "newest": newest_revision()}
        _print_json({**found, "entries": told, "journal_entries": entries, "behind": entries - told})
    else:
        _print(f"{database.name}: {standing.value}, revision {revision or 'none'} of {newest_revision()}.")
        _print(f"The tables tell {told} of {entries} entries.")
    return 0 if standing is Standing.CURRENT else 1


@db.command(
    help_epilogue=help_end(
        "qtctl db show trades --symbol BTC/USDT:USDT --limit 10",
        "qtctl db show signals --json | jq '.items[] | select(.outcome == \"DENIED\") | .code'",
        "qtctl db show days",
        statuses={0: "printed", 1: _NO_DATABASE},
        as_json=True,
    )
)
def show(
    what: Annotated[What, Parameter(help="What to list, the newest first; days in their order.")],
    /,
    *,
    symbol: Annotated[
        str | None, Parameter(help="Only of this symbol (trades, positions, signals, shadow); by default of all.")
    ] = None,
    limit: Annotated[int, Parameter(help="How many rows, at most 1000; by default 50.")] = 50,
    after: Annotated[
        str | None, Parameter(help="Go on behind the page whose JSON said this under next; by default begin.")
    ] = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """List what the tables hold."""
    from inference.storage.migrating import require_current  # noqa: PLC0415 - as above

    with _database(home) as database, database.reading() as connection:
        require_current(connection, database.name)
        page = _ask(connection, what, symbol=symbol, limit=limit, after=after)
    if json:
        _print_json({"items": page.items, "next": page.next})
        return 0
    if not page.items:
        _print(f"There are no {what} in the tables.")
        return 0
    names = [one.name for one in fields(page.items[0])]
    _print_table(names, [[getattr(item, name) for name in names] for item in page.items])
    if page.next is not None:
        _print(f"More: --after {page.next}")
    return 0


@db.command(
    help_epilogue=help_end(
        "qtctl db query 'SELECT code, count(*) AS times FROM signals GROUP BY code'",
        "qtctl db query 'SELECT * FROM source_daily_performance' --json",
        statuses={0: "answered", 1: f"the database refused the query; or {_NO_DATABASE}"},
        as_json=True,
    )
)
def query(
    sql: Annotated[str, Parameter(help="One SELECT over the tables and views.")],
    /,
    *,
    limit: Annotated[int, Parameter(help="How many rows at most; by default 1000.")] = 1000,
    home: Home = None,
    json: Json = False,
) -> int:
    """Ask the tables in SQL; nothing can be changed that way."""
    from inference.storage.asking import ask  # noqa: PLC0415 - as above

    if limit < 1:
        raise BadInputError(f"--limit is how many rows, at least 1, was {limit}")
    with _database(home) as database:
        names, rows = ask(database, sql, limit=limit)
    if json:
        _print_json([dict(zip(names, row, strict=True)) for row in rows])
    else:
        _print_table(names, rows)
    return 0


class _StatusFile:
    """Says whether somebody follows, for whoever watches services."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._trouble = ""

    def told(self, pause: Callable[[float], bool]) -> Callable[[float], bool]:
        """Return a pause that says first how it went."""

        def paused(seconds: float) -> bool:
            self.say("waiting" if self._trouble else "following")
            self._trouble = ""
            return pause(seconds)

        return paused

    def trouble(self, reason: str) -> None:
        """Take in why the database could not be written."""
        if not self._trouble:
            sys.stderr.write(f"{reason}\n")
        self._trouble = reason

    def say(self, state: str) -> None:
        """Write it; a disk that is full is told by the database already."""
        try:
            replace_bytes(self._path, msgspec.json.encode({"state": state, "reason": self._trouble}))
        except OSError as error:
            sys.stderr.write(f"{self._path} cannot be written: {error.strerror}\n")


def _ask(connection: Any, what: What, *, symbol: str | None, limit: int, after: str | None) -> Page[Any]:
    from inference.storage import repositories as tables  # noqa: PLC0415 - as above
    from inference.storage.results import Page  # noqa: PLC0415 - as above

    if symbol is not None and what not in _BY_SYMBOL:
        raise BadInputError(f"--symbol chooses among {', '.join(_BY_SYMBOL)}, not among {what}")
    whole: dict[str, Callable[[], tuple[Any, ...]]] = {
        "models": lambda: tables.Models(connection).all(),
        "settings": lambda: tables.Settings(connection).all(),
        "days": lambda: tables.Performance(connection).days(),
    }
    if what in whole:
        return Page(whole[what]())
    paged: dict[str, Callable[..., Page[Any]]] = {
        "trades": tables.Trades(connection).page,
        "positions": tables.Positions(connection).page,
        "signals": tables.Signals(connection).page,
        "shadow": tables.ShadowPredictions(connection).page,
        "events": tables.Events(connection).page,
        "audit": tables.Audit(connection).page,
        "jobs": tables.RetrainingJobs(connection).page,
        "drift": tables.Drift(connection).page,
    }
    by_symbol = {} if symbol is None else {"symbol": symbol}
    return paged[what](limit=limit, after=after, **by_symbol)


@contextmanager
def _database(home: Path | None) -> Iterator[Database]:
    from inference.storage.database import open_database  # noqa: PLC0415 - as above

    database = open_database(StorageSettings().address, _home(home))
    try:
        yield database
    finally:
        database.close()


def _home(given: Path | None) -> Path:
    return given or Path(os.environ.get("QUANTUM_HOME") or str(Settings.model_fields["home"].default))


def _journal(given: Path | None, home: Path | None) -> Path:
    return given or _home(home) / "journal" / "journal.jsonl"


def _shadow(home: Path | None) -> Path:
    return _home(home) / "shadow" / "journal"


def _print(line: str) -> None:
    sys.stdout.write(f"{line}\n")


def _print_table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    table = Table(*names)
    for row in rows:
        table.add_row(*("" if value is None else str(value) for value in row))
    Console().print(table)


def _print_json(document: object) -> None:
    sys.stdout.buffer.write(msgspec.json.format(msgspec.json.encode(document), indent=2) + b"\n")
    sys.stdout.flush()
