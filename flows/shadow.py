"""The flow that scores a version on candles that no member saw."""

from __future__ import annotations

import tempfile
from pathlib import Path

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.lake import CandleLake
from flows.evidence import shadow_markdown
from flows.frames import frames_between, stored_series
from flows.orchestration import ASKING_REGISTRY, ProgressBar, markdown, named_by_version, say
from flows.outcome import SHADOW_REPORT, TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import CHAMPION, RegisteredVersion, Registry, RunLog
from flows.replay.report import ShadowReport
from flows.replay.shadow import shadow_candidate
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.plots import shadow_plots
from flows.training.report import TrainingReport


@task(task_run_name="find-version-and-champion", **ASKING_REGISTRY)
def find_versions(settings: FlowSettings, version: str | None) -> tuple[RegisteredVersion, RegisteredVersion | None]:
    """Return the version to score and the champion to compare it with, if that is another."""
    registry = Registry(settings.registry_address)
    ours, champion = registry.resolve(version), registry.champion()
    return ours, champion if champion is not None and champion.version != ours.version else None


@task(task_run_name="download-version-{version.version}", **ASKING_REGISTRY)
def download(settings: FlowSettings, version: RegisteredVersion, folder: Path) -> Path:
    """Download the bundle as it was registered: what is judged is what would trade."""
    return Registry(settings.registry_address).download_bundle(version.version, folder)


@task(task_run_name="read-training-report", **ASKING_REGISTRY)
def read_training(settings: FlowSettings, run_id: str) -> tuple[TrainingReport, TrainingConfig]:
    """Return what the version's run says of its training."""
    registry = Registry(settings.registry_address)
    report = msgspec.json.decode(registry.read_text(run_id, TRAINING_REPORT), type=TrainingReport)
    return report, msgspec.json.decode(registry.read_text(run_id, TRAINING_CONFIG), type=TrainingConfig)


@task(task_run_name="load-locked-window", cache_policy=NO_CACHE, timeout_seconds=900)
def load_frames(settings: FlowSettings, training: TrainingReport) -> FrameSet:
    """Read the candles of the training run again, up to the end of its locked window."""
    lake = CandleLake(settings.lake)
    chosen = FlowSettings.of(venue=settings.venue, symbols=",".join(training.symbols), timeframe=training.timeframe)
    return frames_between(
        settings.features,
        lake,
        stored_series(lake, chosen),
        start_ms=training.windows.fit.start_ms,
        end_ms=training.windows.shadow.end_ms,
        horizon=training.horizon,
    )


@task(task_run_name="score-in-shadow", cache_policy=NO_CACHE, timeout_seconds=3600)
def score(
    bundle: Path, champion: Path | None, frames: FrameSet, training: TrainingReport, config: TrainingConfig
) -> ShadowReport:
    """Score the locked window net of costs, beside baselines, staying flat, and the champion."""
    return shadow_candidate(bundle, frames, training.windows.shadow, config, champion_path=champion)


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_shadow(settings: FlowSettings, run_id: str, report: ShadowReport) -> str:
    """Log figures, plots and the report to the run of the training; return its page."""
    registry = Registry(settings.registry_address)
    page = registry.run_page(run_id, settings.registry_page)
    registry.log(
        run_id,
        RunLog(
            metrics=report.metrics,
            texts={
                SHADOW_REPORT: msgspec.json.encode(report).decode(),
                "reports/shadow.md": shadow_markdown(report, page),
            },
            images={f"plots/{name}": image for name, image in shadow_plots(report).items()},
        ),
    )
    return page


@flow(name="shadow", flow_run_name=named_by_version, timeout_seconds=3600)
def shadow(version: str | None = None) -> dict[str, float]:
    """
    Score a version on the candles that were locked away from its training, net of costs.

    It is compared with the naive baselines, with staying flat, and with the champion where there is one; the figures
    go to the same MLflow run as the training's.

    Args:
        version: Number of a version of `quantum-ensemble`. Left empty: the one that alias `challenger` points at.
    """
    settings = FlowSettings.of()
    bar = ProgressBar("shadow", "Shadow")
    ours, champion = find_versions(settings, version)
    settings.candidates.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.candidates) as folder:
        bundle = download(settings, ours, Path(folder))
        other = download(settings, champion, Path(folder)) if champion else None
        training, config = read_training(settings, ours.run_id)
        bar.show(0.2, "bundle is here")
        frames = load_frames(settings, training)
        bar.show(0.4, "candles are here")
        report = score(bundle, other, frames, training, config)
    bar.show(0.9, "scored")
    page = log_shadow(settings, ours.run_id, report)
    markdown("shadow-report", shadow_markdown(report, page), f"Version {ours.version} on candles that no member saw")
    say("Version %s is scored in shadow%s: %s", ours.version, f" beside {CHAMPION}" if champion else "", page)
    bar.show(1.0, "logged")
    return report.metrics
