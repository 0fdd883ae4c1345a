"""How long the four default members train on the source system's number of samples, and what more time would buy."""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from feature_store.clock import monotonic
from flows.training.config import NetConfig, TrainingConfig, TreeConfig
from flows.training.dataset import Dataset, FrameSet, Rows
from flows.training.members.catalogue import spec
from flows.training.pack import export_member
from flows.training.splits import plan_splits
from inference.models.market_move import without_market
from infra.prove.gate_markets import synthetic_frames
from infra.prove.proof import Proof, Size
from infra.sandbox.market.equations import DEFAULT_EDGE

FIT_ROWS, VALIDATION_ROWS = 54_423, 11_662
MEMBERS = ("nhits", "patchtst", "xgboost", "lightgbm")
"""The default four, the longest first, so that two processes end together."""
CORES = 2
BAR_S = 300.0
PART = {Size.FULL: 1, Size.CI: 4}
LONGER = 12
"""How many times the rounds and steps of the run that is compared with: some 52 minutes, as the source system needs."""

_SYMBOLS, _DAYS, _SEED = 3, 90, 41


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """What fitting, exporting and checking one member took, and what it expects of the validation rows."""

    name: str
    wall_s: float
    cpu_s: float
    predicted: npt.NDArray[np.float64]


def prove(size: Size) -> Proof:
    """
    Train on 54,423 rows of what models read of the 49 features, in two processes of one thread each.

    Their start, the exports and the checks of parity count.

    At full size the same code trains twelve times as long too. CI trains a quarter of the rounds and steps on the same
    rows, against a quarter of the bar.
    """
    frames, _ = synthetic_frames(_SYMBOLS, _DAYS, DEFAULT_EDGE, _SEED)
    part = PART[size]
    config = longer(configuration(), 1, part)
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    fit, validation = sample(dataset, config)
    wall_s, short = _train(frames, config)
    losses = _losses(short, validation, config)
    columns = len(config.row_inputs(frames.input_names))
    rows = f"{len(fit):,} rows to fit, {len(validation):,} to validate, of {len(frames.input_names)} model inputs"
    details = [
        f"{rows} made of the 49 features; trees read {columns} columns, means over the window among them",
        *(f"{one.name}: {one.wall_s:.1f} s, {one.cpu_s:.1f} s of processors" for one in short),
        "the processes' start, the exports and their parity checks are counted; the source system needs about 52 min",
    ]
    figure = f"{wall_s:.0f} s for four members on {CORES} cores, validation loss {losses['vote']:.4f} of expecting none"
    bar_s = BAR_S / part
    holds = wall_s <= bar_s
    if size is Size.FULL:
        long_s, long = _train(frames, longer(config, LONGER))
        longest = _losses(long, validation, config)
        figure += f", {longest['vote']:.4f} after {LONGER} times the rounds and steps ({long_s / 60:.1f} min)"
        details += [f"{name}: loss {losses[name]:.4f}, of the longer run {longest[name]:.4f}" for name in losses]
        holds = holds and losses["vote"] <= longest["vote"]
    else:
        details += [f"{name}: loss {loss:.4f}" for name, loss in losses.items()]
        details.append(f"at this size 1 / {part} of the rounds and steps, and no longer run beside it")
    return Proof(
        name="training-time",
        figure=figure,
        bar=f"<= {bar_s:.0f} s, and no worse than the longer run (at full size)",
        holds=holds,
        is_speed=True,
        details=tuple(details),
    )


def configuration() -> TrainingConfig:
    """Return what trains by default, but every row of the sample is one, where trees would skip two of three."""
    plain = TrainingConfig(
        created_at="1970-01-01T00:00:00+00:00",
        code_version="training-time",
        fit_share=0.72,
        validation_share=0.16,
        calibration_share=0.06,
    )
    return replace(
        plain,
        xgboost=replace(plain.xgboost, row_stride=1),
        lightgbm=replace(plain.lightgbm, row_stride=1),
    )


def longer(config: TrainingConfig, times: int, part: int = 1) -> TrainingConfig:
    """Return the same with so many times the rounds and steps, or a part of them."""

    def more_rounds(trees: TreeConfig) -> TreeConfig:
        return replace(trees, rounds=times * trees.rounds // part)

    def more_steps(net: NetConfig) -> NetConfig:
        return replace(net, max_steps=times * net.max_steps // part)

    return replace(
        config,
        xgboost=more_rounds(config.xgboost),
        lightgbm=more_rounds(config.lightgbm),
        nhits=more_steps(config.nhits),
        patchtst=more_steps(config.patchtst),
    )


def sample(dataset: Dataset, config: TrainingConfig) -> tuple[Rows, Rows]:
    """Return the newest rows of the fit window and the oldest of validation, as many as the source system had."""
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=dataset.timeframe_ms)
    fit, validation = dataset.learned_rows(splits), dataset.rows(splits.validation, splits)
    newest = np.argsort(fit.open_time_ms, kind="stable")[-FIT_ROWS:]
    oldest = np.argsort(validation.open_time_ms, kind="stable")[:VALIDATION_ROWS]
    found = fit.take(np.sort(newest)), validation.take(np.sort(oldest))
    if (len(found[0]), len(found[1])) != (FIT_ROWS, VALIDATION_ROWS):
        raise ValueError(f"The market gives {len(found[0])} and {len(found[1])} rows; make it longer")
    return found


def _train(frames: FrameSet, config: TrainingConfig) -> tuple[float, list[Fitted]]:
    """Fit all members in as many processes as there are cores, and return how long that took in all."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, mp_context=context) as pool:
        began = monotonic()
        running = [pool.submit(fit_one, name, frames, config) for name in MEMBERS]
        found = [one.result() for one in running]
        return monotonic() - began, found


def fit_one(name: str, frames: FrameSet, config: TrainingConfig) -> Fitted:
    """Fit a member, export it, hold the export against it, and ask it for the validation rows."""
    began, used = monotonic(), _processor_s()
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    fit, validation = sample(dataset, config)
    fitted = spec(name).fit(dataset, fit, config, lambda _step, _share: None)
    with tempfile.TemporaryDirectory(prefix="qt-prove-training-") as folder:
        export_member(fitted, dataset, validation.take(np.arange(config.parity_rows)), Path(folder))
    predicted = np.concatenate([fitted.predict(dataset, part) for part in dataset.batches(validation)])
    return Fitted(name, monotonic() - began, _processor_s() - used, predicted)


def _processor_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _losses(found: list[Fitted], rows: Rows, config: TrainingConfig) -> dict[str, float]:
    """
    Return the squared error of each member and of their equal vote, as a share of that of expecting nothing.

    The market's common move is taken off on both sides by the share that members do not learn either.
    """
    share = config.market_share_removed
    outcome = without_market(rows.label, rows.open_time_ms, share)
    everyone = {one.name: one.predicted for one in found}
    everyone["vote"] = np.mean([one.predicted for one in found], axis=0)
    none = float((outcome**2).mean())
    return {
        name: float(((outcome - without_market(values, rows.open_time_ms, share)) ** 2).mean()) / none
        for name, values in everyone.items()
    }
