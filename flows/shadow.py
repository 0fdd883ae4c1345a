"""The flow that scores a version on candles that no member saw."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.clock import utc_now
from flows.evidence import shadow_markdown
from flows.frames import frames_between, lake_as_of, stored_series
from flows.home_exits import exits_for
from flows.locked import count_look, with_looks
from flows.orchestration import ASKING_REGISTRY, ProgressBar, markdown, named_by_version, say, this_run
from flows.outcome import SHADOW_REPORT, TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import CHAMPION, RegisteredVersion, Registry, RunLog
from flows.replay.report import ShadowReport
from flows.replay.shadow import shadow_candidate
from flows.replay.worker_account import Terms
from flows.retraining.job import UNDER_WAY, JobError
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.plots import shadow_plots
from flows.training.report import TrainingReport
from flows.universes import members_of
from inference.policy.policy_file import read_policy


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A bundle's folder, not verified yet, and the digest that the registry says it has."""

    path: Path
    digest: str | None


@task(task_run_name="find-version-and-champion", **ASKING_REGISTRY)
def find_versions(settings: FlowSettings, version: str | None) -> tuple[RegisteredVersion, RegisteredVersion | None]:
    """Return the version to score and the champion to compare it with, if that is another."""
    registry = Registry(settings.registry_address)
    ours, champion = registry.resolve(version), registry.champion()
    return ours, champion if champion is not None and champion.version != ours.version else None


@task(task_run_name="download-version-{version.version}", **ASKING_REGISTRY)
def download(settings: FlowSettings, version: RegisteredVersion, folder: Path) -> Downloaded:
    """Download the bundle as it was registered: what is judged is what would trade."""
    path = Registry(settings.registry_address).download_bundle(version.version, folder)
    return Downloaded(path, version.tagged_digest)


@task(task_run_name="read-training-report", **ASKING_REGISTRY)
def read_training(settings: FlowSettings, run_id: str) -> tuple[TrainingReport, TrainingConfig]:
    """Return what the version's run says of its training."""
    registry = Registry(settings.registry_address)
    report = msgspec.json.decode(registry.read_text(run_id, TRAINING_REPORT), type=TrainingReport)
    return report, msgspec.json.decode(registry.read_text(run_id, TRAINING_CONFIG), type=TrainingConfig)


@task(task_run_name="load-locked-window", cache_policy=NO_CACHE, timeout_seconds=900)
def load_frames(settings: FlowSettings, training: TrainingReport, config: TrainingConfig) -> FrameSet:
    """Read the candles of the training run again, up to the end of its locked window, as of the same moment."""
    lake = lake_as_of(settings, config.as_of_ms)
    chosen = FlowSettings.of(venue=settings.venue, symbols=",".join(training.symbols), timeframe=training.timeframe)
    return frames_between(
        settings.features,
        lake,
        stored_series(lake, chosen),
        start_ms=training.windows.fit.start_ms,
        end_ms=training.windows.shadow.end_ms,
        horizon=training.horizon,
        members=members_of(chosen, config.universe, config.universe_filters) if config.universe else None,
        traded_from_ms=training.windows.shadow.start_ms,
        as_of_ms=config.as_of_ms,
    )


@task(task_run_name="count-look-at-locked-window", **ASKING_REGISTRY)
def note_look(settings: FlowSettings, run_id: str, look: str) -> int:
    """Note in the candidate's run that its locked window is looked at; return how many looks that makes."""
    return count_look(Registry(settings.registry_address), run_id, look, utc_now().isoformat(timespec="milliseconds"))


def look_of(settings: FlowSettings, job: str | None) -> str:
    """
    Return the name of this look: that of its job, which may have to look again after a crash, or of the flow run.

    Raises:
        JobError: There is no such job, or it is not under way: a name of before would hide a look of now.
    """
    if job is None:
        return this_run()
    if table_of(settings).job(job).status not in UNDER_WAY:
        raise JobError(f"Job {job} is not under way, so this look is none of it; leave the job out")
    return f"job-{job}"


@task(task_run_name="score-in-shadow", cache_policy=NO_CACHE, timeout_seconds=3600)
def score(
    ours: Downloaded,
    champion: Downloaded | None,
    frames: FrameSet,
    training: TrainingReport,
    config: TrainingConfig,
    terms: Terms,
) -> ShadowReport:
    """Score the locked window beside baselines, staying flat, and the champion; trade it by the worker's decisions."""
    return shadow_candidate(
        ours.path,
        frames,
        training.windows.shadow,
        config,
        champion.path if champion else None,
        terms=terms,
        expected_digest=ours.digest,
        champion_digest=champion.digest if champion else None,
    )


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_shadow(settings: FlowSettings, run_id: str, report: ShadowReport) -> str:
    """Log figures, plots and the report to the run of the training; return its page."""
    registry = Registry(settings.registry_address)
    page = registry.run_page(run_id, settings.registry_page)
    registry.log(
        run_id,
        RunLog(
            metrics=report.metrics | {"shadow/rows": float(report.rows), "shadow/candles": float(report.candles)},
            texts={
                SHADOW_REPORT: msgspec.json.encode(report).decode(),
                "reports/shadow.md": shadow_markdown(report, page),
            },
            images={f"plots/{name}": image for name, image in shadow_plots(report).items()},
        ),
    )
    return page


def _terms(settings: FlowSettings) -> Terms:
    policy = read_policy(settings.policy)
    return Terms(policy=policy, exits=exits_for(settings, policy))


@flow(name="shadow", flow_run_name=named_by_version, timeout_seconds=3600)
def shadow(version: str | None = None, *, policy: str | None = None, job: str | None = None) -> dict[str, float]:
    """
    Score a version on the candles that were locked away from its training, net of costs.

    Those candles judge honestly once: each look is counted in the candidate's run (`shadow/locked_uses`), a report says
    so if it is not the first, and flow `promote` refuses a candidate that was looked at too often. It is compared with
    the naive baselines, with staying flat, and with the champion where there is one; the figures go to the same MLflow
    run as the training's. How far its inputs had drifted from its training, day by day of those candles, is among them.
    The worker's own decisions trade the same candles, with its stops, limits and costs (`shadow/worker/…`), by the
    rules that are named.

    Args:
        version: Number of a version of `quantum-ensemble`. Left empty: the one that alias `challenger` points at.
        policy: TOML file with the worker's trading rules; it may name an exit profile of the home. Left empty:
            QT_POLICY, else the built-in ones.
        job: Id of the retraining job that this is part of, and that is under way: however often it goes on after a
            crash, it looks once. Left empty: of none.
    """
    settings = FlowSettings.of(policy=policy)
    terms = _terms(settings)  # What cannot be traded by is told before a look is counted.
    look = look_of(settings, job)
    bar = ProgressBar("shadow", "Shadow")
    ours, champion = find_versions(settings, version)
    settings.candidates.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.candidates) as folder:
        bundle = download(settings, ours, Path(folder))
        other = download(settings, champion, Path(folder)) if champion else None
        training, config = read_training(settings, ours.run_id)
        bar.show(0.2, "bundle is here")
        frames = load_frames(settings, training, config)
        bar.show(0.4, "candles are here")
        looks = note_look(settings, ours.run_id, look)
        report = score(bundle, other, frames, training, config, terms)
    report = with_looks(report, looks)
    if looks > 1:
        say("Look %s at the locked window of version %s: only the first judges honestly", looks, ours.version)
    bar.show(0.9, "scored")
    page = log_shadow(settings, ours.run_id, report)
    markdown("shadow-report", shadow_markdown(report, page), f"Version {ours.version} on candles that no member saw")
    say("Version %s is scored in shadow%s: %s", ours.version, f" beside {CHAMPION}" if champion else "", page)
    bar.show(1.0, "logged")
    return report.metrics
