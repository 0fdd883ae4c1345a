"""The eight processes of `prove-lake`: writers, readers and keepers that work until they are killed."""

from __future__ import annotations

import json
import os
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.partitions import Rows
from feature_store.store import FeatureStore
from feature_store.upkeep import compact, retain

STEP = Timeframe.M5.milliseconds
PLAIN = tuple(Series("prove", f"PLAIN{number}/USDT", Timeframe.M5) for number in range(3))
"""Series that are never corrected: every page says the same of a candle."""
CORRECTED = tuple(Series("prove", f"CORRECTED{number}/USDT", Timeframe.M5) for number in range(3))
"""Series in which every page corrects what it overlaps: its volume is the number of the append."""
SERIES = PLAIN + CORRECTED

_OLD = int(datetime(2025, 2, 1, tzinfo=UTC).timestamp() * 1000)
_NEW = int(datetime(2025, 3, 1, tzinfo=UTC).timestamp() * 1000)
KEPT_FROM_MS = _OLD
"""Retention removes what opens before; what opens later must all be there in the end."""
KEEP_DAYS = (_NEW - _OLD) // 86_400_000
_REACH = 150
"""Pages lie around the ends of two months, so that three files are contended for and some pages span two of them."""
NEWEST_MS = _NEW + (_REACH + 40) * STEP
PER_PROCESS = 10_000_000


class Role(StrEnum):
    """What one of the eight does."""

    WRITE = "write"
    READ = "read"
    COMPACT = "compact"
    RETAIN = "retain"


CREW = (Role.WRITE,) * 4 + (Role.READ,) * 2 + (Role.COMPACT, Role.RETAIN)


@dataclass(frozen=True, slots=True)
class Ground:
    """Where the lake lies, and where its crew notes what it did."""

    home: Path

    @property
    def lake(self) -> CandleLake:
        """The lake that all of them share."""
        return CandleLake(self.home / "lake")

    @property
    def store(self) -> FeatureStore:
        """The feature store whose state retention waits for."""
        return FeatureStore(self.home / "features")

    def ledger(self, process: int) -> Path:
        """File in which one writer notes what it is about to append, and what it was told is done."""
        return self.home / "ledgers" / f"{process:08}.jsonl"

    @property
    def faults(self) -> Path:
        """File in which everybody notes what must not be."""
        return self.home / "faults.jsonl"

    def tally(self, role: Role) -> Path:
        """File that grows by a byte for each thing done."""
        return self.home / f"{role}.count"


@dataclass(frozen=True, slots=True)
class Page:
    """One append: candles of a series in a row, under a number of its own."""

    number: int
    series: int
    first_ms: int
    candles: int

    @property
    def times(self) -> npt.NDArray[np.int64]:
        """Open times of the candles."""
        return self.first_ms + np.arange(self.candles, dtype=np.int64) * STEP

    @property
    def is_plain(self) -> bool:
        """Whether the page says what every other page says."""
        return self.series < len(PLAIN)

    @property
    def block(self) -> CandleBlock:
        """The candles themselves."""
        return expected(self.series, self.times, np.full(self.candles, 0 if self.is_plain else self.number))


def expected(series: int, times: npt.NDArray[np.int64], numbers: npt.NDArray[np.int64]) -> CandleBlock:
    """Return candles as whoever wrote them must have written them: prices by series and time, volume by append."""
    low = 100.0 + (times // STEP * 7919 + series * 104_729) % 9973 / 100
    values = np.column_stack([low + 0.25, low + 1.0, low, low + 0.75, numbers.astype(np.float64)])
    return CandleBlock(times, values)


def seed_page(series: int) -> Page:
    """Return a last candle that stays the newest, so that retention cuts in the same place at any time."""
    return Page(1 + series, series, NEWEST_MS, 1)


def play(role: Role, home: str, process: int) -> None:
    """Work until killed; whatever else ends it is a fault, and noted."""
    ground = Ground(Path(home))
    try:
        _ROLES[role](ground, np.random.default_rng(process), process)
    except BaseException:  # noqa: BLE001 - a crew member that stops by itself has failed, whatever the reason
        note(ground.faults, {"process": process, "role": role, "fault": traceback.format_exc(limit=-3)})


def note(path: Path, entry: dict[str, Any]) -> None:
    """Append one line and have it on disk before going on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, json.dumps(entry).encode() + b"\n")
        os.fsync(handle)
    finally:
        os.close(handle)


def _count(path: Path) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    os.write(handle, b".")
    os.close(handle)


def _pages(rng: np.random.Generator, process: int) -> Iterator[Page]:
    for number in range(process * PER_PROCESS, (process + 1) * PER_PROCESS):
        series = int(rng.integers(len(SERIES)))
        candles = int(rng.integers(1, 40 if series < len(PLAIN) else 6))
        middle = (_OLD, _NEW)[int(rng.integers(2))]
        yield Page(number, series, middle + int(rng.integers(-_REACH, _REACH)) * STEP, candles)


def _write(ground: Ground, rng: np.random.Generator, process: int) -> None:
    lake, ledger = ground.lake, ground.ledger(process)
    for page in _pages(rng, process):
        entry = {"page": [page.number, page.series, page.first_ms, page.candles]}
        note(ledger, entry)
        added = lake.append(SERIES[page.series], page.block)
        note(ledger, {"done": page.number, "added": added})
        _count(ground.tally(Role.WRITE))


def _read(ground: Ground, rng: np.random.Generator, process: int) -> None:
    lake, seen = ground.lake, dict.fromkeys(range(len(SERIES)), 0)
    while True:
        number = int(rng.integers(len(SERIES)))
        rows = lake.read_rows(SERIES[number])
        fault = flaw(number, rows)
        kept = int((rows.block.open_time_ms >= KEPT_FROM_MS).sum())
        if fault is None and kept < seen[number]:
            fault = f"{seen[number] - kept} rows went away"
        if fault is not None:
            note(ground.faults, {"process": process, "series": SERIES[number].symbol, "fault": fault})
        seen[number] = kept
        _count(ground.tally(Role.READ))


def flaw(number: int, rows: Rows) -> str | None:
    """Return what is wrong with what was read of a series, if anything is."""
    times, volume = rows.block.open_time_ms, rows.block.values[:, 4]
    ids = volume.astype(np.int64)
    if (np.diff(times) < 0).any():
        return "candles out of order"
    begins = np.append([True], times[1:] != times[:-1])[: len(times)]
    count = np.arange(len(times)) - np.maximum.accumulate(np.where(begins, np.arange(len(times)), 0))
    if not np.array_equal(rows.revision, count):
        return "a revision is missing or there twice"
    if number < len(PLAIN) and (ids != 0).any():
        return "a candle that nobody wrote"
    if not rows.block.equals(expected(number, times, ids)):
        return "a candle that is not what was written"
    return None


def _compact(ground: Ground, rng: np.random.Generator, _process: int) -> None:
    lake = ground.lake
    while True:
        for path in lake.paths(SERIES[int(rng.integers(len(SERIES)))]):
            # Retention may have been quicker.
            try:
                compact(path)
            except FileNotFoundError:
                continue
            _count(ground.tally(Role.COMPACT))
        time.sleep(rng.uniform(0, 0.05))


def _retain(ground: Ground, rng: np.random.Generator, _process: int) -> None:
    lake, store = ground.lake, ground.store
    while True:
        time.sleep(rng.uniform(0, 0.5))
        if retain(lake, store, [SERIES[int(rng.integers(len(SERIES)))]], KEEP_DAYS):
            _count(ground.tally(Role.RETAIN))


_ROLES: dict[Role, Callable[[Ground, np.random.Generator, int], None]] = {
    Role.WRITE: _write,
    Role.READ: _read,
    Role.COMPACT: _compact,
    Role.RETAIN: _retain,
}
