"""One training run, from frames to a verified bundle and its report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.training.baselines import BASELINES, Ridge, baseline_scores
from flows.training.calibrate import probabilities
from flows.training.combine import Combined, Scored, combine
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet, Rows, thinned
from flows.training.evaluate import (
    CalibrationCurve,
    calibration_metrics,
    independent_outcomes,
    prediction_metrics,
    prefixed,
)
from flows.training.leakage import shuffled_label_metrics
from flows.training.members.base import FittedMember, Progress
from flows.training.members.catalogue import trainer
from flows.training.moments import Sampling
from flows.training.pack import ExportedMember, export_member, predict_members, write_golden, write_manifest
from flows.training.progress import overall
from flows.training.report import MemberReport, ReliabilityCurve, TrainingReport
from flows.training.splits import Splits, plan_splits
from flows.training.trading import simulate, trade_metrics
from inference.models.bundle import load_bundle
from inference.models.ensemble import Ensemble, assemble
from inference.models.manifest import MANIFEST_NAME, SCHEMA_VERSION, Golden, Manifest, MemberEntry


def train_candidate(frames: FrameSet, config: TrainingConfig, out: Path, progress: Progress) -> TrainingReport:
    """
    Train all members, combine and calibrate them out of sample, and write a verified bundle into `out`.

    Every number in the bundle comes from the fit, validation and calibration windows; the shadow window, the newest,
    is planned and recorded here and left alone.

    Raises:
        BadInputError: The frames are too few or too short, or the configuration asks for what they lack.
        ExportParityError: A member's file does not answer as the trained member does.
    """
    if not config.members:
        raise BadInputError("An ensemble needs at least one member; name some in `members`")
    trainers = {name: trainer(name) for name in config.members}
    out.mkdir(parents=True, exist_ok=True)
    # A folder without a manifest is no bundle: a run that is interrupted leaves none behind.
    (out / MANIFEST_NAME).unlink(missing_ok=True)
    progress = overall(config.members, progress)
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=frames.timeframe_ms)
    rows = _Windows.of(dataset, splits, config)

    fitted: dict[str, FittedMember] = {}
    for name, fit in trainers.items():
        progress(name, 0.0)
        fitted[name] = fit(dataset, rows.fit, config, progress)
    exported = _export(fitted, dataset, rows.validation, config, out, progress)

    progress("evaluate", 0.0)
    members = {name: one.member for name, one in exported.items()}
    scored = Scored(
        predict_members(members, dataset, rows.validation), predict_members(members, dataset, rows.calibration)
    )
    progress("evaluate", 0.3)
    combined = combine(scored, rows.validation, rows.calibration, config, splits.horizon_ms)
    metrics = _assess(dataset, splits, rows, scored, combined, config)
    progress("evaluate", 0.8)
    entries = _entries(exported, combined)
    kept = rows.calibration.take(_spread(len(rows.calibration), config.golden_rows))
    golden = write_golden(out, _assembled(out, entries, frames, config, combined), dataset, kept)
    manifest = _manifest(frames, config, splits, entries, combined, metrics, golden)
    write_manifest(out, manifest)
    bundle = load_bundle(out, expected_fingerprint=frames.feature_fingerprint)
    progress("evaluate", 1.0)

    return _report(bundle.digest, manifest, rows, fitted, exported, combined, scored)


def _export(
    fitted: Mapping[str, FittedMember],
    dataset: Dataset,
    rows: Rows,
    config: TrainingConfig,
    out: Path,
    progress: Progress,
) -> dict[str, ExportedMember]:
    sample = rows.take(_spread(len(rows), config.parity_rows))
    exported = {}
    progress("export", 0.0)
    for done, (name, member) in enumerate(fitted.items(), start=1):
        exported[name] = export_member(member, dataset, sample, out)
        progress("export", done / len(fitted))
    return exported


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
        stride = config.evaluation_stride
        found = cls(
            dataset.rows(splits.fit, splits),
            dataset.rows(splits.validation, splits, stride=stride),
            dataset.rows(splits.calibration, splits, stride=stride),
        )
        for name in ("fit", "validation", "calibration"):
            if len(getattr(found, name)) < 50:
                raise BadInputError(
                    f"The {name} window has {len(getattr(found, name))} usable rows, at least 50 are needed; "
                    "load more days, or look at the coverage report for gaps"
                )
        return found


def _assess(
    dataset: Dataset, splits: Splits, rows: _Windows, scored: Scored, combined: Combined, config: TrainingConfig
) -> dict[str, float]:
    ridge = Ridge.fit(dataset, thinned(rows.fit, 3, dataset.timeframe_ms), config)
    sampling = Sampling(block_ms=2 * splits.horizon_ms, samples=config.bootstrap_samples, seed=config.seed)
    metrics: dict[str, float] = {}
    for window, kept, members, ensemble in (
        ("validation", rows.validation, scored.validation, combined.validation),
        ("calibration", rows.calibration, scored.calibration, combined.calibration),
    ):
        everyone = combined.scaled(members) | {"ensemble": ensemble} | baseline_scores(dataset, ridge, kept)
        for name, predicted in everyone.items():
            metrics |= prefixed(f"{window}/{name}", prediction_metrics(kept, predicted, sampling))
        metrics[f"{window}/coverage"] = dataset.coverage(getattr(splits, window))
        metrics[f"{window}/independent_outcomes"] = independent_outcomes(kept, horizon_ms=splits.horizon_ms)

    stated = probabilities(combined.table, combined.calibration)
    metrics |= prefixed("calibration/ensemble", calibration_metrics(rows.calibration, stated, sampling))
    trades = simulate(
        rows.calibration, combined.calibration, stated,
        threshold=combined.threshold, cost=config.round_trip_cost, horizon_ms=splits.horizon_ms,
    )  # fmt: skip
    metrics |= prefixed("calibration/ensemble", trade_metrics(trades, sampling))
    metrics["fit/coverage"] = dataset.coverage(splits.fit)
    metrics |= prefixed("leakage", shuffled_label_metrics(dataset, splits, config))
    metrics |= {f"weight/{name}": weight for name, weight in combined.weights.items()}
    metrics["threshold"] = combined.threshold
    return metrics


def _entries(exported: Mapping[str, ExportedMember], combined: Combined) -> tuple[MemberEntry, ...]:
    return tuple(
        MemberEntry(
            name=name,
            kind=one.entry.kind,
            file=one.entry.file,
            weight=combined.weights[name],
            scale=one.entry.raw_scale * combined.scales[name],
            inputs=one.entry.inputs,
        )
        for name, one in exported.items()
    )


def _assembled(
    folder: Path, entries: tuple[MemberEntry, ...], frames: FrameSet, config: TrainingConfig, combined: Combined
) -> Ensemble:
    return assemble(
        entries,
        {entry.name: (folder / entry.file.name).read_bytes() for entry in entries},
        scale=combined.scale,
        calibration=combined.table,
        max_abs_expected_return=combined.bound,
        model_inputs=frames.input_names,
        window=config.window,
    )


def _manifest(
    frames: FrameSet,
    config: TrainingConfig,
    splits: Splits,
    entries: tuple[MemberEntry, ...],
    combined: Combined,
    metrics: dict[str, float],
    golden: Golden,
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        created_at=config.created_at,
        code_version=config.code_version,
        feature_fingerprint=frames.feature_fingerprint,
        model_inputs=frames.input_names,
        window=config.window,
        timeframe=config.timeframe,
        horizon=config.horizon,
        symbols=frames.symbols,
        training=splits.as_manifest(),
        members=entries,
        weighting=config.weighting,
        scale=combined.scale,
        calibration=combined.table,
        threshold=combined.threshold,
        round_trip_cost=config.round_trip_cost,
        max_abs_expected_return=combined.bound,
        golden=golden,
        metrics=metrics,
    )


def _report(
    digest: str,
    manifest: Manifest,
    rows: _Windows,
    fitted: Mapping[str, FittedMember],
    exported: Mapping[str, ExportedMember],
    combined: Combined,
    scored: Scored,
) -> TrainingReport:
    label = rows.calibration.label
    errors = np.stack([label - values for values in combined.scaled(scored.calibration).values()])
    moved = label != 0
    curve = CalibrationCurve(probabilities(combined.table, combined.calibration)[moved], label[moved] > 0)
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
        members=tuple(
            MemberReport(
                name=entry.name,
                weight=entry.weight,
                scale=combined.scales[entry.name],
                inputs=entry.inputs,
                file=entry.file.name,
                file_bytes=entry.file.size,
                parity=exported[entry.name].parity,
                importance=fitted[entry.name].importance(),
            )
            for entry in manifest.members
        ),
        baselines=BASELINES,
        metrics=manifest.metrics,
        reliability=ReliabilityCurve(
            stated=tuple(curve.stated), observed=tuple(curve.observed), count=tuple(curve.count)
        ),
        error_correlation=tuple(map(tuple, np.atleast_2d(np.corrcoef(errors)).tolist())),
    )
