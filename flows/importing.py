"""Importing candles that people already have: what is wanted, how far it is, and what came of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from feature_store import clock
from feature_store.candle import Timeframe
from feature_store.derived import BASE
from feature_store.errors import BadInputError, LakeNotWritableError
from feature_store.lake import CandleLake
from feature_store.sources.deriving import keep_derived, parse_derived
from feature_store.sources.importing import Advance, Imports, Refused, Selection, import_candles
from feature_store.sources.opening import SourceKind, open_source
from feature_store.terminal import OK, REFUSED
from flows.settings import FlowSettings, parse_symbols


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a person asked to import."""

    place: str
    kind: SourceKind | None = None
    venue: str | None = None
    symbols: str | None = None
    timeframe: str | None = None
    columns: str | None = None
    again: bool = False
    derive: str | None = None


@dataclass(frozen=True, slots=True)
class Brought:
    """What an import did, how many longer candles were derived of its minutes, and which were not and why."""

    imports: Imports
    derived: int = 0
    not_derived: tuple[Refused, ...] = ()

    @property
    def is_whole(self) -> bool:
        """Whether all came that was asked for."""
        return not (self.imports.refused or self.imports.missing or self.not_derived)

    def as_json(self) -> dict[str, Any]:
        """Return one flat document of it."""
        own = {"derived": self.derived, "not_derived": msgspec.to_builtins(self.not_derived)}
        return {**msgspec.to_builtins(self.imports), **own}


def import_from(wanted: Wanted, settings: FlowSettings, told: Callable[[Advance], None]) -> Brought:
    """
    Import what is new at a path or an address into the lake of the settings, and derive longer candles if asked to.

    Raises:
        BadInputError: There is nothing of the kind, or it needs symbols, or it is not minutes that are to be derived.
        VenueUnavailableError: The address does not answer; what was imported stays.
        LakeNotWritableError: The lake cannot be written; what was imported stays.
    """
    longer = derivations(wanted, settings)
    chosen = timeframe_of(wanted, settings)
    symbols = wanted.symbols if wanted.symbols is not None or "://" not in wanted.place else settings.symbols
    selection = Selection(
        symbols=None if symbols is None else parse_symbols(symbols),
        timeframe=BASE if longer else chosen,
        venue=wanted.venue,
    )
    # What is derived of asks for minutes; it does not say that a file which names no timeframe holds some.
    told_of_files = selection if "://" in wanted.place else replace(selection, timeframe=chosen)
    now_ms = clock.utc_now_ms()
    source = open_source(
        wanted.place, wanted.kind, selection=told_of_files, now_ms=now_ms, days=settings.days, columns=wanted.columns
    )
    lake = settings.candle_lake()
    done = import_candles(lake, source, selection, now_ms=now_ms, again=wanted.again, progress=told)
    return _derived(lake, done, longer) if longer else Brought(done)


def derivations(wanted: Wanted, settings: FlowSettings) -> tuple[Timeframe, ...]:
    """
    Return the timeframes to derive from imported minutes; QT_DERIVE counts where minutes are chosen.

    Raises:
        BadInputError: One is not usable, or they were asked for and another timeframe than minutes is imported.
    """
    chosen = timeframe_of(wanted, settings)
    if wanted.derive is None:
        return parse_derived(settings.derive) if chosen is BASE else ()
    longer = parse_derived(wanted.derive)
    if longer and wanted.timeframe is not None and chosen is not BASE:
        raise BadInputError(
            f"Longer candles are derived from minutes: use --timeframe {BASE} with --derive, was {chosen}"
        )
    return longer


def _derived(lake: CandleLake, done: Imports, longer: Sequence[Timeframe]) -> Brought:
    """Derive what is new in the minutes of an import, also of files that were imported before."""
    rows, refused = 0, []
    for minutes in sorted({*done.series, *done.known_series}):
        for timeframe in longer:
            try:
                # Of imported minutes nobody knows more than the files say: they count as whole from the first one on.
                rows += sum(asyncio.run(keep_derived(lake, minutes, [timeframe])).values())
            except BadInputError as error:
                refused.append(Refused(f"{minutes.symbol} {timeframe}", str(error)))
            except OSError as error:
                raise LakeNotWritableError(f"{timeframe} candles of {minutes.symbol}", lake.root, error) from error
    return Brought(done, rows, tuple(refused))


def import_in_terminal(wanted: Wanted, settings: FlowSettings, *, as_json: bool) -> int:
    """Import with a bar on standard error, say what came of it, and return the exit status; no server is needed."""
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
        pace = Pace()

        def show(how_far: Advance) -> None:
            doing = f"{pace.rate(how_far)}, {how_far.name.rpartition('/')[2]}"
            bar.update(task, completed=how_far.done, total=how_far.total, description=doing)

        done = import_from(wanted, settings, show)
    print(json.dumps(done.as_json()) if as_json else told(done))  # noqa: T201 - a person typed it
    return OK if done.is_whole else REFUSED


class Pace:
    """How fast an import goes, from its beginning on."""

    def __init__(self, seconds: Callable[[], float] = clock.monotonic, unit: str = "candles") -> None:
        self._seconds = seconds
        self._unit = unit
        self._began = seconds()

    def rate(self, how_far: Advance) -> str:
        """Say how many candles, or rows, a second are read."""
        passed = self._seconds() - self._began
        return f"{how_far.rows / passed if passed > 0 else 0:,.0f} {self._unit}/s"

    def described(self, how_far: Advance) -> str:
        """Say how far it is, how fast it goes, and how long it will still take."""
        said = f"{how_far.done} of {how_far.total} files, {how_far.rows:,} {self._unit}, {self.rate(how_far)}"
        if not 0 < how_far.done < how_far.total:
            return said
        left = (self._seconds() - self._began) / how_far.done * (how_far.total - how_far.done)
        return f"{said}, {int(left // 60)}:{int(left % 60):02d} left"


def told(brought: Brought) -> str:
    """Say what an import did, of which files it took nothing and why, and what it looked for in vain."""
    done = brought.imports
    files = f"{done.parts} files, {done.known} of which were imported before"
    rows = f"{done.appended - done.corrections} new candles"
    if done.corrections:
        rows += f" and {done.corrections} corrections of stored ones"
    lines = [f"Imported {rows} of {len(done.series)} series from {files}."]
    if brought.derived:
        lines.append(f"Derived {brought.derived} longer candles of their minutes.")
    if done.known and not done.appended:
        lines.append("--repair reads those again, if the lake has lost what they held.")
    lines += refusals(done.refused)
    if brought.not_derived:
        lines.append("Not derived:")
        lines += [f"  {one.reason}" for one in brought.not_derived]
    if done.missing:
        lines.append("Not there, neither as a day nor in a month:")
        lines += [f"  {one}" for one in done.missing]
    return "\n".join(lines)


def refusals(refused: Sequence[Refused]) -> list[str]:
    """Say of which files nothing was stored, each with its name once."""
    if not refused:
        return []
    reasons = [one.reason if one.part in one.reason else f"{one.part}: {one.reason}" for one in refused]
    return [f"Refused {len(refused)} files; nothing of them was stored:", *(f"  {reason}" for reason in reasons)]


def timeframe_of(wanted: Wanted, settings: FlowSettings) -> Timeframe | None:
    """Return the timeframe to import, or None for whatever is there."""
    if wanted.timeframe is not None:
        return Timeframe.parse(wanted.timeframe)
    # A folder is taken whole; an address has to be told what to look for.
    return Timeframe.parse(settings.timeframe) if "://" in wanted.place else None
