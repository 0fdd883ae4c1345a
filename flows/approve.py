"""The flow that records a person's approval of a version for real money."""

from __future__ import annotations

from prefect import flow, task

from feature_store.clock import utc_now
from feature_store.errors import BadInputError
from flows.notices import announce
from flows.orchestration import ASKING_REGISTRY, markdown, named_by_version, say
from flows.outcome import Approval
from flows.registry import RegisteredVersion, Registry
from flows.settings import FlowSettings
from inference.models.notices import Notice


def why_not(version: RegisteredVersion) -> str | None:
    """
    Return why a person may not approve a version, None where they may.

    An approval replaces no gate: the gates must have passed it, or held it back for nothing but the approval.
    """
    verdict, missing = version.tags.get("gate_verdict", "pending"), version.tags.get("gate_missing", "")
    judge = f"judge it with QT_MODE=live qtctl promote {version.version}"
    if verdict == "passed" or (verdict == "held" and missing == "approval"):
        return None if version.bundle_digest else f"Version {version.version} has no tag bundle_digest; train again"
    if verdict == "held":
        return f"Version {version.version} still lacks {missing}: wait for it, then {judge}"
    if verdict == "refused":
        failed = version.tags.get("gate_failed") or "see its gates"
        return f"Version {version.version} was refused ({failed}), and an approval replaces no gate; train another"
    return f"Version {version.version} was not judged: {judge} first"


@task(task_run_name="find-version-to-approve", **ASKING_REGISTRY)
def find_version(settings: FlowSettings, version: str) -> RegisteredVersion:
    """Return the version to approve."""
    return Registry(settings.registry_address).resolve(version)


@task(task_run_name="record-approval-{approval.version}", **ASKING_REGISTRY)
def record(settings: FlowSettings, approval: Approval) -> None:
    """Write the approval into the version's tags, its digest last: without it, nothing is approved."""
    tags = {
        "approved_by": approval.by,
        "approved_at": approval.approved_at,
        "approved_verdict": approval.verdict,
        "approved_digest": approval.bundle_digest,
    }
    Registry(settings.registry_address).tag(approval.version, tags)


@flow(name="approve", flow_run_name=named_by_version, timeout_seconds=120)
def approve(version: str, by: str) -> Approval:
    """
    Record that a person lets a version trade real money; it trades once `promote` judged it in QT_MODE=live.

    An approval is of one bundle, by its digest, and replaces no gate. It is not given with QT_MODE=testnet, where none
    is needed.

    Args:
        version: Number of a version of `quantum-ensemble` that passed the gates, or lacks nothing but the approval.
        by: Who approves: a name that others recognise.
    """
    name = " ".join(by.split())
    if not name or len(name) > 100:
        raise BadInputError(f"Say who approves in 1 to 100 characters, such as --by 'Ada Lovelace'; was {by!r}")
    settings = FlowSettings.of()
    if settings.mode == "testnet":
        raise BadInputError(
            "QT_MODE=testnet needs no approval, and gives none for real money:"
            f" judge the version there first, then QT_MODE=live qtctl approve {version}"
        )
    ours = find_version(settings, version)
    verdict = ours.tags.get("gate_verdict", "pending")
    refusal = why_not(ours)
    done = Approval(
        approved=refusal is None,
        version=ours.version,
        bundle_digest=ours.bundle_digest,
        by=name,
        approved_at=utc_now().isoformat(timespec="seconds"),
        verdict=verdict,
        reason=refusal or "",
    )
    if refusal is None:
        record(settings, done)
        announce(settings, _notice(settings, done))
    pages = Registry(settings.registry_address).links(ours, settings.registry_page)
    said = refusal or f"{name} approved version {done.version}, bundle {done.bundle_digest[:12]}, judged {verdict}"
    markdown("approval", f"## {said}\n\n{pages}", "Who lets which bundle trade real money")
    say("%s", said)
    return done


def _notice(settings: FlowSettings, done: Approval) -> Notice:
    return Notice(
        event="model.approved",
        version=done.version,
        digest=done.bundle_digest,
        verdict=done.verdict,
        mode=settings.mode,
        decided_at=done.approved_at,
        by=done.by,
    )
