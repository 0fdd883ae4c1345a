"""Races of feature pipelines: lakes to run over, turns that alternate, what a process cost with its children."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import psutil

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.lake import CandleLake
from infra.prove.markets import market
from infra.prove.stage import ROOT, ProofError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_DIFFERENT = 20  # Markets that differ; beyond them symbols share candles, which changes no work.
_SECONDS = 1800
_EVERY_S = 0.01


@dataclass(frozen=True, slots=True)
class Cost:
    """What one turn took."""

    wall_s: float
    cpu_s: float
    peak_mb: float = 0.0


def markets(symbols: int, candles: int) -> list[CandleBlock]:
    """Return markets as blocks that do not share memory."""
    made = [market(candles, seed=seed, flat=0.02) for seed in range(min(symbols, _DIFFERENT))]
    return [CandleBlock(made[at % len(made)].open_time_ms, made[at % len(made)].values.copy()) for at in range(symbols)]


def fill_lake(root: Path, symbols: int, candles: int) -> CandleLake:
    """Return a lake of that many symbols."""
    lake = CandleLake(root)
    made = [market(candles, seed=seed, flat=0.02) for seed in range(min(symbols, _DIFFERENT))]
    for number in range(symbols):
        lake.append(Series("proof", f"S{number:04}/USDT:USDT", Timeframe.M5), made[number % len(made)])
    return lake


def take_turns(racers: Mapping[str, Callable[[], Cost]], turns: int) -> dict[str, list[Cost]]:
    """Let racers run one after the other, again and again, so that a busy machine is busy for all of them."""
    costs: dict[str, list[Cost]] = {name: [] for name in racers}
    for _ in range(turns):
        for name, run in racers.items():
            costs[name].append(run())
    return costs


def ratio(costs: Mapping[str, list[Cost]], ours: str, theirs: str) -> float:
    """Return the median over the turns of our time over theirs in the same turn."""
    return median(a.wall_s / b.wall_s for a, b in zip(costs[ours], costs[theirs], strict=True))


def described(costs: Mapping[str, list[Cost]]) -> list[str]:
    """Return one line for each racer."""
    return [
        f"{name:<10} {median(one.wall_s for one in found):8.3f} s wall, {median(one.cpu_s for one in found):8.3f} s of"
        f" processors{f', at most {max(one.peak_mb for one in found):.0f} MB' if found[0].peak_mb else ''}"
        for name, found in costs.items()
    ]


def timed(work: Callable[[], object]) -> Cost:
    """Run in this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    work()
    return Cost(time.perf_counter() - wall, time.process_time() - cpu)


def process(who: str, lake: Path, target: Path) -> Cost:
    """Run a whole process of its own from a lake to files; measure it with its children, and remove what it wrote."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    command = [sys.executable, "-m", "infra.prove.feature_process", who, str(lake), str(target)]
    before, started = os.times(), time.perf_counter()
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    peak = _Peak(child.pid)
    peak.start()
    _, errors = child.communicate(timeout=_SECONDS)
    wall, after = time.perf_counter() - started, os.times()
    peak.join()
    written = any(target.iterdir())
    shutil.rmtree(target)
    if child.returncode != 0 or not written:
        raise ProofError(f"{who} failed: {errors[-1500:]}")
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    return Cost(wall, cpu, peak.most_mb)


class _Peak(threading.Thread):
    """Watches the resident memory of a process and its children until they end."""

    def __init__(self, pid: int) -> None:
        super().__init__(daemon=True)
        self.most_mb = 0.0
        self._root = psutil.Process(pid)

    def run(self) -> None:
        while True:
            try:
                if self._root.status() == psutil.STATUS_ZOMBIE:
                    return
                family = [self._root, *self._root.children(recursive=True)]
                self.most_mb = max(self.most_mb, sum(one.memory_info().rss for one in family) / 2**20)
            except psutil.Error:
                return
            time.sleep(_EVERY_S)
