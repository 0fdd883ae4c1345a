"""Importing market data beside candles: what is wanted, how far it is, and what came of it."""

from __future__ import annotations

import json
import sys

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from feature_store import clock
from feature_store.errors import BadInputError
from feature_store.sources.importing import Advance
from feature_store.sources.kind_importing import KindImports, KindSelection, import_kinds
from feature_store.sources.kind_opening import kinds_to_import, open_kinds
from feature_store.terminal import OK, REFUSED
from flows.importing import Pace, Wanted, refusals, timeframe_of
from flows.settings import FlowSettings, parse_symbols


def import_kinds_in_terminal(wanted: Wanted, kinds: str, settings: FlowSettings, *, as_json: bool) -> int:
    """
    Import with a bar on standard error, say what came of it, and return the exit status; no server is needed.

    Raises:
        BadInputError: There is nothing of the kind, or it needs symbols.
        VenueUnavailableError: The address does not answer; what was imported stays.
        LakeNotWritableError: The lake cannot be written; what was imported stays.
    """
    if wanted.columns is not None:
        raise BadInputError("--columns tells of candles only; name the columns of other market data as ours are")
    symbols = wanted.symbols if wanted.symbols is not None or "://" not in wanted.place else settings.symbols
    selection = KindSelection(
        kinds=kinds_to_import(kinds),
        symbols=None if symbols is None else parse_symbols(symbols),
        timeframe=timeframe_of(wanted, settings),
        venue=wanted.venue,
    )
    now_ms = clock.utc_now_ms()
    source = open_kinds(wanted.place, wanted.kind, selection, now_ms=now_ms, days=settings.days)
    columns = (
        TextColumn("import"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("files"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    with Progress(*columns, console=Console(file=sys.stderr), disable=as_json) as bar:
        task = bar.add_task("looking for files", total=None)
        pace = Pace(unit="rows")

        def show(how_far: Advance) -> None:
            doing = f"{pace.rate(how_far)}, {how_far.name.rpartition('/')[2]}"
            bar.update(task, completed=how_far.done, total=how_far.total, description=doing)

        done = import_kinds(settings.kind_store(), source, selection, now_ms=now_ms, again=wanted.again, progress=show)
    print(json.dumps(msgspec.to_builtins(done)) if as_json else told(done))  # noqa: T201 - a person typed it
    return REFUSED if done.refused else OK


def told(done: KindImports) -> str:
    """Say what an import did, and of which files it took nothing and why."""
    rows = ", ".join(f"{count} new rows of {kind}" for kind, count in done.rows.items()) or "nothing new"
    if done.corrections:
        rows += f", {done.corrections} of them corrections of stored ones,"
    lines = [f"Imported {rows} from {done.parts} files, {done.known} of which were imported before."]
    return "\n".join([*lines, *refusals(done.refused)])
