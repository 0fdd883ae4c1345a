"""Keeping longer candles of the lake in step with the minutes that they are derived from."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.derived import BASE, derive
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.partitions import Rows
from feature_store.sources.notes import alone_with, has_note, note_place, read_note, write_note

_NOTE = "derived"


def parse_derived(text: str) -> tuple[Timeframe, ...]:
    """
    Read a comma list of timeframes to derive from minutes.

    Raises:
        BadInputError: One of them is not a timeframe, or not longer than a minute.
    """
    chosen = tuple(dict.fromkeys(Timeframe.parse(name.strip()) for name in text.split(",") if name.strip()))
    if BASE in chosen:
        raise BadInputError(f"{BASE} is what longer candles are derived from; name some of 5m, 15m, 1h, 4h, 1d")
    return chosen


def is_derived(lake: CandleLake, series: Series) -> bool:
    """Tell whether a series was derived from minutes, rather than fetched."""
    return has_note(lake, series, _NOTE)


def refuse_derived(lake: CandleLake, series: Series) -> None:
    """
    Let fetched candles only into a series that was not derived: one that is half of each is neither.

    Raises:
        BadInputError: The series is derived.
    """
    if is_derived(lake, series):
        raise BadInputError(
            f"{series.symbol} {series.timeframe} is derived from {BASE} candles, and fetched ones are not mixed into "
            f"it; use --timeframe {BASE} --derive {series.timeframe}, or move "
            f"{note_place(lake, series, _NOTE).parent} away"
        )


async def keep_derived(
    lake: CandleLake, minutes: Series, timeframes: Iterable[Timeframe], *, whole_from_ms: int | None = None
) -> dict[Series, int]:
    """
    Derive what is new in the minutes of a symbol; return how many rows each longer series gained.

    Only months whose minutes changed are derived again. What is stored already stays: a candle that comes out
    differently is a new revision.

    Args:
        lake: Where the minutes are, and where the longer candles go.
        minutes: The series of minutes.
        timeframes: What to derive.
        whole_from_ms: From where on the minutes are all that the venue has.

    Raises:
        BadInputError: The minutes are not of 1m, or candles of that timeframe were fetched before.
        CorruptFileError: A stored file is damaged; it was left as it is.
    """
    if minutes.timeframe is not BASE:
        raise BadInputError(f"Longer candles are derived from {BASE} candles; use --timeframe {BASE} with --derive")
    added = {}
    for timeframe in timeframes:
        target = replace(minutes, timeframe=timeframe)
        _refuse_fetched(lake, target)
        async with alone_with(lake, target):
            added[target] = await asyncio.to_thread(_derive_changed, lake, minutes, target, whole_from_ms)
    return added


def _refuse_fetched(lake: CandleLake, target: Series) -> None:
    if not is_derived(lake, target) and lake.paths(target):
        folder = note_place(lake, target, _NOTE).parent
        raise BadInputError(
            f"{target.symbol} {target.timeframe} holds candles that were fetched or imported, and derived ones are not "
            f"mixed into it; leave {target.timeframe} out of --derive, or move {folder} away"
        )


def _derive_changed(lake: CandleLake, minutes: Series, target: Series, whole_from_ms: int | None) -> int:
    # Read before the candles are: what is appended meanwhile is seen as a change the next time.
    months = {path.stem: _mark(path) for path in lake.paths(minutes)}
    note = read_note(lake, target, _NOTE)
    known = note.get("months", {}) if note.get("whole_from_ms") == whole_from_ms else {}
    changed = sorted(month for month, mark in months.items() if mark is None or known.get(month) != mark)
    if not changed:
        return 0
    # The mark comes first: after a crash the candles that lie here are known for what they are.
    write_note(lake, target, _NOTE, {"from": str(BASE), "whole_from_ms": whole_from_ms, "months": {}})
    # No candle crosses a month, but the last one of a month may become known with the first minute of the next.
    from_ms = _start_of(changed[0]) - target.timeframe.milliseconds
    rows = lake.read_rows(minutes, from_ms)
    first = lake.first_open_time_ms(minutes)
    begin_ms = (first or 0) if whole_from_ms is None else whole_from_ms
    told = derive(rows, target.timeframe, whole_from_ms=max(from_ms, begin_ms))
    added = _append(lake, target, told)
    write_note(lake, target, _NOTE, {"from": str(BASE), "whole_from_ms": whole_from_ms, "months": months})
    return added


def apart(lake: CandleLake, target: Series) -> tuple[int, list[int]]:
    """
    Derive a series again: return how many candles its stored minutes add up to, and where the stored ones differ.

    Compared is where both are stored, up to the newest derived candle; of a series that was fetched, nothing is.

    Raises:
        CorruptFileError: A stored file is damaged.
    """
    minutes = replace(target, timeframe=BASE)
    if not is_derived(lake, target) or target.timeframe is BASE:
        return 0, []
    rows, stored = lake.read_rows(minutes), lake.read(target)
    first, last = rows.block.first_open_time_ms, stored.last_open_time_ms
    if first is None or last is None:
        return 0, []
    whole_from_ms = read_note(lake, target, _NOTE).get("whole_from_ms")
    # Minutes that retention removed are no reason to doubt what was made of them.
    begin = first if whole_from_ms is None else max(whole_from_ms, first - first % target.timeframe.milliseconds)
    told = derive(rows, target.timeframe, whole_from_ms=begin).latest().block
    ours = {row[0]: row[1:] for row in _rows_between(told, begin, last)}
    theirs = {row[0]: row[1:] for row in _rows_between(stored, begin, last)}
    return len(ours), sorted(time for time in ours.keys() | theirs.keys() if ours.get(time) != theirs.get(time))


def _rows_between(block: CandleBlock, begin_ms: int, last_ms: int) -> Iterator[tuple[Any, ...]]:
    chosen = (block.open_time_ms >= begin_ms) & (block.open_time_ms <= last_ms)
    for time, values in zip(block.open_time_ms[chosen].tolist(), block.values[chosen].tolist(), strict=True):
        yield (time, *values)


def _mark(place: Any) -> list[int] | None:
    """Return what changes when a month does; None where that is not told, as by an object store."""
    if not isinstance(place, Path):
        return None
    found = place.stat()
    return [found.st_size, found.st_mtime_ns]


def _append(lake: CandleLake, target: Series, told: Rows) -> int:
    """Store the revisions that are newer than what is stored; in the end the newest one is what was told last."""
    if len(told) == 0:
        return 0
    stored = lake.read_rows(target, int(told.block.open_time_ms[0])).latest()
    at = np.searchsorted(stored.block.open_time_ms, told.block.open_time_ms)
    inside = at < len(stored)
    known_ms = np.full(len(told), -1, np.int64)
    there = np.zeros(len(told), np.bool_)
    there[inside] = stored.block.open_time_ms[at[inside]] == told.block.open_time_ms[inside]
    known_ms[there] = stored.available_at_ms[at[there]]
    newer = told.take(told.available_at_ms > known_ms)
    added = 0
    for revision in range(int(told.revision.max()) + 1):
        part = newer.take(newer.revision == revision)
        added += lake.append(target, part.block, available_at_ms=part.available_at_ms)
    last = told.latest()
    return added + lake.append(target, last.block, available_at_ms=last.available_at_ms)


def _start_of(month: str) -> int:
    return int(datetime.strptime(month, "%Y-%m").replace(tzinfo=UTC).timestamp()) * 1000
