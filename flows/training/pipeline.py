"""One training run, from frames to a verified bundle and its report."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from msgspec.structs import replace

from flows.training.audit import Learn, audit_rule
from flows.training.bagging import fit_bag
from flows.training.baselines import BASELINES, Ridge, baseline_scores
from flows.training.bundle_manifest import assembled, entries_of, manifest_of
from flows.training.calibrate import probabilities
from flows.training.candle_quality import quality_metrics
from flows.training.checks import after_training, before_training
from flows.training.combine import Combined, Scored, combine, own_scales
from flows.training.config import TrainingConfig
from flows.training.cross_validation import cross_validated
from flows.training.data_fingerprint import data_fingerprint
from flows.training.dataset import Dataset, FrameSet, Rows, thinned
from flows.training.device import check_device, trained_on
from flows.training.evaluate import (
    calibration_metrics,
    independent_outcomes,
    prediction_metrics,
    prefixed,
    reliability,
)
from flows.training.heads import FittedHead, fit_heads, head_metrics
from flows.training.leakage import shuffled_label_metrics
from flows.training.learnable import check_window
from flows.training.live_readings import learn_readings
from flows.training.members.base import FittedMember, MemberSpec, Progress
from flows.training.members.catalogue import checked, compared_names, spec
from flows.training.moments import Sampling
from flows.training.pack import ExportedMember, export_member, predict_members, write_golden, write_manifest
from flows.training.progress import overall
from flows.training.regimes import learn_regimes, regime_metrics
from flows.training.report import MemberReport, ReliabilityCurve, TrainingReport
from flows.training.splits import Splits, plan_splits
from flows.training.trading import simulate, trade_metrics
from flows.training.tripwires import Asked, stop_on
from inference.models.bundle import load_bundle
from inference.models.ensemble import Member
from inference.models.manifest import MANIFEST_NAME, HeadEntry, Manifest, MemberEntry, TimeWindow
from inference.models.market_move import without_market

_FEWEST_AUDITED = 20
"""Rows of some series in a window, from which on it is learned from once more beside a twin."""


class ReadyMember(FittedMember, Protocol):
    """A member that was fitted before, here or elsewhere, and on what."""

    @property
    def fit(self) -> TimeWindow:
        """The window it was fitted on."""
        ...


def train_candidate(
    frames: FrameSet,
    config: TrainingConfig,
    out: Path,
    progress: Progress,
    asked: Asked | None = None,
    *,
    ready: Mapping[str, ReadyMember] | None = None,
) -> TrainingReport:
    """
    Train all members, combine and calibrate them on rows that none of them saw, and write a verified bundle into `out`.

    Members that are `ready` are not fitted; those fitted on another window than this run's are named in the report.

    Every number in the bundle comes from the fit, validation and calibration windows; the shadow window, the newest,
    is planned and recorded here and left alone.

    Raises:
        BadInputError: The frames are too few or too short, or the configuration asks for what they lack.
        ExportParityError: A member's file does not answer as the trained member does.
        TripwireError: Something is wrong with the run, so that its figures would mean nothing.
    """
    voting, compared = _specs(config)
    specs = voting | compared
    check_device(config.device)
    out.mkdir(parents=True, exist_ok=True)
    # A folder without a manifest is no bundle: a run that is interrupted leaves none behind.
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    progress = overall({name: one.seconds for name, one in specs.items()}, progress)
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)
    rows = _Windows.of(dataset, splits, config)
    trainers = {name: one.fit for name, one in voting.items()}
    stop_on(before_training(dataset, frames, splits, trainers, config, asked))

    ready = ready or {}
    fitted: dict[str, FittedMember] = {}
    for name, one in specs.items():
        progress(name, 0.0)
        if name in ready:
            fitted[name] = ready[name]
            continue
        is_bagged = config.ensemble_mode == "bagging" and name in voting and one.reads_rows
        fitted[name] = (
            fit_bag(name, one.fit, dataset, rows.fit, config, progress)
            if is_bagged
            else one.fit(dataset, rows.fit, config, progress)
        )
    exported = _export(fitted, dataset, rows.validation, config, out, progress)

    progress("evaluate", 0.0)
    scored, beside = (_scored(exported, names, dataset, rows, config) for names in (voting, compared))
    progress("evaluate", 0.3)
    combined = combine(scored, rows.validation, rows.calibration, config, splits.horizon_ms)
    scales = dict(combined.scales) | own_scales(beside, rows.validation, config)
    heads = fit_heads(dataset, rows.fit, rows.validation, config, out)
    metrics = _assess(dataset, splits, rows, scored, beside.scaled(scales), heads, combined, config)
    stop_on(after_training(metrics, (*voting, *compared, *BASELINES, "ensemble"), config))
    if config.tripwires.audits:
        members = {name: exported[name].member for name in voting}
        stop_on(audit_rule(_learner(members, splits, config), frames, splits, config.window))
    progress("evaluate", 0.6)
    metrics |= cross_validated(dataset, splits, config).metrics
    regime = learn_regimes(dataset, rows.fit)
    metrics |= prefixed("regime", regime_metrics(dataset, rows.calibration, combined.calibration, regime))
    progress("evaluate", 0.8)
    entries = entries_of(exported, voting, scales, combined.weights)
    read: tuple[MemberEntry | HeadEntry, ...] = (*entries, *(head.entry for head in heads))
    readings = learn_readings(dataset, splits.fit, (rows.fit, rows.calibration), read, config)
    metrics |= readings.metrics
    kept = rows.calibration.take(_spread(len(rows.calibration), config.golden_rows))
    golden = write_golden(out, assembled(out, entries, heads, frames, config, combined), dataset, kept)
    others = entries_of(exported, compared, scales, dict.fromkeys(compared, 0.0))
    older = {name: one.fit for name, one in ready.items() if one.fit != splits.fit}
    manifest = replace(
        manifest_of(frames, config, splits, (entries, others, heads), combined, metrics, golden, older),
        data_fingerprint=data_fingerprint(frames, splits.as_manifest(), config),
        regime=regime,
        regime_model=readings.regime_model,
        trained_inputs=readings.trained_inputs,
    )
    write_manifest(out, manifest)
    bundle = load_bundle(out, expected_fingerprint=frames.feature_fingerprint)
    progress("evaluate", 1.0)

    told = {
        entry.name: _member_report(entry, scales, specs[entry.name], fitted[entry.name], exported[entry.name], config)
        for entry in (*entries, *others)
    }
    return replace(_report(bundle.digest, manifest, rows, told, combined, scored), notes=readings.notes)


def _specs(config: TrainingConfig) -> tuple[dict[str, MemberSpec], dict[str, MemberSpec]]:
    """Return the members that vote and those that are trained beside them, each by name."""
    names = checked(config.members)
    beside = compared_names() if config.compared is None else config.compared
    others = [one for one in beside if one not in names]
    return {name: spec(name) for name in names}, {name: spec(name) for name in others}


def _scored(
    exported: Mapping[str, ExportedMember],
    names: Iterable[str],
    dataset: Dataset,
    rows: _Windows,
    config: TrainingConfig,
) -> Scored:
    return _said({name: exported[name].member for name in names}, dataset, (rows.validation, rows.calibration), config)


def _said(
    members: Mapping[str, Member], dataset: Dataset, windows: tuple[Rows, Rows], config: TrainingConfig
) -> Scored:
    first, second = (predict_members(members, dataset, rows, 0.0) for rows in windows)
    share = config.market_share_removed
    validation, calibration = (
        {name: without_market(values, rows.open_time_ms, share) for name, values in said.items()}
        for said, rows in zip((first, second), windows, strict=True)
    )
    return Scored(validation, calibration, alone=(first, second))


def _export(
    fitted: Mapping[str, FittedMember],
    dataset: Dataset,
    rows: Rows,
    config: TrainingConfig,
    out: Path,
    progress: Progress,
) -> dict[str, ExportedMember]:
    sample = parity_sample(rows, config)
    exported = {}
    progress("export", 0.0)
    for done, (name, member) in enumerate(fitted.items(), start=1):
        exported[name] = export_member(member, dataset, sample, out)
        progress("export", done / len(fitted))
    return exported


def rows_to_fit(dataset: Dataset, splits: Splits, config: TrainingConfig) -> tuple[Rows, Rows]:
    """
    Return the rows that members are fitted on, and those on which their exports are checked.

    Raises:
        BadInputError: A window has too few.
    """
    rows = _Windows.of(dataset, splits, config)
    return rows.fit, parity_sample(rows.validation, config)


def parity_sample(rows: Rows, config: TrainingConfig) -> Rows:
    """Return the rows on which a member's file must answer as the trained member does."""
    return rows.take(_spread(len(rows), config.parity_rows))


def _spread(n: int, wanted: int) -> npt.NDArray[np.int64]:
    """Return up to `wanted` places, evenly spread over n."""
    return np.unique(np.linspace(0, n - 1, min(wanted, n)).round().astype(np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class _Windows:
    fit: Rows
    validation: Rows
    calibration: Rows

    @classmethod
    def of(cls, dataset: Dataset, splits: Splits, config: TrainingConfig) -> _Windows:
        found = cls(dataset.learned_rows(splits), *_judging_rows(dataset, splits, config))
        for name in ("fit", "validation", "calibration"):
            check_window(name, dataset, getattr(found, name))
        return found


def _judging_rows(dataset: Dataset, splits: Splits, config: TrainingConfig) -> tuple[Rows, Rows]:
    """Return the rows of validation and calibration."""
    stride = config.evaluation_stride
    return (
        dataset.rows(splits.validation, splits, stride=stride),
        dataset.rows(splits.calibration, splits, stride=stride),
    )


def _learner(members: Mapping[str, Member], splits: Splits, config: TrainingConfig) -> Learn:
    """Return what learns the ensemble's numbers from some frames as this run does, on every fourth candle."""
    sparse = replace(config, evaluation_stride=max(config.evaluation_stride, 4))

    def learn(some: FrameSet) -> Combined | None:
        dataset = Dataset(some, horizon=config.horizon, window=config.window)
        validation, calibration = _judging_rows(dataset, splits, sparse)
        if min(len(validation), len(calibration)) < _FEWEST_AUDITED:
            return None
        scored = _said(members, dataset, (validation, calibration), config)
        return combine(scored, validation, calibration, config, splits.horizon_ms)

    return learn


def _assess(
    dataset: Dataset,
    splits: Splits,
    rows: _Windows,
    scored: Scored,
    beside: Scored,
    heads: Sequence[FittedHead],
    combined: Combined,
    config: TrainingConfig,
) -> dict[str, float]:
    ridge = Ridge.fit(dataset, thinned(rows.fit, 3, dataset.timeframe_ms), config)
    sampling = Sampling(block_ms=2 * splits.horizon_ms, samples=config.bootstrap_samples, seed=config.seed)
    metrics: dict[str, float] = {}
    for window, kept, members, others, ensemble in (
        ("validation", rows.validation, scored.validation, beside.validation, combined.validation),
        ("calibration", rows.calibration, scored.calibration, beside.calibration, combined.calibration),
    ):
        everyone = combined.scaled(members) | {"ensemble": ensemble} | dict(others)
        everyone |= baseline_scores(dataset, ridge, kept)
        for name, predicted in everyone.items():
            metrics |= prefixed(f"{window}/{name}", prediction_metrics(kept, predicted, sampling))
        metrics[f"{window}/coverage"] = dataset.coverage(getattr(splits, window))
        metrics |= prefixed(window, quality_metrics(dataset, getattr(splits, window)))
        metrics[f"{window}/independent_outcomes"] = independent_outcomes(kept, horizon_ms=splits.horizon_ms)

    stated = probabilities(combined.table, combined.calibration)
    metrics |= prefixed("calibration/ensemble", calibration_metrics(rows.calibration, stated, sampling))
    trades = simulate(
        rows.calibration, combined.calibration, stated,
        threshold=combined.threshold, cost=config.round_trip_cost, horizon_ms=splits.horizon_ms,
    )  # fmt: skip
    metrics |= prefixed("calibration/ensemble", trade_metrics(trades, sampling))
    answers = {name: values for head in heads for name, values in head.answers(dataset, rows.calibration).items()}
    told = head_metrics([head.entry for head in heads], answers, rows.calibration, sampling)
    metrics |= prefixed("calibration", told)
    metrics["fit/coverage"] = dataset.coverage(splits.fit)
    metrics |= prefixed("fit", quality_metrics(dataset, splits.fit))
    metrics |= prefixed("leakage", shuffled_label_metrics(dataset, splits, config))
    metrics |= {f"weight/{name}": weight for name, weight in combined.weights.items()}
    metrics["threshold"] = combined.threshold
    return metrics


def _report(
    digest: str,
    manifest: Manifest,
    rows: _Windows,
    members: Mapping[str, MemberReport],
    combined: Combined,
    scored: Scored,
) -> TrainingReport:
    label = rows.calibration.label
    errors = np.stack([label - values for values in combined.scaled(scored.calibration).values()])
    curve = reliability(rows.calibration, probabilities(combined.table, combined.calibration))
    return TrainingReport(
        bundle_digest=digest,
        feature_fingerprint=manifest.feature_fingerprint,
        created_at=manifest.created_at,
        code_version=manifest.code_version,
        symbols=manifest.symbols,
        timeframe=manifest.timeframe,
        horizon=manifest.horizon,
        windows=manifest.training,
        rows={"fit": len(rows.fit), "validation": len(rows.validation), "calibration": len(rows.calibration)},
        weighting=manifest.weighting,
        threshold=manifest.threshold,
        members=tuple(members[entry.name] for entry in manifest.members),
        mode=manifest.mode,
        compared=tuple(members[entry.name] for entry in manifest.compared),
        heads=tuple(head.kind for head in manifest.heads),
        baselines=BASELINES,
        kept_members=manifest.kept_members,
        metrics=manifest.metrics,
        reliability=ReliabilityCurve.of(curve),
        error_correlation=tuple(map(tuple, np.atleast_2d(np.corrcoef(errors)).tolist())),
    )


def _member_report(
    entry: MemberEntry,
    scales: Mapping[str, float],
    kind: MemberSpec,
    fitted: FittedMember,
    exported: ExportedMember,
    config: TrainingConfig,
) -> MemberReport:
    return MemberReport(
        name=entry.name,
        weight=entry.weight,
        scale=scales[entry.name],
        inputs=entry.inputs,
        file=entry.file.name,
        file_bytes=sum(file.size for file in entry.files),
        parity=exported.parity,
        importance=fitted.importance(),
        consumes=entry.consumes,
        device=trained_on(kind, config.device),
        draws=len(entry.files),
    )
