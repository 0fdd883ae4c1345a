"""The watch over models, with what was decided of them in the lives before this one."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from feature_store.clock import monotonic
from inference.bootstrap.past import Past
from inference.models.registry import BundleCache
from inference.settings import Mode, Settings
from inference.supervision.approval import journaled_approvals
from inference.supervision.model_watch import ModelWatch


def make_models(
    settings: Settings, past: Past, *, fingerprint: str, on_event: Callable[[str, Mapping[str, str]], None]
) -> ModelWatch:
    """Return the watch that finds and verifies the model to trade; in live mode only an approved one."""
    approved = settings.approval_file.read_text().strip() if settings.approval_file is not None else None
    return ModelWatch(
        cache=BundleCache(settings.bundles),
        fingerprint=fingerprint,
        timeframe=settings.timeframe.value,
        on_event=on_event,
        monotonic=monotonic,
        approved_digest=approved,
        only_approved=settings.mode is Mode.LIVE,
        # An alias moved by hand trades on a test network, and is never called what only its own gates call it.
        judged_for=settings.mode.value if settings.is_test_network else None,
        venue=settings.venue,
        journaled_approvals=journaled_approvals(past.decided, venue=settings.venue),
        notices=settings.notices,
    )


async def first_model(models: ModelWatch, settings: Settings, bundle: Path | None) -> None:
    """
    Offer the bundle that was named, else the one that traded last.

    Raises:
        BundleError: The named bundle cannot be trusted.
    """
    if bundle is not None:
        await models.load_folder(bundle)
        return
    await models.load_last_good()
    if settings.mlflow_url is None and models.offered is None:
        models.reason = "QT_MLFLOW_URL is not set and no bundle was named"


async def follow_registry(models: ModelWatch, settings: Settings) -> None:
    """Keep asking the registry, whose address is set, which version has the alias."""
    assert settings.mlflow_url is not None
    await models.run(
        settings.mlflow_url,
        model_name=settings.model_name,
        alias=settings.model_alias,
        every=settings.model_poll_seconds,
    )
