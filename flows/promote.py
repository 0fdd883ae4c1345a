"""The flow that lets a version trade, or refuses it and says why."""

from __future__ import annotations

from pathlib import Path

import msgspec
from prefect import flow, task

from flows.evidence import gate_rows, gates_table, how_it_was_judged, what_it_is
from flows.orchestration import ASKING_REGISTRY, markdown, named_by_version, say, table
from flows.outcome import SHADOW_REPORT, TRAINING_REPORT, Promotion
from flows.registry import RegisteredVersion, Registry, RunLog
from flows.replay.report import ShadowReport
from flows.settings import FlowSettings
from flows.training.gates import Verdict, judge, load_gates
from flows.training.report import TrainingReport
from flows.wording import figure


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


@task(task_run_name="find-champion", **ASKING_REGISTRY)
def find_champion(settings: FlowSettings) -> RegisteredVersion | None:
    """Return the version that trades now."""
    return Registry(settings.registry_address).champion()


@task(task_run_name="judge-by-gates")
def judge_by(
    gates: Path, training: TrainingReport, shadow: ShadowReport, champion: RegisteredVersion | None
) -> Verdict:
    """Hold every gate against what was measured."""
    digest = champion.bundle_digest if champion is not None else ""
    return judge(training, shadow, load_gates(gates), champion_digest=digest or None)


@task(task_run_name="record-verdict-{version.version}", **ASKING_REGISTRY)
def record(
    settings: FlowSettings,
    version: RegisteredVersion,
    verdict: Verdict,
    reports: tuple[TrainingReport, ShadowReport],
) -> None:
    """Write the verdict where people look for it: the version's tags and description, and its run."""
    registry = Registry(settings.registry_address)
    registry.tag(version.version, _tags(verdict, reports[1]))
    registry.describe(version.version, f"{what_it_is(reports[0])}\n\n{how_it_was_judged(verdict)}")
    registry.log(
        version.run_id,
        RunLog(tags={"gate_verdict": _word(verdict)}, texts={"reports/gates.md": gates_table(verdict)}),
    )


@task(task_run_name="move-alias-champion-to-{version.version}", **ASKING_REGISTRY)
def move_alias(settings: FlowSettings, version: RegisteredVersion) -> str | None:
    """Point `champion` at the version and `previous` at the one it replaces."""
    before = Registry(settings.registry_address).promote(version.version)
    return before.version if before is not None and before.version != version.version else None


@flow(name="promote", flow_run_name=named_by_version, timeout_seconds=600)
def promote(version: str | None = None) -> Promotion:
    """
    Judge a version by mlflow/gates.yaml: point the alias `champion` at it, or refuse it and say why.

    A refusal is a result of this flow, not its failure; artifact `gates` shows every gate.

    Args:
        version: Number of a version of `quantum-ensemble`. Left empty: the one that alias `challenger` points at.
    """
    settings = FlowSettings.of()
    ours = find_version(settings, version)
    training, shadow = read_reports(settings, ours)
    verdict = judge_by(settings.gates, training, shadow, find_champion(settings))
    record(settings, ours, verdict, (training, shadow))
    replaced = move_alias(settings, ours) if verdict.passed else None

    judged = f"Version {ours.version}: {_word(verdict)}"
    pages = Registry(settings.registry_address).links(ours, settings.registry_page)
    table("gates", gate_rows(verdict), f"{judged}. {pages}")
    markdown("verdict", f"## {judged}\n\n{pages}\n\n{gates_table(verdict)}", judged)
    say("Version %s: %s", ours.version, _word(verdict))
    return Promotion(
        promoted=verdict.passed,
        version=ours.version,
        run_id=ours.run_id,
        reasons=_reasons(verdict),
        replaced=replaced,
    )


def _word(verdict: Verdict) -> str:
    return "passed" if verdict.passed else "refused"


def _reasons(verdict: Verdict) -> tuple[str, ...]:
    """Every gate that was not held; of a version that passed, that all were."""
    refused = tuple(
        f"{check.name} was {figure(check.value)}, bound {figure(check.bound)}. {check.reason}"
        for check in verdict.refusals
    )
    return refused or (f"all {len(verdict.checks)} gates held",)


def _tags(verdict: Verdict, shadow: ShadowReport) -> dict[str, str]:
    return {
        "gate_verdict": _word(verdict),
        "gate_reasons": " ".join(_reasons(verdict))[:4900],
        "shadow_candles": str(shadow.candles),
    }
