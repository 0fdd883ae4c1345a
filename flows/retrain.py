"""The flow that makes the next model: ingest, features, train, shadow, promote."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from prefect import flow, task

from feature_store.clock import utc_now
from feature_store.errors import QuantumError
from flows.drift import drift
from flows.failures import SeriesFailedError, ShortfallError
from flows.features import features
from flows.home_exits import exits_for
from flows.ingest import ingest
from flows.orchestration import ASKING_REGISTRY, ProgressBar, markdown, named_by_series, say, table
from flows.outcome import Candidate, Promotion
from flows.promote import keeps_its_turn, promote, require_own_registry
from flows.registry import CHALLENGER, CHAMPION, PREVIOUS, Registry
from flows.resources import Meter
from flows.retraining.job import Job, JobKind, Trigger
from flows.retraining.steps import JobSteps, once
from flows.retraining.work import asked_to_resume, job_of, kept_of
from flows.settings import DeviceName, FlowSettings, LabelName, TimeframeName, TrainingSize, VenueName
from flows.shadow import shadow
from flows.sizes import ensemble_of, exits_of
from flows.train import train
from flows.training.config import TrainingConfig
from flows.training.fitting import DEEP_MEMBERS
from flows.training.members.catalogue import parse_members
from flows.training.verdict import Decision
from flows.tuned import tuned_for
from flows.universe import universe
from flows.venue import refuse_unlisted
from inference.domain.mode import AS_LIVE
from inference.models.manifest import EnsembleMode, Weighting
from inference.policy.policy_file import read_policy

_FOUR = TrainingConfig(created_at="", code_version="").members


@task(task_run_name="find-what-was-decided-of-version-{candidate.version}", **ASKING_REGISTRY)
def already_promoted(settings: FlowSettings, candidate: Candidate) -> Promotion | None:
    """Return how a version was promoted, if it trades already: it must not be held against itself."""
    registry = Registry(settings.registry_address)
    champion, previous = registry.champion(), registry.by_alias(PREVIOUS)
    if champion is None or champion.version != candidate.version or champion.tags.get("gate_verdict") != "passed":
        return None
    registry.promote(candidate.version)
    return Promotion(
        promoted=True,
        version=candidate.version,
        run_id=candidate.run_id,
        reasons=(champion.tags.get("gate_reasons", ""),),
        replaced=previous.version if previous is not None else None,
    )


@flow(name="retrain", flow_run_name=named_by_series, timeout_seconds=3 * 3600 + 1800)
def retrain(
    venue: VenueName | None = None,
    symbols: str | None = None,
    timeframe: TimeframeName | None = None,
    days: int | None = None,
    size: TrainingSize | None = None,
    label: LabelName | None = None,
    policy: str | None = None,
    *,
    members: str | None = None,
    weighting: Weighting | None = None,
    ensemble_mode: EnsembleMode | None = None,
    heads: str | None = None,
    device: DeviceName | None = None,
    tuned: str | None = None,
    trigger: Trigger = "demand",
    kind: JobKind | None = None,
    resume: str | None = None,
) -> Promotion:
    """
    Make a candidate from the venue's newest candles, judge it, and let it trade if every gate is held.

    A candidate that is refused, or held back until more is known, is a result and no failure: artifact
    `retrain-result` says which gates it did not hold. In testnet and live a challenger that is tried on live candles
    keeps its turn for up to a week: it is judged again, and no other is trained meanwhile. One retraining runs at a
    time in a home, and each is a job of `qtctl jobs`, also one that only judges again. A job whose process died goes on
    where it was with the next run that asks for the same.

    Args:
        venue: Where candles come from. Left empty: QT_VENUE, by default the sandbox exchange.
        symbols: Unified names separated by commas, or `all`. Left empty: QT_SYMBOLS.
        timeframe: Duration of a candle. Left empty: QT_TIMEFRAME, by default 5m.
        days: How many days of candles to train and judge on. Left empty: QT_DAYS, by default 30.
        size: How long the members train: `full`, `quick`, or `tiny` for trying the machinery. Left empty: QT_SIZE.
        label: What trees learn: `forward`, `net` or `barrier`, as flow `train` explains. Left empty: forward.
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
        trigger: Why: `schedule`, `drift`, `degradation` or `demand`. Left empty: demand.
        kind: `full` fits all members; `incremental` takes the deep ones over from the last job, where they still fit.
            Left empty: a scheduled job is incremental until deep members are due (QT_DEEP_EVERY), any other is full.
        resume: Id of a job that failed or was interrupted, to go on with as it was ordered. Left empty: of none.
    """
    ordered: dict[str, Any] = {
        "venue": venue, "symbols": symbols, "timeframe": timeframe, "days": days, "size": size,
        "label": label, "policy": policy, "members": members, "weighting": weighting, "ensemble_mode": ensemble_mode,
        "heads": heads, "device": device, "tuned": tuned,
    }  # fmt: skip
    if resume is not None:
        before = asked_to_resume(FlowSettings.of(), resume)
        ordered, trigger, kind = before.parameters, before.trigger, before.type
    # What cannot be used is told before an hour of work: exits that are learned, and the rules that shadow trades by.
    learned = exits_of(ordered["label"], ordered["policy"])
    places = {name: value for name, value in ordered.items() if name not in ("label", "policy")}
    settings = FlowSettings.of(**places)
    ensemble_of(settings)
    for rules in (learned, read_policy(settings.policy)):
        if rules is not None:
            exits_for(settings, rules)
    if resume is None:
        tuned_for(settings)
    asyncio.run(refuse_unlisted(settings))
    with job_of(
        settings,
        trigger=trigger,
        kind=kind,
        models=parse_members(settings.members) if settings.members.strip() else _FOUR,
        parameters=ordered,
        resume=resume,
        tell=lambda sentence: say("%s", sentence),
    ) as steps:
        meter = Meter.start()
        # A job that has begun to train goes on with that: its own candidate may be the challenger that is held now.
        tried = _still_tried(settings) if steps.found("ingest", bool) is None else None
        result = _run(settings, steps, ordered) if tried is None else tried
        _note(settings, steps, result, meter=meter, trained=tried is None)
    _publish(result, steps.table.job(steps.job_id))
    return result


def _run(settings: FlowSettings, steps: JobSteps, ordered: dict[str, Any]) -> Promotion:
    """Go through the steps of a job; what it finished before is not done again."""
    chosen = {name: ordered[name] for name in ("venue", "symbols", "timeframe")}
    bar = ProgressBar("retrain", "Retrain")
    if steps.found("ingest", bool) is None:
        try:
            asyncio.run(ingest(**chosen, days=ordered["days"]))
        except (ShortfallError, SeriesFailedError) as told:
            # All others are up to date, and training judges by rules of its own which series it learns from.
            say("Going on with what there is: %s", told)
        steps.note("ingest", value=True)
    bar.show(0.15, "candles are up to date")
    if steps.found("features", bool) is None:
        features(**chosen)
        if settings.follows_universe:
            universe(venue=chosen["venue"], timeframe=chosen["timeframe"])
        steps.note("features", value=True)
    bar.show(0.2, "features are stored")
    _look_for_drift(chosen["venue"])
    candidate = once(steps, "candidate", Candidate, lambda: train(**ordered, job=steps.job_id))
    bar.show(0.8, f"version {candidate.version} is registered")
    if steps.found("shadow", bool) is None:
        shadow(version=candidate.version, job=steps.job_id)
        steps.note("shadow", value=True)
    bar.show(0.95, f"version {candidate.version} is scored in shadow")
    result = steps.found("promotion", Promotion)
    if result is None and steps.table.job(steps.job_id).resumes:
        result = already_promoted(settings, candidate)
    if result is None:
        result = promote(version=candidate.version)
    steps.note("promotion", result)
    bar.show(1.0, "judged")
    return result


def _note(settings: FlowSettings, steps: JobSteps, result: Promotion, *, meter: Meter, trained: bool) -> None:
    """Write into the job what came of it and what it took, and keep its deep members for the jobs to come."""
    if not trained:
        # Somebody looked, which is what the alarm of flow `staleness` asks; but nobody was fitted or taken over.
        steps.table.change(steps.job_id, models=())
    kept = steps.found("kept-members", tuple[str, ...]) or ()
    for name in DEEP_MEMBERS:
        content = steps.file(f"fit-{name}") if name not in kept else None
        if content is not None:
            kept_of(settings).write(name, steps.job_id, content)
    job = steps.table.job(steps.job_id)
    steps.table.change(
        steps.job_id,
        # One that was to take members over, and found none that fit, has fitted all.
        type="full" if job.type == "incremental" and not kept and trained else job.type,
        kept=kept,
        version=result.version,
        run_id=result.run_id,
        promoted=result.promoted,
        replaced=result.replaced,
        reasons=result.reasons,
        metrics=job.metrics | meter.figures(),
    )


def _look_for_drift(venue: VenueName | None) -> None:
    """Record how far the market is from the champion's; what cannot be compared is no reason not to train."""
    try:
        drift(venue=venue, retraining_under_way=True)
    except (QuantumError, ValueError, TimeoutError) as told:
        say("Drift was not looked for: %s", str(told) or type(told).__name__)


def _still_tried(settings: FlowSettings) -> Promotion | None:
    """Judge a challenger again that is tried on live candles; return the verdict if it keeps its turn, else None."""
    if settings.mode not in AS_LIVE:
        return None  # Nothing is tried on live candles there, and MLflow need not answer yet.
    registry = Registry(settings.registry_address)
    # Before an hour of work, and before a candidate takes the challenger's alias there.
    require_own_registry(settings.mode, registry.by_alias(CHAMPION))
    challenger = registry.by_alias(CHALLENGER)
    if challenger is None or not keeps_its_turn(challenger, settings.mode, utc_now()):
        return None
    if "same_champion" in challenger.tags.get("gate_missing", "").split(","):
        shadow(version=challenger.version)
    judged = promote(version=challenger.version)
    return judged if judged.verdict is Decision.HELD else None


def _publish(result: Promotion, job: Job | None = None) -> None:
    settings = FlowSettings.of()
    registry = Registry(settings.registry_address)
    pages = registry.links(registry.version(result.version), settings.registry_page)
    table("retrain-result", [msgspec.to_builtins(result)], f"How this retraining ended. {pages}")
    reasons = "\n".join(f"- {reason}" for reason in result.reasons)
    told = ""
    if job is not None:
        kept = f", members taken over: {', '.join(job.kept)}" if job.kept else ""
        told = f"Job {job.job_id} ({job.type}, {job.trigger}){kept}.\n\n"
    markdown(
        "retrain-summary",
        f"## Version {result.version} {result.sentence}\n\n{reasons}\n\n{told}"
        f"{pages}\n\n"
        f"```json\n{json.dumps(msgspec.to_builtins(result), indent=2)}\n```",
        "What came of the retraining, with the way to its evidence",
    )
    say("Version %s %s", result.version, result.sentence)
