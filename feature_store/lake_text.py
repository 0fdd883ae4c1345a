"""What `qtctl lake` works on, and how it tells of it: in sentences, tables and JSON."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from feature_store.errors import BadInputError

if TYPE_CHECKING:
    from feature_store.beside import Flaw, Holding, Mended
    from feature_store.candle import Series
    from feature_store.inspection import Finding
    from feature_store.lake import CandleLake
    from feature_store.store import FeatureStore
    from feature_store.upkeep import Repaired

CANDLES = "candles"


def opened() -> tuple[CandleLake, FeatureStore]:
    """Return the lake and the features that the settings name."""
    from feature_store.lake_address import open_lake  # noqa: PLC0415 - --help stays quick
    from feature_store.store import FeatureStore  # noqa: PLC0415 - as above

    home = Path(os.environ.get("QUANTUM_HOME") or "var").expanduser().resolve()
    return open_lake(os.environ.get("QT_LAKE"), home), FeatureStore(home / "features")


def chosen(
    candles: CandleLake, kinds: str | None, venue: str | None, symbols: str | None, timeframe: str | None
) -> tuple[list[Series], list[Holding]]:
    """
    Return the series, and what is held beside candles, that options choose.

    Raises:
        BadInputError: A kind is unknown, or nothing of what they name is stored.
    """
    from feature_store.beside import NAMES, holdings  # noqa: PLC0415 - --help stays quick
    from feature_store.candle import Timeframe  # noqa: PLC0415 - as above
    from feature_store.partitions import series_in  # noqa: PLC0415 - as above

    named = [CANDLES, *NAMES] if kinds is None else list(dict.fromkeys(_names(kinds)))
    if unknown := [name for name in named if name not in (CANDLES, *NAMES)] or ([""] if not named else []):
        raise BadInputError(f"Unknown kind {unknown[0]!r}; use some of: {', '.join((CANDLES, *NAMES))}")
    wanted = None if symbols is None else set(_names(symbols))
    duration = None if timeframe is None else Timeframe.parse(timeframe)
    stored = [
        one
        for one in (series_in(candles.place, "*") if CANDLES in named else [])
        if venue in (None, one.venue) and duration in (None, one.timeframe)
    ]
    held = [
        one
        for one in holdings(candles, named)
        if venue in (None, one.subject.venue) and duration in (None, one.subject.timeframe)
    ]
    series = [one for one in stored if wanted is None or one.symbol in wanted]
    beside = [one for one in held if wanted is None or one.subject.symbol in wanted]
    absent = sorted((wanted or set()) - {one.symbol for one in stored} - {one.subject.symbol for one in held})
    if absent or (not series and not beside and (venue, symbols, timeframe) != (None, None, None)):
        kind = "" if kinds is None else f"kinds {kinds}, "
        what = ", ".join(absent) or f"{kind}venue {venue or 'any'}, timeframe {timeframe or 'any'}"
        raise BadInputError(f"Nothing is stored of {what} in {candles.place}; 'qtctl lake ls' shows what is")
    return series, beside


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@contextmanager
def bar(doing: str, *, quiet: bool) -> Iterator[Callable[[int, int, str], bool]]:
    """Show how far a long work is, with its rate's time left, where a person is looking on."""
    from rich.console import Console  # noqa: PLC0415 - --help stays quick
    from rich.progress import (  # noqa: PLC0415 - as above
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn(doing),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("of all"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
    )
    console = Console(file=sys.stderr)
    with Progress(*columns, console=console, disable=quiet or not console.is_terminal, transient=True) as bar:
        task = bar.add_task("", total=None)

        def show(done: int, total: int, name: str) -> bool:
            bar.update(task, completed=done, total=total, description=name)
            return True

        yield show


def table(heads: tuple[str, ...], rows: list[tuple[str, ...]]) -> None:
    """Print lines under their heads."""
    from rich.console import Console  # noqa: PLC0415 - --help stays quick
    from rich.table import Table  # noqa: PLC0415 - as above

    table = Table(*heads, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*row)
    console = Console()
    # A line that is longer than the terminal is better than a symbol that is cut.
    console.width = max(console.width, 140)
    console.print(table)


def named(series: Series) -> dict[str, Any]:
    """Return which series it is, for machines."""
    return {"kind": CANDLES, "venue": series.venue, "symbol": series.symbol, "timeframe": str(series.timeframe)}


def as_json(finding: Finding | Flaw) -> dict[str, Any]:
    """Return what is wrong with a file, for machines."""
    from feature_store.beside import Flaw  # noqa: PLC0415 - --help stays quick

    of = finding.holding.named() if isinstance(finding, Flaw) else named(finding.series)
    wrong = finding.fault if isinstance(finding, Flaw) else finding.kind
    shown = {"path": str(finding.place), "found": finding.found, "remedy": finding.remedy}
    return {**of, "of": of["kind"], "kind": str(wrong), **shown}


def has_news(done: Repaired | Mended) -> bool:
    """Tell whether a repair did anything, or left anything."""
    return bool(done.set_aside or done.swept or done.left)


def repaired(done: Repaired | Mended) -> dict[str, Any]:
    """Return what a repair did, for machines."""
    from feature_store.beside import Mended  # noqa: PLC0415 - --help stays quick

    lost = {"lost": list(done.lost)} if isinstance(done, Mended) else {}
    return {
        **(done.holding.named() if isinstance(done, Mended) else named(done.series)),
        **lost,
        "set_aside": [{"path": path, "found": found} for path, found in done.set_aside],
        "leftovers_removed": done.swept,
        "to_fetch": [{"start_ms": start, "end_ms": end} for start, end in done.to_fetch],
        "left": [as_json(finding) for finding in done.left],
    }


def tell_repair(done: Repaired | Mended) -> None:
    """Say what a repair did, and how to fetch again what it set aside."""
    from feature_store.beside import Mended  # noqa: PLC0415 - --help stays quick

    one = done.holding.subject if isinstance(done, Mended) else done.series
    kind = done.holding.name if isinstance(done, Mended) else ""
    lines = [" ".join(str(part) for part in (kind, one.venue, one.symbol, one.timeframe) if part)]
    lines += [f"  {found}: {path}" for path, found in done.set_aside]
    lines += [f"  {finding.place}: {finding.found}; {finding.remedy}" for finding in done.left]
    lines += [f"  fetch again {_day(start)} to {_day(end)}" for start, end in done.to_fetch]
    if done.to_fetch:
        options = f"--venue {one.venue} --symbols {one.symbol}"
        options = f"--kinds {kind} {options}" if kind else options
        options = options if one.timeframe is None else f"{options} --timeframe {one.timeframe}"
        lines.append(f"  with: qtctl ingest --repair {options}")
        lines.append(f"  or, where it was imported: qtctl ingest --from PLACE --repair {options}")
    if isinstance(done, Mended) and done.lost:
        lines.append(f"  nobody tells again what was known of: {', '.join(done.lost)}; the file set aside keeps it")
    print("\n".join(lines))  # noqa: T201 - a command speaks to who typed it


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
