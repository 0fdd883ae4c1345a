"""The feature kernel against its peers in one run: in memory, and from a lake of Parquet files to Parquet files."""

from __future__ import annotations

import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import polars as pl

from feature_store.candle import COLUMNS, CandleBlock, Timeframe
from feature_store.features.batch import features_of
from feature_store.features.definition import FEATURE_NAMES, WARM_UP
from infra.prove.comparing import relative_error
from infra.prove.feature_races import Cost, described, fill_lake, markets, process, ratio, take_turns, timed
from infra.prove.peer_expressions import by_pandas, by_polars
from infra.prove.peer_talib import by_arrays, by_frames
from infra.prove.proof import Proof, Size
from infra.prove.stage import ProofError

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

TOLERANCE = 1e-9
_THREADS = 2


@dataclass(frozen=True, slots=True)
class Extent:
    """How many symbols of how many candles, how often each racer runs, and what each ratio may be."""

    symbols: int
    candles: int
    turns: int
    slow_turns: int
    bars: dict[str, float]


# A small run pays the same start of Python and pyarrow for a tenth of the rows, which is most of its time; and Polars
# spreads less over two processors.
EXTENTS = {
    Size.FULL: Extent(
        100,
        25_920,
        9,
        3,
        {
            "in memory / TA-Lib": 0.5,
            "in memory / Polars": 0.06,
            "in memory / pandas": 0.04,
            "in memory / copying": 2.0,
            "process / TA-Lib": 1.0,
            "process / Polars": 0.4,
            "process / FreqAI": 0.25,
        },
    ),
    Size.CI: Extent(
        20,
        8_640,
        5,
        3,
        {
            "in memory / TA-Lib": 0.6,
            "in memory / Polars": 0.12,
            "in memory / pandas": 0.08,
            "process / Polars": 1.0,
            "process / FreqAI": 1.0,
        },
    ),
}


def prove(size: Size) -> Proof:
    """Check that all compute the same, then race them by turns."""
    extent = EXTENTS[size]
    blocks = markets(extent.symbols, extent.candles)
    _agree([block[:3_000] for block in blocks[:4]])
    in_memory, copied = _in_memory(blocks, extent)
    with tempfile.TemporaryDirectory(prefix="qt-prove-speed-") as folder:
        whole = _processes(Path(folder), extent)
    aside = {
        # In the bars the kernel writes where it wrote before, as a pipeline does; TA-Lib allocates its own results.
        "in memory / TA-Lib, the kernel's result in new memory": ratio(in_memory, "kernel afresh", "TA-Lib"),
        # What their users write by default builds dictionaries of prices; without, they are quicker.
        "process / FreqAI that writes as plainly as ours": ratio(whole, "ours", "freqai-plain"),
    }
    ratios = {
        "in memory / TA-Lib": ratio(in_memory, "kernel", "TA-Lib"),
        "in memory / Polars": ratio(in_memory, "kernel beside", "Polars beside"),
        "in memory / pandas": ratio(in_memory, "kernel beside", "pandas beside"),
        "in memory / copying": ratio(in_memory, "kernel", "copying"),
        "process / TA-Lib": ratio(whole, "ours", "talib"),
        "process / Polars": ratio(whole, "ours", "polars"),
        "process / FreqAI": ratio(whole, "ours", "freqai"),
    }
    missed = [name for name, bar in extent.bars.items() if ratios[name] > bar]
    return Proof(
        name="feature-speed",
        figure=", ".join(f"{name} {value:.3f}" for name, value in ratios.items())
        + (f"; missed: {', '.join(missed)}" if missed else ""),
        bar=", ".join(f"{name} <= {bar:g}" for name, bar in extent.bars.items()),
        holds=not missed,
        is_speed=True,
        details=(
            f"49 features x {extent.symbols * extent.candles:,} rows, float64, {_THREADS} threads",
            f"all agree to {TOLERANCE:g}; medians of {extent.turns} turns ({extent.slow_turns} of the slow)",
            f"copying moves as many bytes, {copied / 2**20:,.0f} MB read and written",
            *[f"beside the bars: {name} {value:.3f}" for name, value in aside.items()],
            *described(in_memory),
            *described(whole),
        ),
    )


def _columns(blocks: list[CandleBlock]) -> dict[str, Any]:
    values = np.concatenate([block.values for block in blocks])  # noqa: PD011 - candles, no frame
    lengths = [len(block) for block in blocks]
    first = np.zeros(len(values))
    begins = np.cumsum([0, *lengths[:-1]])
    first[begins] = values[begins, 4]
    columns: dict[str, Any] = {name: values[:, place].copy() for place, name in enumerate(COLUMNS)}
    return columns | {"first": first, "symbol": np.repeat(np.arange(len(blocks)), lengths)}


def _frames(blocks: list[CandleBlock]) -> list[Any]:
    return [pd.DataFrame(_columns([block])) for block in blocks]


def _agree(blocks: list[CandleBlock]) -> float:
    """Return the largest error between any racer and the kernel after warm-up; fail where it is no fair race."""
    ours = features_of(blocks, Timeframe.M5, threads=_THREADS)
    by_series = [by_arrays(block.values) for block in blocks]
    found: dict[str, Callable[[int], Any]] = {
        "TA-Lib": lambda place: np.concatenate([one[place] for one in by_series]),
    }
    for name, frame in {
        "Polars": by_polars(pl.DataFrame(_columns(blocks)).lazy()).collect(),
        "pandas": pd.concat([by_pandas(frame) for frame in _frames(blocks)]),
        "FreqAI": pd.concat([by_frames(frame) for frame in _frames(blocks)]),
    }.items():
        found[name] = lambda place, frame=frame: frame[FEATURE_NAMES[place]].to_numpy()
    worst = 0.0
    within = np.concatenate([np.arange(len(block)) for block in blocks])
    for name, column in found.items():
        for place, feature in enumerate(FEATURE_NAMES):
            warm = within >= WARM_UP[place]
            theirs = column(place)[warm]
            # Where nothing moves they divide 0 by 0, and we do not.
            theirs = np.where(np.isnan(theirs) & (ours[place][warm] == 0), 0.0, theirs)
            error = relative_error(theirs, ours[place][warm])
            if np.isnan(theirs).any() or error > TOLERANCE:
                raise ProofError(f"{name} computes another {feature} (relative error {error:.1e}): no fair race")
            worst = max(worst, error)
    return worst


def _in_memory(blocks: list[CandleBlock], extent: Extent) -> tuple[dict[str, list[Cost]], int]:
    rows = sum(map(len, blocks))
    out = np.zeros((len(FEATURE_NAMES), rows))
    together = pl.DataFrame(_columns(blocks))
    frames = _frames(blocks)
    moved = 8 * rows * (len(COLUMNS) + len(FEATURE_NAMES))
    half = moved // 2 // _THREADS // 8
    sources, goals = [np.ones(half) for _ in range(_THREADS)], [np.zeros(half) for _ in range(_THREADS)]
    pool = ThreadPoolExecutor(_THREADS)
    values = [block.values for block in blocks]  # noqa: PD011
    kept: list[Any] = []

    def by_talib() -> None:
        kept[:] = []
        kept[:] = pool.map(by_arrays, values)

    racers: dict[str, Callable[[], object]] = {
        "kernel": lambda: features_of(blocks, Timeframe.M5, threads=_THREADS, out=out),
        "TA-Lib": by_talib,
        "kernel afresh": lambda: features_of(blocks, Timeframe.M5, threads=_THREADS),
        "copying": lambda: list(pool.map(np.copyto, goals, sources)),
    }
    slow: dict[str, Callable[[], object]] = {
        "Polars": lambda: by_polars(together.lazy()).collect(),
        "pandas": lambda: [by_pandas(frame) for frame in frames],
    }
    with pool:
        for warm in racers.values():
            warm()
        costs = take_turns({name: _timer(work) for name, work in racers.items()}, extent.turns)
        kept.clear()
        again = {"kernel": racers["kernel"], **slow}
        slow_costs = take_turns({name: _timer(work) for name, work in again.items()}, extent.slow_turns)
    # The slow run fewer turns, each beside one of the kernel's.
    return costs | {f"{name} beside": found for name, found in slow_costs.items()}, moved


def _timer(work: Callable[[], object]) -> Callable[[], Cost]:
    return lambda: timed(work)


def _processes(folder: Path, extent: Extent) -> dict[str, list[Cost]]:
    fill_lake(folder / "lake", extent.symbols, extent.candles)

    def run(who: str) -> Callable[[], Cost]:
        return lambda: process(who, folder / "lake", folder / "out")

    racers = {who: run(who) for who in ("ours", "talib", "polars", "freqai", "freqai-plain")}
    for warm in racers.values():
        warm()
    return take_turns(racers, extent.slow_turns)
