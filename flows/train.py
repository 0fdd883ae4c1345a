"""The flow that trains a candidate, logs it to MLflow and registers it as challenger."""

from __future__ import annotations

import contextlib
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE

from feature_store.candle import Series
from feature_store.clock import utc_now
from feature_store.errors import QuantumError
from feature_store.json_text import UNREADABLE
from feature_store.standard import SeriesQuality
from flows.auditing import audited_frames
from flows.coverage_map import quality_rows
from flows.evidence import description, stopped_markdown, training_markdown
from flows.failures import storage_errors
from flows.frames import lake_as_of, stored_series
from flows.orchestration import (
    ASKING_REGISTRY,
    ProgressBar,
    is_over,
    markdown,
    named_by_series,
    outermost_run,
    say,
    table,
)
from flows.outcome import MODEL_CARD, TRAINING_CONFIG, TRAINING_REPORT, Candidate
from flows.registered import ARTEFACT_VERSION, artefact_version
from flows.registry import CHALLENGER, Registry, RegistryError, RunLog
from flows.retraining.steps import Steps, once
from flows.retraining.work import steps_of, takeable
from flows.settings import DeviceName, FlowSettings, LabelName, TimeframeName, TrainingSize, VenueName
from flows.sizes import training_config
from flows.trainers import fit_members, stored
from flows.training.config import TrainingConfig
from flows.training.dataset import FrameSet
from flows.training.fitting import StoredMember
from flows.training.frame_file import decode_frames, encode_frames
from flows.training.importance import distances_from_champion
from flows.training.pipeline import train_candidate
from flows.training.plots import training_plots
from flows.training.report import TrainingReport, with_times
from flows.training.tripwires import Asked, TripwireError
from flows.trials import STUDY_TAG, TUNING_TRIALS, locked_tags
from flows.tuned import require_unseen
from flows.wording import flattened
from inference.domain.errors import RegistryUnavailableError
from inference.models.bundle import load_bundle, read_manifest
from inference.models.card import model_card
from inference.models.manifest import EnsembleMode, Weighting

OWNER_TAG = "prefect.flow_run"
"""The tag of an MLflow run that names the flow run in whose process it is filled."""
JOB_TAG = "retraining_job"
"""The tag of an MLflow run that names the retraining job it is part of: machine, home and id."""


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
def open_run(settings: FlowSettings, config: TrainingConfig, job: str | None = None) -> str:
    """Open the run that everything about the candidate is logged to; before training, so that it fails early."""
    tags = {"venue": settings.venue, "timeframe": settings.timeframe, "size": settings.size, OWNER_TAG: outermost_run()}
    if config.tuning_study is not None:
        # The gates ask more of what won among many.
        tags |= {STUDY_TAG: config.tuning_study, TUNING_TRIALS: str(config.tuning_trials)}
    note = "One candidate: trained, then scored in shadow, then judged by the gates."
    name = f"candidate {settings.venue} {settings.timeframe} {config.created_at[:16]}"
    registry = Registry(settings.registry_address)
    if job is None:
        return registry.start_run(name, tags, note)
    # Two homes that order in the same second call their jobs alike, and may share a server.
    whose = f"{socket.gethostname()}:{settings.home.resolve()}:{job}"
    # A process that died after it had opened the run could not note that.
    opened = (run_id for run_id, of in registry.open_runs(JOB_TAG).items() if of == whose)
    return next(opened, None) or registry.start_run(name, tags | {JOB_TAG: whose}, note)


@task(task_run_name="take-over-mlflow-run", **ASKING_REGISTRY)
def take_over_run(settings: FlowSettings, run_id: str) -> None:
    """Make a run that a dead process had opened this one's, so that nobody closes it meanwhile."""
    Registry(settings.registry_address).log(run_id, RunLog(tags={OWNER_TAG: outermost_run()}))


@task(task_run_name="load-candles-and-features", cache_policy=NO_CACHE, timeout_seconds=900)
def load_frames(settings: FlowSettings, config: TrainingConfig) -> FrameSet:
    """Read the lake, compute the model inputs of every candle that is good enough to learn from, and look at them."""
    return audited_frames(settings, config, lambda sentence: say("%s", sentence), _show_candles)


def _asked(settings: FlowSettings, config: TrainingConfig) -> Asked:
    """Return what the run was asked to learn from; a universe that is followed says for itself which series."""
    series = 0 if settings.follows_universe else len(stored_series(lake_as_of(settings, config.as_of_ms), settings))
    return Asked(days=settings.days, series=series)


def _show_candles(found: Mapping[Series, SeriesQuality]) -> None:
    table(
        "training-candles",
        quality_rows(found),
        "Candles asked for and found of each series, and which are learned from",
    )


@task(task_run_name="train-members", cache_policy=NO_CACHE, timeout_seconds=3 * 3600)
def pack_members(
    settings: FlowSettings,
    frames: FrameSet,
    config: TrainingConfig,
    out: Path,
    members: Mapping[str, StoredMember],
    bar: ProgressBar,
) -> TrainingReport:
    """Combine and calibrate the members, and write the bundle; a tripwire stops it."""
    with storage_errors():
        report = train_candidate(frames, config, out, bar.callback(), _asked(settings, config), ready=members)
    for note in report.notes:
        say("%s", note)
    return report


@task(task_run_name="compare-importance-with-champion", **ASKING_REGISTRY)
def beside_champion(settings: FlowSettings, report: TrainingReport) -> TrainingReport:
    """Add how far the members' importances lie from the champion's; a champion that tells none adds nothing."""
    registry = Registry(settings.registry_address)
    champion = registry.champion()
    if champion is None:
        return report
    try:
        earlier = msgspec.json.decode(registry.read_text(champion.run_id, TRAINING_REPORT), type=TrainingReport)
    except (RegistryError, *UNREADABLE) as error:
        # Somebody may have registered it by hand; what it learned from is then not known, and no reason to stop.
        say("Importances are not compared with champion %s: %s", champion.version, str(error)[:300])
        return report
    return msgspec.structs.replace(report, metrics=report.metrics | distances_from_champion(report, earlier))


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_training(settings: FlowSettings, run_id: str, config: TrainingConfig, report: TrainingReport) -> str:
    """Log parameters, figures, plots and the report; return the page of the run."""
    registry = Registry(settings.registry_address)
    page = registry.run_page(run_id, settings.registry_page)
    entry = RunLog(
        params=flattened(msgspec.to_builtins(config))
        | {"venue": settings.venue, "days": settings.days, "symbols": ",".join(report.symbols)},
        metrics=report.metrics | {f"rows/{name}": float(count) for name, count in report.rows.items()},
        tags={"bundle_digest": report.bundle_digest, "feature_fingerprint": report.feature_fingerprint}
        | locked_tags(report.windows.shadow),
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
    """Register the bundle as the next version, once however often it is tried, and point `challenger` at it."""
    registry, manifest = Registry(settings.registry_address), read_manifest(bundle)
    # Whoever tried before, this task or a process that died, may have come that far and not have heard of it.
    known = registry.of_run(run_id)
    if known is not None and known.bundle_digest == report.bundle_digest:
        if CHALLENGER not in known.aliases:
            registry.set_alias(CHALLENGER, known.version)
        return Candidate(version=known.version, run_id=run_id, bundle_digest=report.bundle_digest)
    card = model_card(manifest, report.bundle_digest)
    registry.log(run_id, RunLog(texts={MODEL_CARD: card}))
    version = registry.register(
        run_id,
        bundle,
        tags={
            "bundle_digest": report.bundle_digest,
            "feature_fingerprint": report.feature_fingerprint,
            "data_fingerprint": manifest.data_fingerprint.digest if manifest.data_fingerprint else "",
            "venue": settings.venue,
            "timeframe": report.timeframe,
            ARTEFACT_VERSION: artefact_version(manifest.created_at),
            "gate_verdict": "pending",
        }
        | ({"tag": settings.tag} if settings.tag else {}),
        description=description(card, "Not judged yet."),
    )
    return Candidate(version=version.version, run_id=run_id, bundle_digest=report.bundle_digest)


def _report_stop(settings: FlowSettings, run_id: str, error: TripwireError) -> None:
    """Say why a training was stopped where people look: an artifact here, and the run in MLflow, which has failed."""
    text = stopped_markdown(error)
    markdown("training-failure", text, f"Stopped by tripwire {', '.join(error.wires)}; nothing was registered")
    with contextlib.suppress(RegistryUnavailableError):
        registry = Registry(settings.registry_address)
        entry = RunLog(tags={"tripwires": ",".join(error.wires)}, texts={"reports/tripwires.md": text})
        registry.log(run_id, entry)
        registry.finish_run(run_id, failed=True)


@flow(name="train", flow_run_name=named_by_series, timeout_seconds=3 * 3600)
def train(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    as_of: str | None = None,
    label: LabelName | None = None,
    policy: str | None = None,
    *,
    members: str | None = None,
    weighting: Weighting | None = None,
    ensemble_mode: EnsembleMode | None = None,
    heads: str | None = None,
    device: DeviceName | None = None,
    tuned: str | None = None,
    job: str | None = None,
) -> Candidate:
    """
    Train a candidate from stored candles, log it to MLflow, and register it as `challenger`.

    The newest candles are locked away from training: flow `shadow` scores the candidate on them. A tripwire fails the
    run before anything is registered: labels or inputs that know the future, scores too good to be true, too few
    outcomes, fewer candles than asked for. Artifact `training-failure` names it and says what to do.

    Args:
        venue: Whose candles. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all` that are stored. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How many days, counted back from the newest stored candle. Left empty: QT_DAYS, by default 30.
        size: How long the members train: `full`, `quick`, or `tiny` for trying the machinery. Left empty: QT_SIZE.
        as_of: A past date or moment of UTC (`2026-03-01`), to train on what could be known then: days are counted back
            from there, and candles, corrections and universes that came later do not count. Left empty: now.
        label: What trees learn: the `forward` return; the same `net` of costs and stored funding, where constant costs
            are only a shift and change little; or `barrier`, the net return of the exit that the worker's rules would
            have taken. Nets learn the returns of each candle, whatever is chosen, and all are judged on the forward
            return. Left empty: forward.
        policy: TOML file whose exits label `barrier` takes. Left empty: those that `tuned` found, else the built-in.
        members: Which vote, by name and comma (`xgboost,lightgbm`); unknown names are refused with those that exist.
            Left empty: QT_MEMBERS, by default xgboost, lightgbm, nhits and patchtst.
        weighting: How they are weighed: by `stacking` out of fold, by `skill`, `equal` or `fixed`. Left empty:
            QT_WEIGHTING, by default stacking.
        ensemble_mode: `voting`, `stacking` (least squares alone weighs) or `bagging` (each member is the mean of
            several draws of days). Left empty: QT_ENSEMBLE_MODE, by default voting.
        heads: What is answered beside the expected return: `quantile`, an interval; `direction`, a probability of a
            rise; or both with a comma. Left empty: QT_HEADS, by default nothing.
        device: Where nets train: `cpu` or `gpu`; a GPU that is not there is an error. Left empty: QT_DEVICE, by default
            cpu.
        tuned: Name of the tuning whose best settings it takes, and members and weights where those were searched and
            are not named here. It must have searched the same market, and looked at no candle that judges this one.
            Left empty: QT_TUNED, by default none.
        job: Id of the retraining job that this is part of: what it has finished is not done again. Left empty: of none.
    """
    settings = FlowSettings.of(
        venue=venue, symbols=symbols, timeframe=timeframe, days=days, size=size,
        members=members, weighting=weighting, ensemble_mode=ensemble_mode, heads=heads, device=device, tuned=tuned,
    )  # fmt: skip
    steps = steps_of(settings, job)

    def configured() -> TrainingConfig:
        return training_config(settings, utc_now(), as_of=as_of, label=label, policy=policy)

    config = once(steps, "config", TrainingConfig, configured)
    stored_series(lake_as_of(settings, config.as_of_ms), settings)  # What cannot be trained on leaves no run in MLflow.
    opened = steps.found("open-mlflow-run", str)
    if opened is not None:
        take_over_run(settings, opened)
    close_dead_runs(settings)
    run_id = once(steps, "open-mlflow-run", str, lambda: open_run(settings, config, job))
    try:
        with storage_errors(), _folder(settings, steps, run_id) as folder:
            frames = _frames(settings, config, steps)
            require_unseen(config, frames, settings.days)
            report = _bundle(settings, config, frames, steps, folder / "bundle")
            report = once(steps, "beside-champion", TrainingReport, partial(beside_champion, settings, report))
            page = once(steps, "log-training", str, lambda: log_training(settings, run_id, config, report))

            def registered() -> Candidate:
                return register(settings, run_id, folder / "bundle", report)

            candidate = once(steps, "register-challenger", Candidate, registered)
    except TripwireError as error:
        _report_stop(settings, run_id, error)
        raise
    except BaseException:  # Stopped or failed, the run in MLflow must not look as if it went on; then raise on.
        with contextlib.suppress(RegistryUnavailableError, RegistryError):
            Registry(settings.registry_address).finish_run(run_id, failed=True)
        raise
    Registry(settings.registry_address).finish_run(run_id)

    markdown(
        "training-report",
        training_markdown(report, page),
        "Members and baselines, on candles that no member was fitted on",
    )
    say("Version %s is registered as challenger: %s", candidate.version, page)
    return candidate


@contextlib.contextmanager
def _folder(settings: FlowSettings, steps: Steps, run_id: str) -> Iterator[Path]:
    """Return where the bundle is made: in the folder of the job, or in one that is gone afterwards."""
    if steps.folder is not None:
        steps.folder.mkdir(parents=True, exist_ok=True)
        yield steps.folder
        return
    settings.candidates.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.candidates, prefix=f"{run_id}-") as folder:
        yield Path(folder)


def _frames(settings: FlowSettings, config: TrainingConfig, steps: Steps) -> FrameSet:
    """Return what is learned from; a job that goes on learns from what it began with, whatever came since."""
    content = steps.file("load-candles-and-features")
    if content is not None:
        return decode_frames(content)
    frames = load_frames(settings, config)
    if steps.folder is not None:
        steps.keep("load-candles-and-features", encode_frames(frames))
    return frames


def _bundle(
    settings: FlowSettings, config: TrainingConfig, frames: FrameSet, steps: Steps, bundle: Path
) -> TrainingReport:
    """Fit the members that are not there yet, and make the bundle of all."""
    known = steps.found("train-members", TrainingReport)
    if known is not None and _is_whole(bundle, known):
        return known
    bar = ProgressBar("train", "Training")
    members = {name: content for name in config.members if (content := steps.file(f"fit-{name}")) is not None}
    if steps.found("kept-members", tuple[str, ...]) is None:
        kept = takeable(settings, steps, frames, config, lambda sentence: say("%s", sentence))
        for name, content in kept.items():
            steps.keep(f"fit-{name}", content)
        steps.note("kept-members", tuple(kept))
        members |= kept
    absent = tuple(name for name in config.members if name not in members)
    took = {name: told for name in config.members if (told := steps.found(f"seconds-{name}", float)) is not None}
    for name, fitted in fit_members(settings, absent, frames, config, bar):
        steps.keep(f"fit-{name}", fitted.content)
        steps.note(f"seconds-{name}", fitted.seconds)
        members[name], took[name] = fitted
    report = pack_members(settings, frames, config, bundle, {name: stored(one) for name, one in members.items()}, bar)
    report = with_times(report, took)
    steps.note("train-members", report)
    return report


def _is_whole(bundle: Path, report: TrainingReport) -> bool:
    try:
        return load_bundle(bundle, expected_fingerprint=report.feature_fingerprint).digest == report.bundle_digest
    except (QuantumError, OSError):
        return False
