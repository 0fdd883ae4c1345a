"""The flow that gives the previous champion its place back."""

from __future__ import annotations

from prefect import flow, task

from flows.orchestration import ASKING_REGISTRY, markdown, say
from flows.outcome import Promotion
from flows.registry import Registry
from flows.settings import FlowSettings


@task(task_run_name="exchange-champion-and-previous", **ASKING_REGISTRY)
def exchange_aliases(url: str | None) -> Promotion:
    """Let `champion` and `previous` change places in the registry."""
    champion, set_aside = Registry(url).rollback()
    return Promotion(
        promoted=True,
        version=champion.version,
        run_id=champion.run_id,
        reasons=(f"rolled back from version {set_aside.version}",),
        replaced=set_aside.version,
    )


@flow(name="rollback", timeout_seconds=120)
def rollback() -> Promotion:
    """
    Give the previous champion its place back; the worker follows the alias within one candle.

    Doing it twice changes nothing.
    """
    settings = FlowSettings.of()
    done = exchange_aliases(settings.registry_address)
    page = Registry(settings.registry_address).version_page(done.version, settings.registry_page)
    markdown(
        "rollback",
        f"[Version {done.version}]({page}) trades again; version {done.replaced} was set aside.",
        "Which version a rollback restored",
    )
    say("Version %s is champion again, version %s was set aside", done.version, done.replaced)
    return done
