"""What scores a challenger, put together alike inside the worker and in a process of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from feature_store.clock import monotonic
from inference.domain.policy import Policy
from inference.exchange.venue_clock import VenueClock
from inference.journal.daily import DailyJournal
from inference.models.registry import BundleCache
from inference.settings import Settings, ShadowPlace
from inference.supervision.shadow import Shadow, ShadowPlan


def make_shadow(
    settings: Settings,
    policy: Policy,
    *,
    place: ShadowPlace,
    fingerprint: str,
    clock: VenueClock,
    is_busy: Callable[[], bool] = lambda: False,
) -> Shadow:
    """Return what scores the challenger; nothing runs, and no file is opened, before it is started."""
    process = psutil.Process()
    return Shadow(
        ShadowPlan(
            venue=settings.venue,
            mode=settings.mode.value,
            place=place.value,
            timeframe=settings.timeframe,
            policy=policy,
            memory_mb=settings.shadow_memory_mb,
        ),
        # Bundles of its own: two that download into one folder would clear away what the other brings.
        cache=BundleCache(settings.shadow_folder / "challengers"),
        fingerprint=fingerprint,
        journal=DailyJournal(settings.shadow_journal),
        clock=clock,
        monotonic=monotonic,
        memory_mb=lambda: process.memory_info().rss / 2**20,
        is_busy=is_busy,
    )


def shadow_inside(
    settings: Settings,
    policy: Policy,
    *,
    bundle: Path | None,
    fingerprint: str,
    clock: VenueClock,
    is_busy: Callable[[], bool],
) -> Shadow | None:
    """Return what scores the challenger inside a worker; None where another does, or where nothing names one."""
    if bundle is not None or settings.mlflow_url is None or settings.shadow_place is not ShadowPlace.INSIDE:
        return None
    return make_shadow(
        settings, policy, place=ShadowPlace.INSIDE, fingerprint=fingerprint, clock=clock, is_busy=is_busy
    )


def follow_challenger(shadow: Shadow, settings: Settings) -> None:
    """
    Begin to follow the challenger's alias.

    Raises:
        ValueError: There is no registry to follow.
    """
    if settings.mlflow_url is None:
        raise ValueError("A challenger is followed in MLflow, and QT_MLFLOW_URL is not set")
    shadow.start(
        settings.mlflow_url,
        model_name=settings.model_name,
        alias=settings.challenger_alias,
        every=settings.model_poll_seconds,
    )
