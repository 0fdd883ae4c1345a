"""The flow that raises an alarm where retraining has stopped."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from prefect import flow, task
from prefect.events import emit_event

from feature_store.clock import utc_now
from feature_store.json_text import UNREADABLE
from flows.failures import StaleError
from flows.orchestration import ASKING_REGISTRY, markdown, say
from flows.outcome import TRAINING_CONFIG
from flows.registry import MODEL_NAME, Registry, RegistryError
from flows.retraining.age import Staleness, staleness
from flows.retraining.work import table_of
from flows.settings import FlowSettings
from flows.training.config import TrainingConfig

STALE_EVENT = "quantum.model.stale"


@task(task_run_name="find-when-the-champion-was-trained", **ASKING_REGISTRY)
def champion_trained_at(settings: FlowSettings) -> datetime | None:
    """Return when the champion was trained, None while nothing was promoted, and of one that does not say."""
    registry = Registry(settings.registry_address)
    champion = registry.champion()
    if champion is None:
        return None
    try:
        config = msgspec.json.decode(registry.read_text(champion.run_id, TRAINING_CONFIG), type=TrainingConfig)
        trained = datetime.fromisoformat(config.created_at)
    except (RegistryError, ValueError, *UNREADABLE) as error:
        # Somebody may have registered it by hand; the jobs alone then tell how long ago anybody looked.
        say("When champion %s was trained is not known: %s", champion.version, str(error)[:300])
        return None
    return trained if trained.tzinfo is not None else trained.replace(tzinfo=UTC)


@flow(name="staleness", flow_run_name="staleness of the champion", timeout_seconds=600)
def watch_staleness() -> Staleness:
    """
    Fail, with an event, where the champion was not held against fresh candles for twice the schedule's interval.

    A refused candidate counts: somebody looked. Artifact `staleness` says since when nobody did, the event is
    `quantum.model.stale`, and the run ends as failed, so that it is seen.
    """
    settings = FlowSettings.of()
    found = staleness(
        table_of(settings).jobs(), champion_trained_at(settings), utc_now(), interval_hours=settings.retrain_hours
    )
    markdown("staleness", found.sentence(), "Since when the champion was not held against fresh candles")
    say("%s", found.sentence())
    if found.is_stale:
        emit_event(
            STALE_EVENT,
            resource={"prefect.resource.id": f"quantum.model.{MODEL_NAME}"},
            payload=msgspec.to_builtins(found),
        )
        raise StaleError(found.sentence())
    return found
