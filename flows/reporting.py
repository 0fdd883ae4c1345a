"""The report on what is stored, in a terminal; no server is needed for it."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from feature_store.absences import Span
from feature_store.files import replace_bytes
from feature_store.terminal import OK
from flows.coverage_map import heat_picture, quality_rows
from flows.frames import newest_close_ms, stored_series
from flows.judging import judged
from flows.settings import FlowSettings
from flows.wording import moment

_DAY_MS = 86_400_000


def report_in_terminal(settings: FlowSettings, *, as_json: bool) -> int:
    """
    Print what is absent and what is suspect in the stored series, keep the picture of it, and return the exit status.

    Raises:
        UnknownSymbolError: A chosen symbol is not stored.
        BadInputError: Nothing is stored.
        CorruptFileError: A stored file is damaged.
    """
    lake = settings.candle_lake()
    series = stored_series(lake, settings)
    end_ms = newest_close_ms(lake, series)
    span = Span(end_ms - settings.days * _DAY_MS, end_ms)
    blocks = lake.read_many(series, span.start_ms, span.end_ms)
    found = judged(lake, blocks, span)
    rows = quality_rows(found)
    path = picture_path(settings)
    replace_bytes(path, heat_picture(found, blocks, span))
    if as_json:
        print(json.dumps(rows))  # noqa: T201 - a command speaks to the person who typed it
        return OK
    table = Table(box=None, pad_edge=False, title=f"{moment(span.start_ms)} to {moment(span.end_ms)}")
    for heading in rows[0]:
        table.add_column(heading, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row.values()))
    console = Console(file=sys.stdout)
    console.print(table)
    console.print(f"The picture of it: {path}", soft_wrap=True)
    return OK


def picture_path(settings: FlowSettings) -> Path:
    """Return where the newest picture of a venue and timeframe is kept."""
    return settings.home / "reports" / f"coverage-{settings.venue}-{settings.timeframe}.png"
