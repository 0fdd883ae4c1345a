"""The flow that trains a candidate, logs it to MLflow and registers it as challenger."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from pathlib import Path

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.clock import utc_now
from feature_store.lake import CandleLake
from flows.evidence import training_markdown, what_it_is
from flows.frames import recent_frames, stored_series
from flows.orchestration import ASKING_REGISTRY, ProgressBar, is_over, markdown, named_by_series, outermost_run, say
from flows.outcome import TRAINING_CONFIG, TRAINING_REPORT, Candidate
from flows.registry import Registry, RunLog
from flows.settings import FlowSettings, TimeframeName, TrainingSize, VenueName
from flows.sizes import training_config
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.pipeline import train_candidate
from flows.training.plots import training_plots
from flows.training.report import TrainingReport
from flows.wording import flattened
from inference.domain.errors import RegistryUnavailableError

OWNER_TAG = "prefect.flow_run"
"""The tag of an MLflow run that names the flow run in whose process it is filled."""


@task(task_run_name="close-dead-mlflow-runs", **ASKING_REGISTRY)
def close_dead_runs(settings: FlowSettings) -> None:
    """Close the runs of trainings that were killed, and remove what they left in the folder of candidates."""
    registry = Registry(settings.registry_address)
    for run_id, owner in registry.open_runs(OWNER_TAG).items():
        if is_over(owner):
            registry.kill_run(run_id)
            for left in settings.candidates.glob(f"{run_id}-*"):
                shutil.rmtree(left, ignore_errors=True)
            say("Closed run %s, whose training had been killed", run_id)


@task(task_run_name="open-mlflow-run", **ASKING_REGISTRY)
def open_run(settings: FlowSettings, config: TrainingConfig) -> str:
    """Open the run that everything about the candidate is logged to; before training, so that it fails early."""
    tags = {"venue": settings.venue, "timeframe": settings.timeframe, "size": settings.size, OWNER_TAG: outermost_run()}
    note = "One candidate: trained, then scored in shadow, then judged by the gates."
    name = f"candidate {settings.venue} {settings.timeframe} {config.created_at[:16]}"
    return Registry(settings.registry_address).start_run(name, tags, note)


@task(task_run_name="load-candles-and-features", cache_policy=NO_CACHE, timeout_seconds=900)
def load_frames(settings: FlowSettings, horizon: int) -> FrameSet:
    """Read the lake and compute the model inputs of every candle."""
    return recent_frames(settings, horizon)


@task(task_run_name="train-members", cache_policy=NO_CACHE, timeout_seconds=3 * 3600)
def fit_members(frames: FrameSet, config: TrainingConfig, out: Path, bar: ProgressBar) -> TrainingReport:
    """Train the members, combine and calibrate them, and write the bundle."""
    return train_candidate(frames, config, out, bar.callback())


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_training(settings: FlowSettings, run_id: str, config: TrainingConfig, report: TrainingReport) -> str:
    """Log parameters, figures, plots and the report; return the page of the run."""
    registry = Registry(settings.registry_address)
    page = registry.run_page(run_id, settings.registry_page)
    entry = RunLog(
        params=flattened(msgspec.to_builtins(config))
        | {"venue": settings.venue, "days": settings.days, "symbols": ",".join(report.symbols)},
        metrics=report.metrics,
        tags={"bundle_digest": report.bundle_digest, "feature_fingerprint": report.feature_fingerprint},
        texts={
            TRAINING_REPORT: msgspec.json.encode(report).decode(),
            TRAINING_CONFIG: msgspec.json.encode(config).decode(),
            "reports/training.md": training_markdown(report, page),
        },
        images={f"plots/{name}": image for name, image in training_plots(report).items()},
    )
    registry.log(run_id, entry)
    return page


@task(task_run_name="register-challenger", **ASKING_REGISTRY)
def register(settings: FlowSettings, run_id: str, bundle: Path, report: TrainingReport) -> Candidate:
    """Register the bundle as the next version and point the alias `challenger` at it."""
    version = Registry(settings.registry_address).register(
        run_id,
        bundle,
        tags={
            "bundle_digest": report.bundle_digest,
            "feature_fingerprint": report.feature_fingerprint,
            "venue": settings.venue,
            "timeframe": report.timeframe,
            "gate_verdict": "pending",
        },
        description=f"{what_it_is(report)}\n\nNot judged yet.",
    )
    return Candidate(version=version.version, run_id=run_id, bundle_digest=report.bundle_digest)


@flow(name="train", flow_run_name=named_by_series, timeout_seconds=3 * 3600)
def train(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
) -> Candidate:
    """
    Train a candidate from stored candles, log it to MLflow, and register it as `challenger`.

    The newest candles are locked away from training: flow `shadow` scores the candidate on them.

    Args:
        venue: Whose candles. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all` that are stored. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How many days, counted back from the newest stored candle. Left empty: QT_DAYS, by default 30.
        size: How long the members train: `full`, `quick`, or `tiny` for trying the machinery. Left empty: QT_SIZE.
    """
    settings = FlowSettings.of(venue=venue, symbols=symbols, timeframe=timeframe, days=days, size=size)
    config = training_config(settings, utc_now())
    stored_series(CandleLake(settings.lake), settings)  # What cannot be trained on leaves no run in MLflow.
    close_dead_runs(settings)
    run_id = open_run(settings, config)
    try:
        frames = load_frames(settings, config.horizon)
        settings.candidates.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=settings.candidates, prefix=f"{run_id}-") as folder:
            bundle = Path(folder) / "bundle"
            report = fit_members(frames, config, bundle, ProgressBar("train", "Training"))
            page = log_training(settings, run_id, config, report)
            candidate = register(settings, run_id, bundle, report)
    except BaseException:  # Stopped or failed, the run in MLflow must not look as if it went on; then raise on.
        with contextlib.suppress(RegistryUnavailableError):
            Registry(settings.registry_address).finish_run(run_id, failed=True)
        raise
    Registry(settings.registry_address).finish_run(run_id)

    markdown("training-report", training_markdown(report, page), "Members and baselines, out of sample")
    say("Version %s is registered as challenger: %s", candidate.version, page)
    return candidate
