"""How the feature pipeline grows: ten times the symbols, streamed from the lake to Parquet, in memory that stays."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from infra.prove.feature_races import Cost, fill_lake, process
from infra.prove.proof import Proof, Size

MAX_GROWTH = 11.0
MAX_PEAK_MB = 500.0


@dataclass(frozen=True, slots=True)
class Extent:
    """Symbols of each step, candles of each symbol, and how often the step is run; the quickest run counts."""

    symbols: tuple[int, ...]
    candles: int
    runs: tuple[int, ...]


EXTENTS = {Size.FULL: Extent((10, 100, 1000), 25_920, (3, 3, 1)), Size.CI: Extent((10, 100), 8_640, (2, 2))}


def prove(size: Size) -> Proof:
    """Run a whole process for each number of symbols, its start included."""
    extent = EXTENTS[size]
    costs: list[Cost] = []
    with tempfile.TemporaryDirectory(prefix="qt-prove-scale-") as folder:
        for symbols, runs in zip(extent.symbols, extent.runs, strict=True):
            lake = Path(folder) / f"lake-{symbols}"
            fill_lake(lake, symbols, extent.candles)
            found = [process("ours", lake, Path(folder) / "out") for _ in range(runs)]
            quickest = min(found, key=lambda one: one.wall_s)
            costs.append(Cost(quickest.wall_s, quickest.cpu_s, max(one.peak_mb for one in found)))
    growth = [
        later.wall_s / earlier.wall_s * 10.0 / (more / fewer)
        for (earlier, later), (fewer, more) in zip(pairwise(costs), pairwise(extent.symbols), strict=True)
    ]
    peak = max(one.peak_mb for one in costs)
    return Proof(
        name="feature-scale",
        figure=f"time x{', x'.join(f'{one:.1f}' for one in growth)} for ten times the symbols, at most {peak:.0f} MB",
        bar=f"<= x{MAX_GROWTH:g} each, <= {MAX_PEAK_MB:g} MB at every size",
        holds=max(growth) <= MAX_GROWTH and peak <= MAX_PEAK_MB,
        is_speed=True,
        details=tuple(
            f"{symbols} symbols, {symbols * extent.candles:,} rows: {one.wall_s:.2f} s wall, {one.cpu_s:.2f} s of"
            f" processors, {one.peak_mb:.0f} MB"
            for symbols, one in zip(extent.symbols, costs, strict=True)
        ),
    )
