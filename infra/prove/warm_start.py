"""What nets lose or gain that start from the weights of the day before, in fewer steps or as many, on the same rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from msgspec.structs import replace
from scipy.stats import t as student

from feature_store.clock import monotonic
from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Rows, TrainingFrame
from flows.training.members.dlinear import fit_dlinear
from flows.training.members.neural import FittedNet, Weights
from flows.training.members.nhits import fit_nhits
from flows.training.members.patchtst import fit_patchtst
from flows.training.moments import BlockSums, Interval, Sampling, ratio
from flows.training.splits import plan_splits
from inference.models.market_move import without_market
from infra.prove.gate_markets import synthetic_frames
from infra.prove.learning_real import Extent, frames_until, stretches
from infra.prove.proof import Proof, Size
from infra.prove.recorded_markets import FOLDER_VARIABLE
from infra.sandbox.market.equations import DEFAULT_EDGE

MARGIN = 0.001
"""How much larger errors may be, as a share of those of expecting nothing, and still be called no worse."""

WAYS = {"warm": 1, "warm in a third": 3}
"""What is held against a cold fit, by which part of its steps."""

CHANCE = "cold again"
BESIDE = {CHANCE: 1, "cold in a third": 3}
"""Cold fits printed beside: one with another seed, to tell chance, and a short one, to tell what fewer steps do."""

_DAY_MS = 86_400_000
_BLOCK_MS = 2 * 3_600_000
_FIT = {"nhits": fit_nhits, "patchtst": fit_patchtst, "dlinear": fit_dlinear}


@dataclass(frozen=True, slots=True)
class Extents:
    """
    How much is fitted.

    Synthetic markets and recorded ones, symbols of each, days of a window, days that follow each other, and which part
    of the steps.
    """

    seeds: int
    recorded: int
    symbols: int
    days: int
    moves: int
    part: int
    members: tuple[str, ...]


EXTENTS = {
    Size.FULL: Extents(6, 3, 6, 30, 4, 1, ("nhits", "patchtst", "dlinear")),
    Size.CI: Extents(2, 1, 3, 12, 2, 20, ("nhits", "patchtst")),
}


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """Errors of every way to fit one member in one market at the end of its days, and the seconds of each fit."""

    market: str
    member: str
    errors: BlockSums
    seconds: dict[str, float]


def prove(size: Size) -> Proof:
    """Fit nets day after day, cold and warm, and hold their errors on what came after against each other."""
    extent = EXTENTS[size]
    markets = list(_markets(extent))
    context = get_context("spawn")
    with ProcessPoolExecutor(2, mp_context=context) as pool:
        running = [
            pool.submit(held, name, member, frames, extent) for name, frames in markets for member in extent.members
        ]
        found = [one.result() for one in running]
    details = [_line(one) for one in found]
    worst = dict.fromkeys(WAYS, -np.inf)
    for kind in dict.fromkeys(one.market.split()[0] for one in found):
        for member in extent.members:
            some = [one for one in found if one.member == member and one.market.startswith(kind)]
            over = {way: of_markets([excess(one.errors, way).value for one in some]) for way in (*WAYS, *BESIDE)}
            details.append(f"{len(some)} {kind}, {member}: " + "; ".join(_told(way, one) for way, one in over.items()))
            worst = {way: max(high, over[way].high) for way, high in worst.items()}
    told = ", ".join(
        f"{way} {'no worse' if high <= MARGIN else 'not shown to be no worse'} (upper end {high:+.4f})"
        for way, high in worst.items()
    )
    if len(markets) == extent.seeds:
        details.append(f"synthetic markets only: {FOLDER_VARIABLE} names no folder with recorded candles")
    return Proof(
        name="warm-start",
        figure=f"nets started from the day before, errors beyond a cold fit's: {told}",
        bar=f"runs to its end, and says of each way whether its errors exceed a cold fit's by less than {MARGIN:g}",
        holds=not any(np.isnan(high) for high in worst.values()),
        details=tuple(details),
    )


def _markets(extent: Extents) -> Iterator[tuple[str, FrameSet]]:
    days = extent.days + extent.moves
    for seed in range(extent.seeds):
        yield f"synthetic {seed}", synthetic_frames(extent.symbols, days, DEFAULT_EDGE, 51 + seed)[0]
    folder = os.environ.get(FOLDER_VARIABLE)
    wanted = Extent(1, extent.symbols, days, "full")
    left = extent.recorded
    for path, end_ms in reversed(stretches(Path(folder), wanted)) if folder else ():
        try:
            frames = frames_until(path, end_ms, wanted)
        except BadInputError:
            continue  # Long enough, but with gaps.
        yield f"recorded {path.stem}", frames
        left -= 1
        if not left:
            return


def held(market: str, member: str, frames: FrameSet, extent: Extents) -> Held:
    """
    Fit a member on windows that end a day later each, and judge the last fits on the rows that came after their window.

    What starts warm starts from what was warm the day before, as a chain of jobs would.
    """
    config = TrainingConfig(created_at="", code_version="warm-start")
    sizes = getattr(config, member)
    last_ms = max(int(one.open_time_ms[-1]) for one in frames.frames)
    before: dict[str, Weights] = {}
    said: dict[str, Floats] = {}
    seconds: dict[str, float] = {}
    for move in range(extent.moves + 1):
        end_ms = last_ms - (extent.moves - move) * _DAY_MS
        dataset, fit, after = _rows(between(frames, end_ms - extent.days * _DAY_MS, end_ms), config)
        is_last = move == extent.moves
        # A cold fit owes nothing to the days between.
        for way, part in ({"cold": 1} | BESIDE | WAYS if is_last else WAYS if move else {"cold": 1}).items():
            steps = max(sizes.max_steps // (part * extent.part), 1)
            # Nothing says that chance favours the same way every day.
            seed = config.seed + move + 100 * (way == CHANCE)
            one = replace(config, seed=seed, **{member: replace(sizes, max_steps=steps)})
            began = monotonic()
            net = _FIT[member](dataset, fit, one, lambda _step, _share: None, before[way] if way in WAYS else None)
            seconds[way] = monotonic() - began
            before |= {way: net.weights()} if move else dict.fromkeys(WAYS, net.weights())
            if is_last:
                said[way] = _said(net, dataset, after)
    return Held(market, member, _errors(after, said, config), seconds)


def between(frames: FrameSet, start_ms: int, end_ms: int) -> FrameSet:
    """Return the same series from one moment to another."""
    cut = []
    for one in frames.frames:
        kept = (one.open_time_ms > start_ms) & (one.open_time_ms <= end_ms)
        cut.append(
            TrainingFrame(one.symbol, one.open_time_ms[kept], one.inputs[kept], one.log_return[kept], one.close[kept])
        )
    return FrameSet(tuple(cut), frames.input_names, frames.feature_fingerprint, frames.timeframe_ms)


def _rows(frames: FrameSet, config: TrainingConfig) -> tuple[Dataset, Rows, Rows]:
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms)
    windows = (splits.validation, splits.calibration, splits.shadow)
    after = [dataset.rows(window, splits, stride=3) for window in windows]
    joined = Rows(
        *(np.concatenate([getattr(one, name) for one in after]) for name in ("index", "series")),
        *(np.concatenate([getattr(one, name) for one in after]) for name in ("open_time_ms", "label")),
    )
    return dataset, dataset.learned_rows(splits), joined


def _said(net: FittedNet, dataset: Dataset, rows: Rows) -> Floats:
    return np.concatenate([net.predict(dataset, part) for part in dataset.batches(rows)])


def _errors(rows: Rows, said: Mapping[str, Floats], config: TrainingConfig) -> BlockSums:
    share = config.market_share_removed
    outcome = without_market(rows.label, rows.open_time_ms, share)
    errors = {way: outcome - without_market(values, rows.open_time_ms, share) for way, values in said.items()}
    squared = {way: error**2 for way, error in {"none": outcome, **errors}.items()}
    return BlockSums.of(rows.open_time_ms, _BLOCK_MS, squared)


def excess(errors: BlockSums, way: str) -> Interval:
    """Return how much larger the errors of a way are than a cold fit's, as a share of those of expecting nothing."""
    return errors.interval(
        lambda sums: ratio(sums[way] - sums["cold"], sums["none"]), Sampling(block_ms=_BLOCK_MS, samples=2000, seed=1)
    )


def of_markets(values: Sequence[float]) -> Interval:
    """
    Return the mean over markets with its 95 % interval of Student's t, without bounds where there is one market.

    Rows of one market share two fits, and what chance does to a fit is more than what it does to rows: markets count.
    """
    mean = float(np.mean(values))
    if len(values) < 2:
        return Interval(value=mean, low=-np.inf, high=np.inf)
    reach = float(student.ppf(0.975, len(values) - 1) * np.std(values, ddof=1) / np.sqrt(len(values)))
    return Interval(value=mean, low=mean - reach, high=mean + reach)


def _line(one: Held) -> str:
    cold = one.errors.total(lambda sums: ratio(sums["cold"], sums["none"]))
    ways = (f"{_told(way, excess(one.errors, way))} in {one.seconds[way]:.1f} s" for way in (*WAYS, *BESIDE))
    first = f"{one.market}, {one.member}: cold {cold:.4f} of expecting none in {one.seconds['cold']:.1f} s"
    return "; ".join((first, *ways))


def _told(way: str, more: Interval) -> str:
    return f"{way} {more.value:+.4f} ({more.low:+.4f} to {more.high:+.4f})"
