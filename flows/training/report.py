"""What a training run and a shadow run have to say: figures for MLflow, arrays for plots, digests for the record."""

from __future__ import annotations

import msgspec

from inference.models.manifest import TimeWindow, TrainingWindows


class MemberReport(msgspec.Struct, frozen=True, kw_only=True):
    """One member of the ensemble and its share in it."""

    name: str
    weight: float
    scale: float
    inputs: tuple[str, ...]
    file: str
    file_bytes: int
    # Largest difference between the exported and the trained member, in standard deviations of its predictions.
    parity: float
    importance: dict[str, float]


class ReliabilityCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Stated and observed probabilities of a rise, bin by bin."""

    stated: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    The result of one training run.

    `metrics` are flat and named `<window>/<who>/<statistic>`: `validation` judged the members, `calibration` judged
    members and ensemble. The shadow window is not in here: nothing in this report has seen it.
    """

    bundle_digest: str
    feature_fingerprint: str
    created_at: str
    code_version: str
    symbols: tuple[str, ...]
    timeframe: str
    horizon: int
    windows: TrainingWindows
    rows: dict[str, int]
    weighting: str
    threshold: float
    members: tuple[MemberReport, ...]
    baselines: tuple[str, ...]
    metrics: dict[str, float]
    reliability: ReliabilityCurve
    # Correlation of the members' errors, rows and columns in the order of `members`.
    error_correlation: tuple[tuple[float, ...], ...]


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
