"""The flow that gives the previous champion its place back."""

from __future__ import annotations

from prefect import flow, task

from flows.orchestration import ASKING_REGISTRY, markdown, say
from flows.outcome import Rollback
from flows.registered import RollbackPlan
from flows.registry import Registry
from flows.rolling_back import carry_out, go_back_here, plan_rollback, reached, why_not
from flows.settings import FlowSettings
from inference.domain.errors import RegistryUnavailableError


@task(task_run_name="decide-what-goes-back", **ASKING_REGISTRY)
def decide(settings: FlowSettings) -> RollbackPlan:
    """Decide by number which version is set aside for which: a task that is tried again moves to the same."""
    return plan_rollback(reached(settings))


@task(task_run_name="verify-version-{plan.target.version}", **ASKING_REGISTRY)
def verify(settings: FlowSettings, plan: RollbackPlan) -> str | None:
    """Verify the version that is to trade again as the worker does; return why it cannot, None where it can."""
    return why_not(reached(settings), settings, plan)


@task(task_run_name="set-aside-version-{plan.aside.version}", **ASKING_REGISTRY)
def move(settings: FlowSettings, plan: RollbackPlan, refusal: str | None) -> Rollback:
    """Set one version aside and, where it can trade, let the other take its place."""
    return carry_out(reached(settings), settings, plan, refusal)


@flow(name="rollback", timeout_seconds=600)
def rollback() -> Rollback:
    """
    Give the previous champion its place back; the worker follows within one candle. Doing it twice changes nothing.

    The version that is to trade again is verified as the worker verifies it. Where it fails, the champion is set aside
    all the same: then nothing enters until another is promoted. While MLflow does not answer, the worker of this home
    goes back to the bundle that traded before, from its own files.
    """
    settings = FlowSettings.of()
    try:
        plan = decide(settings)
        done = move(settings, plan, verify(settings, plan))
    except RegistryUnavailableError as error:
        done = go_back_here(settings, str(error))
    said = done.sentence
    if not done.only_here:
        page = Registry(settings.registry_address).version_page(done.version, settings.registry_page)
        said = f"{said}\n\n[Version {done.version} in MLflow]({page})"
    markdown("rollback", said, "Which version a rollback restored")
    say("%s", done.sentence)
    return done
