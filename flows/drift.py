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
from flows.drift_page import evidently_page
from flows.drift_text import DriftResult, column_rows, headline, metrics, performance_rows, summary
from flows.drifting.check import FALSE_ALARM_RATE, DriftReport, Verdict, check
from flows.drifting.reaction import DEGRADED_TAG, Retraining, degraded_at, events_of, retraining
from flows.live_predictions import live_predictions
from flows.observing import Sample, observe
from flows.orchestration import ASKING_REGISTRY, markdown, say, table
from flows.outcome import TRAINING_CONFIG, TRAINING_REPORT
from flows.registry import RegisteredVersion, Registry, RunLog
from flows.settings import FlowSettings, VenueName
from flows.training.config import TrainingConfig
from flows.training.report import TrainingReport
from inference.models.bundle import load_bundle

_HOUR_MS = 3_600_000
_ASKED_TAG, _VERDICT_TAG = "drift_retraining_asked_at", "drift_verdict"


@dataclass(frozen=True, slots=True)
class Champion:
    """The version that trades, with what its run says of its training."""

    version: RegisteredVersion
    training: TrainingReport
    config: TrainingConfig


@task(task_run_name="find-champion", **ASKING_REGISTRY)
def find_champion(settings: FlowSettings) -> Champion | None:
    """Return the champion with the report of its training, or None while nothing was promoted."""
    registry = Registry(settings.registry_address)
    champion = registry.champion()
    if champion is None:
        return None
    report = msgspec.json.decode(registry.read_text(champion.run_id, TRAINING_REPORT), type=TrainingReport)
    config = msgspec.json.decode(registry.read_text(champion.run_id, TRAINING_CONFIG), type=TrainingConfig)
    return Champion(champion, report, config)


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
    seen = observe(settings, bundle, champion.training, champion.config, hours, live)
    report = check(
        seen.groups, seen.performance,
        version=champion.version.version, end_ms=seen.end_ms, hours=hours, notes=seen.notes,
    )  # fmt: skip
    return report, seen.sample


@task(task_run_name="log-to-mlflow", **ASKING_REGISTRY)
def log_drift(settings: FlowSettings, champion: Champion, report: DriftReport, sample: Sample, asked: str) -> str:
    """Log figures, report and Evidently's page to the champion's run, the verdict to the version; return its page."""
    registry = Registry(settings.registry_address)
    run_id, page = champion.version.run_id, registry.run_page(champion.version.run_id, settings.registry_page)
    drawn = evidently_page(report, sample)
    stamp = datetime.fromtimestamp(report.end_ms / 1000, tz=UTC).strftime("%Y%m%dT%H%M")
    texts = {
        f"drift/{stamp}.json": msgspec.json.encode(report).decode(),
        "drift/summary.md": summary(report, page, asked),
    }
    if drawn is not None:
        texts["drift/evidently.html"] = drawn
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


@flow(name="drift", flow_run_name="drift of the champion", timeout_seconds=3600)
def drift(hours: int = 24, venue: VenueName | None = None, *, retraining_under_way: bool = False) -> DriftResult:
    """
    Compare what the champion sees, says and earns now with when it was made.

    Results rank above inputs: a champion that delivers less than half of what it was promoted on is degraded (a
    sequential test on net result, IC, hit rate and calibration of matured outcomes). Inputs, predictions and outcomes
    of the newest hours drifted where they lie further from the reference than its own stretches of that length lie
    from each other (PSI, KL, Jensen-Shannon, Kolmogorov-Smirnov, Wasserstein). Where nothing changed, 2 % of checks
    speak. What is found becomes an event, which lets an automation retrain. A champion that degraded gets the tag
    `degraded_at`, with which flow `promote` owes it neither tenure nor a lead, until a check finds it no more. While
    nothing was promoted, or too little is stored, the flow says so.

    Args:
        hours: How many hours, counted back from the newest stored candle, are compared.
        venue: Where the champion's candles come from. Left empty: QT_VENUE, by default the sandbox exchange.
        retraining_under_way: Set by a retraining that checks on its way: what is found asks for no further one.
    """
    settings = FlowSettings.of(venue=venue)
    champion = find_champion(settings)
    if champion is None:
        told = "Nothing was promoted yet: there is no champion to compare with"
        say("%s.", told)
        markdown("drift-summary", f"{told}.", "Drift")
        return _nothing(told)
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
    return result


def _publish(report: DriftReport, page: str, asked: Retraining) -> None:
    told = headline(report)
    table("drift", column_rows(report), f"Each distance beside its limit. {told}")
    table("drift-performance", performance_rows(report.performance), f"What the champion delivers. {told}")
    markdown("drift-summary", summary(report, page, asked), "What the champion sees, says and earns, then and now")
    say("%s; retraining: %s", told, asked)


def _nothing(told: str) -> DriftResult:
    return DriftResult(
        verdict=Verdict.NO_CHAMPION, version=None, run_id=None, retraining=Retraining.NOT_NEEDED, summary=told,
        drifted={}, evidence=0.0, evidence_limit=0.0, false_alarm_rate=FALSE_ALARM_RATE,
    )  # fmt: skip


def _milliseconds(moment: datetime) -> int:
    return int(moment.timestamp() * 1000)


def _moment_of(text: str | None) -> int | None:
    return None if not text else _milliseconds(datetime.fromisoformat(text))
