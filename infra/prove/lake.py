"""Eight processes use the lake at once and are killed at random: nothing torn, lost or doubled."""

from __future__ import annotations

import fcntl
import json
import multiprocessing
import random
import tempfile
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from feature_store import clock
from feature_store.errors import CorruptFileError
from feature_store.partitions import Rows, months_of
from feature_store.upkeep import compact, retain, sweep_leftovers
from infra.prove import lake_crew
from infra.prove.lake_crew import CREW, KEEP_DAYS, KEPT_FROM_MS, SERIES, Ground, Page, Role, seed_page
from infra.prove.proof import Proof, Size

SECONDS = {Size.FULL: 600.0, Size.CI: 30.0}
LONGEST_LIFE_S = {Size.FULL: 20.0, Size.CI: 8.0}
BAR = "0 torn files, 0 lost and 0 doubled candles, 0 faults seen by readers, 0 locks held by the dead"


@dataclass(slots=True)
class Ledger:
    """What writers noted: each page they began, and of which of them they were told that it is done."""

    begun: dict[int, Page] = field(default_factory=dict)
    done: dict[int, int] = field(default_factory=dict)

    @property
    def broken_off(self) -> int:
        """How many appends a kill cut short."""
        return len(self.begun) - len(self.done)


@dataclass(slots=True)
class Judgement:
    """What is wrong with the lake in the end, in words and numbers."""

    torn: int = 0
    lost: int = 0
    doubled: int = 0
    alien: int = 0
    halved: int = 0
    candles: int = 0
    rows: int = 0

    @property
    def is_clean(self) -> bool:
        """Whether nothing is wrong."""
        return self.torn == self.lost == self.doubled == self.alien == self.halved == 0


def prove(size: Size) -> Proof:
    """Let the crew work and die for a while, then hold the lake against what writers were told is done."""
    with tempfile.TemporaryDirectory(prefix="prove-lake-") as home:
        ground = Ground(Path(home))
        seeds = Ledger()
        for number, series in enumerate(SERIES):
            page = seed_page(number)
            seeds.begun[page.number] = page
            seeds.done[page.number] = ground.lake.append(series, page.block)
        kills, left = _work_and_die(ground, SECONDS[size], LONGEST_LIFE_S[size])
        held = len(list(_held_locks(ground.lake.root)))
        ledger = read_ledgers(ground, seeds)
        for series in SERIES:
            retain(ground.lake, ground.store, [series], KEEP_DAYS)
            sweep_leftovers(ground.lake, series)
            for path in ground.lake.paths(series):
                compact(path)
        swept = not list(ground.lake.root.rglob("*.tmp"))
        judgement = judge(ground, ledger)
        faults = [json.loads(line) for line in _lines(ground.faults)]
        counts = {role: _size(ground.tally(role)) for role in Role}
    enough = kills >= len(CREW) and ledger.broken_off > 0 and left > 0 and all(counts.values())
    figure = (
        f"{counts[Role.WRITE]} appends, {counts[Role.READ]} reads, {counts[Role.COMPACT]} compactions, "
        f"{counts[Role.RETAIN]} retentions in {SECONDS[size]:.0f} s; {kills} kills, {ledger.broken_off} of them in an "
        f"append, {left} files seen half written; {judgement.torn} torn, {judgement.lost} lost, {judgement.doubled} "
        f"doubled, {judgement.alien + judgement.halved} otherwise wrong of {judgement.rows} rows; {len(faults)} faults "
        f"seen by readers, {held} locks held by the dead, half-written files {'swept' if swept else 'NOT swept'}"
    )
    return Proof(
        name="lake",
        figure=figure,
        bar=BAR,
        holds=judgement.is_clean and not faults and held == 0 and swept and enough,
        details=tuple(f"{fault}" for fault in faults[:5]),
    )


def _work_and_die(ground: Ground, seconds: float, longest_life_s: float) -> tuple[int, int]:
    """Keep the crew at work; return how many were killed, and how many kills left a half-written file."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([lake_crew.__name__])
    rng, started = random.Random(8), 0

    def start(role: Role) -> tuple[Any, float]:
        nonlocal started
        started += 1
        process = context.Process(target=lake_crew.play, args=(role, str(ground.home), started), daemon=True)
        process.start()
        return process, clock.monotonic() + rng.uniform(0.05, longest_life_s)

    end, kills, left = clock.monotonic() + seconds, 0, set[Path]()
    crew = [start(role) for role in CREW]
    while clock.monotonic() < end:
        for seat, (process, dies_at) in enumerate(crew):
            if clock.monotonic() < dies_at and process.is_alive():
                continue
            _kill(process)
            kills += 1
            left.update(ground.lake.root.rglob("*.tmp"))
            crew[seat] = start(CREW[seat])
        time.sleep(0.005)
    for process, _ in crew:
        _kill(process)
    return kills + len(crew), len(left | set(ground.lake.root.rglob("*.tmp")))


def _kill(process: Any) -> None:
    process.kill()
    process.join()


def _held_locks(root: Path) -> Iterator[Path]:
    """Yield the locks that somebody still holds."""
    for path in root.rglob(".*.lock"):
        with path.open("r+b") as handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                yield path


def read_ledgers(ground: Ground, ledger: Ledger) -> Ledger:
    """Add to a ledger what the writers noted; a line that a kill cut short was never followed by an append."""
    for path in sorted(ground.ledger(0).parent.glob("*.jsonl")):
        for line in _lines(path):
            try:
                entry = json.loads(line)
            except ValueError:
                continue
            if "page" in entry:
                page = Page(*entry["page"])
                ledger.begun[page.number] = page
            else:
                ledger.done[entry["done"]] = entry["added"]
    return ledger


def judge(ground: Ground, ledger: Ledger) -> Judgement:
    """Compare what is stored with what was appended, candle by candle and revision by revision."""
    found = Judgement()
    for number, series in enumerate(SERIES):
        pages = [page for page in ledger.begun.values() if page.series == number]
        try:
            rows = ground.lake.read_rows(series)
        except CorruptFileError:
            found.torn += 1
            continue
        found.alien += lake_crew.flaw(number, rows) is not None
        found.rows += len(rows)
        found.candles += len(rows.latest())
        if pages and pages[0].is_plain:
            _judge_plain(rows, pages, ledger, found)
        else:
            _judge_corrected(rows, pages, ledger, found)
    return found


def _judge_plain(rows: Rows, pages: Iterable[Page], ledger: Ledger, found: Judgement) -> None:
    times = rows.block.open_time_ms
    every, done = list(pages), [page for page in pages if page.number in ledger.done]
    promised = np.unique(np.concatenate([page.times for page in done]))
    begun = np.concatenate([page.times for page in every])
    found.lost += len(np.setdiff1d(_kept(promised), times))
    found.doubled += len(times) - len(np.unique(times))
    found.alien += len(np.setdiff1d(times, begun))


def _judge_corrected(rows: Rows, pages: Iterable[Page], ledger: Ledger, found: Judgement) -> None:
    """Each append has its own number, so that each row tells which append it came from."""
    stored = _pairs(rows.block.values[:, 4].astype(np.int64), rows.block.open_time_ms)
    unique = np.unique(stored)
    found.doubled += len(stored) - len(unique)
    begun = []
    for page in pages:
        mine = [
            _pairs(np.full(part.stop - part.start, page.number), page.times[part]) for _, part in months_of(page.block)
        ]
        begun += mine
        if page.number in ledger.done:
            # Nothing that is stored has this volume, so that every candle of the page was new.
            found.lost += abs(ledger.done[page.number] - page.candles)
    whole = np.concatenate(begun)
    found.alien += len(np.setdiff1d(unique, whole))
    _judge_parts(begun, unique, ledger, found)


def _judge_parts(parts: list[npt.NDArray[Any]], stored: npt.NDArray[Any], ledger: Ledger, found: Judgement) -> None:
    """What was promised is all there; what a kill cut short is there by whole months or not at all."""
    present = np.isin(np.concatenate(parts), stored)
    at = 0
    for part in parts:
        there = int(present[at : at + len(part)].sum())
        at += len(part)
        if part["time"][0] < KEPT_FROM_MS:
            continue
        if int(part["number"][0]) in ledger.done:
            found.lost += len(part) - there
        else:
            found.halved += there not in (0, len(part))


def _pairs(numbers: npt.NDArray[np.int64], times: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
    pairs = np.empty(len(times), [("number", np.int64), ("time", np.int64)])
    pairs["number"], pairs["time"] = numbers, times
    return pairs


def _kept(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return times[times >= KEPT_FROM_MS]


def _lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
