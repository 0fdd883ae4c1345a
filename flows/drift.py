"""The flow that compares what the champion sees, says and earns now with when it was made."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from feature_store.json_text import UNREADABLE
from flows.drift_page import evidently_page
from flows.drift_text import (
    ChallengerDrift,
    DriftResult,
    challenger_headline,
    challenger_summary,
    column_rows,
    headline,
    metrics,
    notice,
    performance_rows,
    summary,
)
from flows.drifting.challenging import inputs_report, inputs_unknown
from flows.drifting.check import FALSE_ALARM_RATE, DriftReport, Verdict, check
from flows.drifting.live_quality import with_live_quality
from flows.drifting.reaction import (
    DEGRADED_TAG,
    MODEL_DEGRADED,
    RETRAIN_LABEL,
    Retraining,
    degraded_at,
    events_of,
    retraining,
)
from flows.live_predictions import live_predictions
from flows.notices import announce
from flows.observing import Sample, observe, observe_inputs
from flows.orchestration import ASKING_REGISTRY, markdown, say, table
from flows.outcome import TRAINING_CONFIG, TRAINING_REPORT, Rollback
from flows.registry import CHALLENGER, RegisteredVersion, Registry, RegistryError, RunLog
from flows.rolling_back import heed_home
from flows.settings import FlowSettings, VenueName
from flows.training.config import TrainingConfig
from flows.training.report import TrainingReport
from inference.domain.errors import RegistryUnavailableError
from inference.models.bundle import load_bundle

_HOUR_MS = 3_600_000
_ASKED_TAG, _VERDICT_TAG = "drift_retraining_asked_at", "drift_verdict"
_PAGES, _KEPT_PAGES = "drift/evidently", 14
"""Where Evidently's pages lie by the time of their newest candle, and how many: each takes some megabytes."""


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that trades, with what its run says of its training."""

    version: RegisteredVersion
    training: TrainingReport
    config: TrainingConfig


@dataclass(frozen=True, slots=True)
class HeldChallenger:
    """The version that is tried and held back, with what its run says of its training."""

    version: RegisteredVersion
    training: TrainingReport
    config: TrainingConfig


@task(task_run_name="heed-this-home", **ASKING_REGISTRY)
def heed(settings: FlowSettings) -> Rollback | None:
    """Move the aliases where a worker of this home has left the champion for its live opinions, or a person did."""
    return heed_home(Registry(settings.registry_address), settings)


@task(task_run_name="find-champion", **ASKING_REGISTRY)
def find_champion(settings: FlowSettings) -> Champion | None:
    """
    Return the champion with the report of its training, or None while nothing was promoted.

    Raises:
        RegistryError: Its run holds no report of a training that can be read.
    """
    registry = Registry(settings.registry_address)
    champion = registry.champion()
    if champion is None:
        return None
    try:
        return Champion(champion, *_training_of(registry, champion))
    except UNREADABLE as error:
        raise RegistryError(
            f"The report on the training of version {champion.version} cannot be read, so that nothing can be compared "
            f"with it: {error}"[:600]
        ) from error


@task(task_run_name="find-held-challenger", **ASKING_REGISTRY)
def find_challenger(settings: FlowSettings) -> HeldChallenger | None:
    """Return the challenger that the gates hold back, or None where there is none, or its run does not tell of it."""
    registry = Registry(settings.registry_address)
    challenger = registry.by_alias(CHALLENGER)
    if challenger is None or challenger.tags.get("gate_verdict") != "held" or challenger.is_rejected:
        return None
    try:
        return HeldChallenger(challenger, *_training_of(registry, challenger))
    except (RegistryError, *UNREADABLE) as told:
        say("Drift was not asked of challenger %s: %s", challenger.version, told)
        return None


def _training_of(registry: Registry, version: RegisteredVersion) -> tuple[TrainingReport, TrainingConfig]:
    return (
        msgspec.json.decode(registry.read_text(version.run_id, TRAINING_REPORT), type=TrainingReport),
        msgspec.json.decode(registry.read_text(version.run_id, TRAINING_CONFIG), type=TrainingConfig),
    )


@task(task_run_name="download-version-{version.version}", **ASKING_REGISTRY)
def download(settings: FlowSettings, version: RegisteredVersion, folder: Path) -> Path:
    """Download the champion's bundle: what is looked at is what trades."""
    return Registry(settings.registry_address).download_bundle(version.version, folder)


@task(task_run_name="compare", cache_policy=NO_CACHE, timeout_seconds=3000)
def compare(settings: FlowSettings, champion: Champion, folder: Path, hours: int) -> tuple[DriftReport, Sample]:
    """Look at inputs, predictions, outcomes and results of then and now, and judge them."""
    bundle = load_bundle(
        folder,
        expected_fingerprint=champion.training.feature_fingerprint,
        expected_digest=champion.version.tagged_digest,
    )
    live = live_predictions(settings.journal, champion.version.version, bundle.digest)
    if settings.trades_other_candles:
        # Outcomes in the lake are no answer to what was said of other prices.
        live = live.of_other_candles()
    seen = observe(settings, bundle, champion.training, champion.config, hours, live)
    report = check(
        seen.groups, seen.performance,
        version=champion.version.version, end_ms=seen.end_ms, hours=hours, notes=seen.notes,
    )  # fmt: skip
    return with_live_quality(report, live.quality), seen.sample


@task(task_run_name="compare-challenger", cache_policy=NO_CACHE, timeout_seconds=1800)
def compare_challenger(settings: FlowSettings, held: HeldChallenger, hours: int) -> DriftReport:
    """Look at what a challenger reads, then and now, and judge it; what cannot be read is said."""
    version = held.version.version
    try:
        read, end_ms = observe_inputs(settings, held.training, held.config, hours)
    except BadInputError as told:
        return inputs_unknown(str(told), version=version, end_ms=held.training.windows.shadow.end_ms, hours=hours)
    return inputs_report(read, version=version, end_ms=end_ms, hours=hours)


@task(task_run_name="log-challenger-to-mlflow", **ASKING_REGISTRY)
def log_challenger(settings: FlowSettings, held: HeldChallenger, report: DriftReport) -> str:
    """Log what was found of a challenger to its run, the verdict to the version; return the report as markdown."""
    registry, version = Registry(settings.registry_address), held.version
    text = challenger_summary(report, registry.run_page(version.run_id, settings.registry_page))
    stamp = _stamp(report)
    found = {name: value for name, value in metrics(report).items() if not name.startswith("drift/performance")}
    texts = {f"drift/{stamp}.json": msgspec.json.encode(report).decode(), "drift/summary.md": text}
    registry.log(version.run_id, RunLog(metrics=found, texts=texts, time_ms=report.end_ms))
    registry.tag(version.version, {_VERDICT_TAG: f"{report.verdict} at {stamp}"})
    return text


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_drift(settings: FlowSettings, champion: Champion, report: DriftReport, sample: Sample, asked: str) -> str:
    """Log figures, report and Evidently's page to the champion's run, the verdict to the version; return its page."""
    registry = Registry(settings.registry_address)
    run_id, page = champion.version.run_id, registry.run_page(champion.version.run_id, settings.registry_page)
    drawn = evidently_page(report, sample)
    stamp = _stamp(report)
    texts = {
        f"drift/{stamp}.json": msgspec.json.encode(report).decode(),
        "drift/summary.md": summary(report, page, asked),
    }
    if drawn is not None:
        texts |= {"drift/evidently.html": drawn, f"{_PAGES}/{stamp}.html": drawn}
    registry.log(run_id, RunLog(metrics=metrics(report), texts=texts, time_ms=report.end_ms))
    tags = {_VERDICT_TAG: f"{report.verdict} at {stamp}"}
    noted = champion.version.tags.get(DEGRADED_TAG, "")
    # Of a version that never degraded the tag is not there at all.
    if (degraded := degraded_at(report, noted)) != noted:
        tags[DEGRADED_TAG] = degraded
    if asked == Retraining.WANTED:
        tags[_ASKED_TAG] = utc_now().isoformat(timespec="seconds")
    registry.tag(champion.version.version, tags)
    return page


@task(task_run_name="delete-older-pages", cache_policy=NO_CACHE, timeout_seconds=600)
def delete_older_pages(settings: FlowSettings, version: RegisteredVersion) -> None:
    """Keep the newest of Evidently's pages; where they cannot be deleted they pile up, and that is said."""
    try:
        Registry(settings.registry_address).keep_last(version.run_id, _PAGES, _KEPT_PAGES)
    except (RegistryError, RegistryUnavailableError) as told:
        say("Older pages of drift were not deleted: %s", told)


@flow(name="drift", flow_run_name="drift of the champion", timeout_seconds=3600)
def drift(hours: int = 24, venue: VenueName | None = None, *, retraining_under_way: bool = False) -> DriftResult:
    """
    Compare what the champion sees, says and earns now with when it was made.

    Results rank above inputs: a champion that delivers less than half of what it was promoted on is degraded (a
    sequential test on net result, IC, hit rate and calibration of matured outcomes). Inputs, predictions and outcomes
    of the newest hours drifted where they lie further from the reference than its own stretches of that length lie
    from each other (PSI, KL, Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein). Where nothing changed, 2 % of checks
    speak. What is found becomes an event, which lets an automation retrain. A champion that degraded gets the tag
    `degraded_at`, with which flow `promote` owes it neither tenure nor a lead, until a check finds it no more. A worker
    that found the champion's live opinions poor, and not yet recovered, is a degradation too; where one watches, a
    further 1 % of champions may be called so wrongly. A challenger that the gates hold back is asked whether its inputs
    drifted from its own training (0.4 % of checks speak): its run in MLflow and this report say so, and nothing is
    retrained on it. While nothing was promoted, or too little is stored, the flow says so. First of all, where a worker
    of this home has left the champion, the aliases are moved as by a rollback.

    Args:
        hours: How many hours, counted back from the newest stored candle, are compared.
        venue: Where the champion's candles come from. Left empty: QT_VENUE, by default the sandbox exchange.
        retraining_under_way: Set by a retraining that checks on its way: what is found asks for no further one.
    """
    settings = FlowSettings.of(venue=venue)
    # A retraining makes the next challenger, and ends the turn of this one.
    looks_beside = not retraining_under_way
    fallen = heed(settings)
    if fallen is not None:
        say("%s", fallen.sentence)
        _ask_to_retrain(fallen, under_way=retraining_under_way)
    champion = find_champion(settings)
    if champion is None:
        beside, text = _look_at_challenger(settings, hours) if looks_beside else (None, "")
        told = "Nothing was promoted yet: there is no champion to compare with"
        say("%s.", told)
        markdown("drift-summary", f"{told}.{_below(text)}", "Drift")
        return _nothing(told, beside)
    settings.candidates.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=settings.candidates) as folder:
        bundle = download(settings, champion.version, Path(folder))
        report, sample = compare(settings, champion, bundle, hours)
    asked = retraining(
        report.verdict,
        now_ms=_milliseconds(utc_now()),
        last_asked_ms=_moment_of(champion.version.tags.get(_ASKED_TAG)),
        trained_ms=_moment_of(champion.training.created_at) or 0,
        cooldown_ms=settings.drift_cooldown_hours * _HOUR_MS,
        under_way=retraining_under_way,
    )
    announce(settings, notice(report, "champion", utc_now(), asked))
    page = log_drift(settings, champion, report, sample, asked)
    _publish(report, page, asked)
    result = DriftResult(
        verdict=report.verdict,
        version=report.version,
        run_id=champion.version.run_id,
        retraining=asked,
        summary=headline(report),
        drifted={group.name: group.drifted for group in report.groups if group.found},
        evidence=report.performance.evidence,
        evidence_limit=report.performance.limit,
        false_alarm_rate=report.false_alarm_rate,
    )
    for name, resource in events_of(report, asked):
        emit_event(name, dict(resource), payload=msgspec.to_builtins(result))
    # Whatever goes wrong with the challenger, the champion has been judged.
    beside, text = _look_at_challenger(settings, hours) if looks_beside else (None, "")
    if text:
        _summarize(f"{summary(report, page, asked)}{_below(text)}")
    # Last: a server may forbid it, and what drift says and asks for hangs on no housekeeping.
    delete_older_pages(settings, champion.version)
    return msgspec.structs.replace(result, challenger=beside)


def _ask_to_retrain(fallen: Rollback, *, under_way: bool) -> None:
    """Tell that a champion was left for what it did: the one before it was replaced for a reason."""
    if fallen.repeated:
        return
    resource = {
        "prefect.resource.id": f"quantum-ensemble.version.{fallen.replaced}",
        "prefect.resource.name": f"quantum-ensemble version {fallen.replaced}",
        RETRAIN_LABEL: (Retraining.UNDER_WAY if under_way else Retraining.WANTED).value,
    }
    emit_event(MODEL_DEGRADED, resource, payload={"left": fallen.replaced, "now": fallen.version})


def _look_at_challenger(settings: FlowSettings, hours: int) -> tuple[ChallengerDrift | None, str]:
    """Return what was found of a challenger that is held back, and say it as markdown; nothing where there is none."""
    held = find_challenger(settings)
    if held is None:
        return None, ""
    report = compare_challenger(settings, held, hours)
    announce(settings, notice(report, "challenger", utc_now()))
    text = log_challenger(settings, held, report)
    told = challenger_headline(report)
    say("%s", told)
    table("drift-challenger", column_rows(report), f"Each distance beside its limit. {told}")
    drifted = report.groups[0].drifted
    return ChallengerDrift(version=report.version, verdict=report.verdict, summary=told, drifted=drifted), text


def _below(text: str) -> str:
    return f"\n\n{text}" if text else ""


def _publish(report: DriftReport, page: str, asked: Retraining) -> None:
    told = headline(report)
    table("drift", column_rows(report), f"Each distance beside its limit. {told}")
    table("drift-performance", performance_rows(report.performance), f"What the champion delivers. {told}")
    _summarize(summary(report, page, asked))
    say("%s; retraining: %s", told, asked)


def _summarize(text: str) -> None:
    markdown("drift-summary", text, "What the champion sees, says and earns, then and now")


def _nothing(told: str, beside: ChallengerDrift | None) -> DriftResult:
    return DriftResult(
        verdict=Verdict.NO_CHAMPION, version=None, run_id=None, retraining=Retraining.NOT_NEEDED, summary=told,
        drifted={}, evidence=0.0, evidence_limit=0.0, false_alarm_rate=FALSE_ALARM_RATE,
        challenger=beside,
    )  # fmt: skip


def _stamp(report: DriftReport) -> str:
    return datetime.fromtimestamp(report.end_ms / 1000, tz=UTC).strftime("%Y%m%dT%H%M")


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment_of(text: str | None) -> int | None:
    return None if not text else _milliseconds(datetime.fromisoformat(text))
