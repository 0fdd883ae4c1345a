"""What a shadow run has to say: how a bundle did on candles that it never saw."""

from __future__ import annotations

import msgspec

from inference.models.manifest import TimeWindow


class NetCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative net return of one rule, one point per trade's exit."""

    name: str
    exit_ms: tuple[int, ...]
    cumulative_net: tuple[float, ...]


class ShadowReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    The result of one shadow run.

    `metrics` are flat and named `shadow/<who>/<statistic>`; `shadow/<a>_minus_<b>/…` are differences paired in time.
    A figure that could not be computed is absent, and a gate on it refuses.
    """

    bundle_digest: str
    champion_digest: str | None
    window: TimeWindow
    candles: int
    rows: int
    symbols: tuple[str, ...]
    threshold: float
    metrics: dict[str, float]
    curves: tuple[NetCurve, ...]
    stated: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]
    notes: tuple[str, ...]
