"""The flow that lets a version trade, holds it back until more is known, or refuses it and says why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import msgspec
from prefect import flow, task

from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from feature_store.json_text import UNREADABLE
from feature_store.venue.test_networks import TEST_NETWORKS, no_test_network
from flows.drifting.reaction import DEGRADED_TAG
from flows.evidence import (
    description,
    gate_rows,
    gates_table,
    how_it_was_judged,
    reasons_of,
    verdict_word,
    what_it_is,
)
from flows.notices import announce
from flows.orchestration import ASKING_REGISTRY, markdown, named_by_version, picture, say, table
from flows.outcome import (
    LIVE_SHADOW_REPORT,
    MODEL_CARD,
    REPORT_PAGE,
    SHADOW_REPORT,
    TRAINING_CONFIG,
    TRAINING_REPORT,
    VERDICT_REPORT,
    Promotion,
)
from flows.registry import RegisteredVersion, Registry, RegistryError, RunLog
from flows.replay.live_figures import LiveReport
from flows.replay.report import ShadowReport
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig
from flows.training.gates import Champion, Circumstances, judge, load_gates, moments_of_report
from flows.training.live_evidence import LiveShadow, Market
from flows.training.page import report_page
from flows.training.plots import verdict_plots
from flows.training.report import TrainingReport
from flows.training.selection import Trials, selection_metrics
from flows.training.verdict import Decision, Verdict
from flows.trials import looks_at, trials_on
from inference.domain.mode import AS_LIVE
from inference.models.notices import Notice
from inference.models.set_aside import found_aside, is_set_aside

_LONGEST_TURN = timedelta(days=7)


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """All that a version is judged by: the reports of its training and its shadow, and what lies around them."""

    training: TrainingReport
    shadow: ShadowReport
    around: Circumstances

    @property
    def selection(self) -> dict[str, float]:
        """Figures of how often something was tried on these candles; of a version that never traded, the count."""
        moments = moments_of_report(self.shadow)
        if moments is None:
            return {"trials": float(self.around.trials.count)}
        return selection_metrics(moments, self.around.trials)


@task(task_run_name="find-version", **ASKING_REGISTRY)
def find_version(settings: FlowSettings, version: str | None) -> RegisteredVersion:
    """Return the version to judge."""
    return Registry(settings.registry_address).resolve(version)


@task(task_run_name="read-reports-of-version-{version.version}", **ASKING_REGISTRY)
def read_reports(settings: FlowSettings, version: RegisteredVersion) -> tuple[TrainingReport, ShadowReport]:
    """Return what training and shadow said of a version."""
    registry = Registry(settings.registry_address)
    return (
        msgspec.json.decode(registry.read_text(version.run_id, TRAINING_REPORT), type=TrainingReport),
        msgspec.json.decode(registry.read_text(version.run_id, SHADOW_REPORT), type=ShadowReport),
    )


@task(task_run_name="read-circumstances-of-version-{version.version}", **ASKING_REGISTRY)
def read_circumstances(
    settings: FlowSettings, version: RegisteredVersion, reports: tuple[TrainingReport, ShadowReport]
) -> Circumstances:
    """Return what is known beside the reports: the champion, other trials, live candles, a person's approval."""
    registry = Registry(settings.registry_address)
    require_own_registry(settings.mode, registry.champion())
    config = msgspec.json.decode(registry.read_text(version.run_id, TRAINING_CONFIG), type=TrainingConfig)
    return Circumstances(
        mode=settings.mode,
        venue=settings.venue,
        trained_venue=version.tags.get("venue"),
        champion=_champion(registry),
        trials=_trials(registry, version, reports[0]),
        # Somebody looked, or there would be no report; versions from before looks were counted have one.
        looks=max(len(looks_at(registry.run_tags(version.run_id))), 1),
        live=_live_shadow(registry, version) if settings.mode in AS_LIVE else None,
        approved_digest=version.tags.get("approved_digest"),
        as_of=config.as_of,
        set_aside=_was_set_aside(settings, version),
    )


def require_own_registry(mode: str, champion: RegisteredVersion | None) -> None:
    """
    Refuse to judge for a test network where real money follows the same aliases, and the reverse.

    Raises:
        BadInputError: The champion was judged for the other of the two.
    """
    judged_for = "" if champion is None else champion.tags.get("gate_mode", "")
    if champion is not None and {mode, judged_for} == AS_LIVE:
        raise BadInputError(
            f"QT_MODE={mode} contradicts this registry: its champion, version {champion.version}, was judged for"
            f" QT_MODE={judged_for}, and workers of both would follow one alias; set QT_MLFLOW_URL, or QUANTUM_HOME,"
            " to one of its own"
        )


def _was_set_aside(settings: FlowSettings, version: RegisteredVersion) -> bool:
    # Whoever deleted the tag lets it be judged again, whatever files of this home say.
    order = found_aside(settings.bundles, version.version, version.bundle_digest)
    return "status" in version.tags and is_set_aside(order, version.tags)


def _live_shadow(registry: Registry, version: RegisteredVersion) -> LiveShadow | None:
    """Return what the newest report says. The run's metrics do not say of which market or champion they are."""
    try:
        report = msgspec.json.decode(registry.read_text(version.run_id, LIVE_SHADOW_REPORT), type=LiveReport)
    except (RegistryError, *UNREADABLE):
        return None  # It has none, or one from before reports said so.
    return LiveShadow(
        bundle_digest=report.bundle_digest,
        market=Market(venue=report.venue, mode=report.mode),
        metrics=report.metrics,
        champion_digest=report.champion_digest,
    )


def _champion(registry: Registry) -> Champion | None:
    found = registry.champion()
    if found is None or not found.bundle_digest:
        return None  # A version without a digest was put there by hand: there is nothing to compare with.
    try:
        report = msgspec.json.decode(registry.read_text(found.run_id, TRAINING_REPORT), type=TrainingReport)
        until_ms: int | None = report.windows.shadow.end_ms
    except (RegistryError, *UNREADABLE):
        until_ms = None
    # One that was set aside while none could take its place earns no protection either.
    degraded = bool(found.tags.get(DEGRADED_TAG)) or found.is_rejected
    return Champion(digest=found.bundle_digest, judged_until_ms=until_ms, degraded=degraded)


def _trials(registry: Registry, version: RegisteredVersion, training: TrainingReport) -> Trials:
    market = {name: version.tags[name] for name in ("venue", "timeframe") if name in version.tags}
    runs = registry.runs_tagged(market) if market else []
    windows = training.windows
    return trials_on(windows.shadow, runs, ours=version.run_id, since_ms=windows.fit.start_ms)


@task(task_run_name="judge-by-gates")
def judge_by(gates: Path, evidence: Evidence) -> Verdict:
    """Hold every gate against what was measured."""
    return judge(evidence.training, evidence.shadow, load_gates(gates), evidence.around)


@task(task_run_name="record-verdict-{version.version}", **ASKING_REGISTRY)
def record(settings: FlowSettings, version: RegisteredVersion, verdict: Verdict, evidence: Evidence) -> str:
    """Write the verdict where people look for it: the version's tags and description, and its run; return the page."""
    registry = Registry(settings.registry_address)
    page = registry.run_page(version.run_id, settings.registry_page)
    card = _card(registry, version, evidence.training)
    registry.describe(version.version, description(card, how_it_was_judged(verdict)))
    links = {
        "Run in MLflow": page,
        "version in MLflow": registry.version_page(version.version, settings.registry_page),
    }
    html = report_page(
        evidence.training,
        evidence.shadow,
        verdict,
        version=version.version,
        selection=evidence.selection,
        links=links,
    )
    registry.log(
        version.run_id,
        RunLog(
            tags={"gate_verdict": verdict_word(verdict), "gate_missing": _missing(verdict)},
            metrics={f"selection/{name}": value for name, value in evidence.selection.items()},
            texts={
                "reports/gates.md": gates_table(verdict),
                VERDICT_REPORT: msgspec.json.encode(verdict).decode(),
                REPORT_PAGE: html,
            },
        ),
    )
    # Last, and in one place: what trades follows these tags.
    registry.tag(version.version, _tags(settings, version, verdict, evidence))
    run_address, _, menu = page.partition("?")
    return f"{run_address}/artifacts/{REPORT_PAGE}{'?' if menu else ''}{menu}"


def _card(registry: Registry, version: RegisteredVersion, training: TrainingReport) -> str:
    """Return the model card that training wrote; two sentences for a version from before there were cards."""
    try:
        return registry.read_text(version.run_id, MODEL_CARD)
    except RegistryError:
        return what_it_is(training)


@task(task_run_name="move-alias-champion-to-{version.version}", **ASKING_REGISTRY)
def move_alias(settings: FlowSettings, version: RegisteredVersion) -> str | None:
    """Point `champion` at the version and `previous` at the one it replaces."""
    before = Registry(settings.registry_address).promote(version.version)
    return before.version if before is not None and before.version != version.version else None


@flow(name="promote", flow_run_name=named_by_version, timeout_seconds=600)
def promote(version: str | None = None) -> Promotion:
    """
    Judge a version by mlflow/gates.yaml: point the alias `champion` at it, hold it back, or refuse it and say why.

    Held back is a version that nothing speaks against, but for which evidence is missing: judge it again later. A
    refusal is a result of this flow, not its failure; artifact `gates` shows every gate. What must be shown depends on
    QT_MODE: `testnet` and `live` ask for training on QT_VENUE and a live shadow in that very mode, `live` also for a
    person's approval.

    Args:
        version: Number of a version of `quantum-ensemble`. Left empty: the one that alias `challenger` points at.
    """
    settings = FlowSettings.of()
    if settings.mode == "testnet" and settings.venue not in TEST_NETWORKS:
        raise BadInputError(no_test_network(settings.venue))
    ours = find_version(settings, version)
    training, shadow = read_reports(settings, ours)
    around = read_circumstances(settings, ours, (training, shadow))
    evidence = Evidence(training=training, shadow=shadow, around=around)
    verdict = judge_by(settings.gates, evidence)
    report = record(settings, ours, verdict, evidence)
    replaced = move_alias(settings, ours) if verdict.passed else None
    done = Promotion(
        promoted=verdict.passed,
        version=ours.version,
        run_id=ours.run_id,
        reasons=reasons_of(verdict),
        replaced=replaced,
        verdict=verdict.decision,
        missing=tuple(check.name for check in verdict.missing),
    )
    announce(settings, _notice(settings, done, training.bundle_digest))

    judged = f"Version {ours.version} {done.sentence}"
    pages = (
        f"[The report, a page]({report}) · {Registry(settings.registry_address).links(ours, settings.registry_page)}"
    )
    for name, image in verdict_plots(shadow).items():
        picture(f"verdict-{name}", image, f"{judged}. {pages}")
    table("gates", gate_rows(verdict), f"{judged}. {pages}")
    markdown("verdict", f"## {judged}\n\n{pages}\n\n{gates_table(verdict)}", judged)
    say("%s", judged)
    return done


def _notice(settings: FlowSettings, done: Promotion, digest: str) -> Notice:
    return Notice(
        event="model.verdict",
        version=done.version,
        digest=digest,
        verdict=done.verdict.value,
        mode=settings.mode,
        venue=settings.venue,
        decided_at=utc_now().isoformat(timespec="milliseconds"),
        replaced=done.replaced or "",
        missing=done.missing,
        reasons=done.reasons,
    )


def _missing(verdict: Verdict) -> str:
    return ",".join(check.name for check in verdict.missing)


def keeps_its_turn(challenger: RegisteredVersion | None, mode: str, now: datetime) -> bool:
    """
    Tell whether a retraining should leave the challenger alone: it is being tried on live candles.

    A challenger that each new candidate replaced would never be tried for days. One that is held in testnet or live
    keeps its turn for a week: what the live shadow has not shown by then it will not show.
    """
    if challenger is None or mode not in AS_LIVE or challenger.tags.get("gate_verdict") != "held":
        return False
    try:
        since = datetime.fromisoformat(challenger.tags.get("held_since", ""))
    except ValueError:
        return False
    return now - since < _LONGEST_TURN


def _tags(settings: FlowSettings, version: RegisteredVersion, verdict: Verdict, evidence: Evidence) -> dict[str, str]:
    now = utc_now().isoformat(timespec="seconds")
    return {
        "held_since": (version.tags.get("held_since") or now) if verdict.decision is Decision.HELD else "",
        "gate_reasons": " ".join(reasons_of(verdict))[:4900],
        "gate_missing": _missing(verdict),
        "gate_failed": ",".join(check.name for check in verdict.refusals if check not in verdict.missing),
        "gate_mode": settings.mode,
        "judged_at": now,
        "shadow_candles": str(evidence.shadow.candles),
        "trials": str(evidence.around.trials.count),
        "gate_verdict": verdict_word(verdict),
    }
