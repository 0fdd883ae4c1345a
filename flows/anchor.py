"""The flow that keeps the journal's head in MLflow, where whoever holds the home does not reach it by its files."""

from __future__ import annotations

import msgspec
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.events import emit_event

from feature_store.clock import utc_now
from flows.anchoring import anchored_head
from flows.orchestration import ASKING_REGISTRY, say
from flows.registry import Registry
from flows.settings import FlowSettings
from inference.domain.errors import JournalError
from inference.journal.anchor import EXPERIMENT, AnchorTag, anchor_key, journal_name
from inference.journal.head import Head

DAMAGED_EVENT = "quantum.journal.damaged"
_NOTE = "How far each journal was durable, by its name: what `qtctl audit verify` holds it against."


@task(task_run_name="read-anchor", **ASKING_REGISTRY)
def last_anchor(settings: FlowSettings) -> Head | None:
    """Return what MLflow keeps of this home's journal, or None before anything was kept."""
    tags = Registry(settings.registry_address).experiment_tags(EXPERIMENT)
    text = tags.get(anchor_key(journal_name(settings.journal, settings.journal_name)))
    return None if text is None else msgspec.json.decode(text.encode(), type=AnchorTag).head


@task(task_run_name="verify-journal", cache_policy=NO_CACHE, timeout_seconds=900)
def verify_since(settings: FlowSettings, known: Head | None) -> Head | None:
    """Return how far the journal is durable, proved to go on from the last anchor."""
    return anchored_head(settings.journal, known, f"in MLflow at {settings.registry_address}")


@task(task_run_name="keep-anchor-{head.seq}", **ASKING_REGISTRY)
def keep(settings: FlowSettings, head: Head) -> None:
    """Replace the anchor in MLflow."""
    name = journal_name(settings.journal, settings.journal_name)
    tag = AnchorTag(journal=name, seq=head.seq, digest=head.digest, at=utc_now().isoformat(timespec="seconds"))
    Registry(settings.registry_address).tag_experiment(
        EXPERIMENT, {anchor_key(name): msgspec.json.encode(tag).decode()}, note=_NOTE
    )


@flow(name="anchor", flow_run_name="anchor of the journal", timeout_seconds=1800)
def anchor() -> int:
    """
    Keep the head of this home's journal in MLflow, once the journal is proved to go on from what was kept there.

    A journal that was cut off below the last anchor, or written anew, fails the run, with the event
    `quantum.journal.damaged`; the anchor stays as it was, and `qtctl audit verify` finds the same. Where a new journal
    was begun on purpose, or one was put back from a backup, give it another QT_JOURNAL_NAME.
    """
    settings = FlowSettings.of()
    known = last_anchor(settings)
    # A journal that is gone is not one that was never begun: an anchor tells them apart.
    if known is None and not settings.journal.exists():
        say("No worker has journaled here yet, so there is nothing to anchor")
        return 0
    try:
        head = verify_since(settings, known)
    except JournalError as error:
        resource = {"prefect.resource.id": f"quantum.journal.{journal_name(settings.journal, settings.journal_name)}"}
        emit_event(DAMAGED_EVENT, resource=resource, payload={"found": str(error)})
        raise
    if head is None or (known is not None and head.seq == known.seq):
        say("Nothing was made durable since the last anchor")
        return 0 if known is None else known.seq
    keep(settings, head)
    say("The journal is anchored at entry %d", head.seq)
    return head.seq
