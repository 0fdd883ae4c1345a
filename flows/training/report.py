"""What a training run and a shadow run have to say: figures for MLflow, arrays for plots, digests for the record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import msgspec

from flows.training.evaluate import CalibrationCurve
from inference.models.manifest import TimeWindow, TrainingWindows

MOST_CYCLES = 7
"""Of so many days before its end, at most, a locked window's report tells how far the inputs had drifted."""
WORKER_FIGURES = (
    ("net_return", "net return"),
    ("net_per_day_bps", "net bps of the balance a day, over staying flat"),
    ("sharpe_per_day", "Sharpe by day"),
    ("max_drawdown", "drawdown"),
    ("trades", "trades"),
    ("net_per_trade_bps", "net bps per trade"),
    ("win_rate", "winners"),
    ("exposure", "exposure, in equities"),
    ("time_in_market", "share of time in the market"),
    ("turnover_per_day", "turnover per day, in equities"),
    ("fees", "fees"),
    ("funding", "funding"),
)
"""Figures of the worker's replay, `shadow/worker/…`, as people read them."""


CANDLE_WINDOWS = ("fit", "validation", "calibration", "shadow")
CANDLE_FIGURES = (
    ("coverage", "share with its whole past"),
    ("unexplained_share", "absent without an outage"),
    ("suspect_share", "with suspect prices"),
)
"""Figures of each window's candles, `<window>/…`, as people read them."""


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
    # What it reads, in words, and where it was trained.
    consumes: str = ""
    device: str = "cpu"
    draws: int = 1


class ReliabilityCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Stated and observed probabilities of a rise, bin by bin; a training's are of a window they were fitted on too."""

    stated: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]

    @classmethod
    def of(cls, curve: CalibrationCurve) -> Self:
        """Return a measured curve as a report holds it."""
        return cls(stated=tuple(curve.stated), observed=tuple(curve.observed), count=tuple(curve.count))


class TrainingReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    The result of one training run.

    `metrics` are flat and named `<window>/<who>/<statistic>`. Members were fitted on neither window: both judge them.
    The ensemble's weights come from `validation`; its scale, probabilities and threshold from both, so that of its own
    figures only correlations and hit rates of `calibration` are out of sample. The shadow window is not in here:
    nothing in this report has seen it.
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
    # Members taken over from an earlier candidate, with the windows that they were fitted on.
    kept_members: dict[str, TimeWindow] = {}
    mode: str = "voting"
    # Trained on the same rows and reported, without a vote.
    compared: tuple[MemberReport, ...] = ()
    heads: tuple[str, ...] = ()
    # What the bundle lacks, and why.
    notes: tuple[str, ...] = ()


def with_times(report: TrainingReport, seconds: Mapping[str, float]) -> TrainingReport:
    """Return the report with how many seconds each member took that was fitted for it, as `training/<who>/seconds`."""
    took = {f"training/{name}/seconds": value for name, value in seconds.items()}
    return msgspec.structs.replace(report, metrics=report.metrics | took)


class NetCurve(msgspec.Struct, frozen=True, kw_only=True):
    """Cumulative net return of one rule, one point per trade's exit."""

    name: str
    exit_ms: tuple[int, ...]
    cumulative_net: tuple[float, ...]


class WorkerReplay(msgspec.Struct, frozen=True, kw_only=True):
    """
    What a worker that had traded by the candidate would have had in its account, and on which terms.

    `equity` is the account at each of `time_ms`, in quote currency; `denied` counts candidates that its rules denied.
    """

    policy: dict[str, str]
    policy_fingerprint: str
    balance: str
    costs: dict[str, str]
    denied: dict[str, int]
    time_ms: tuple[int, ...]
    equity: tuple[float, ...]


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
    # First moment of each UTC day, and the correlation of prediction and outcome on it.
    daily_ic: tuple[tuple[int, float], ...] = ()
    # Of each member and the ensemble: mean of the expected and of the real log returns, bin by bin, rising.
    size_curves: dict[str, tuple[tuple[float, float], ...]] = {}
    # The same candles traded by the worker's own decisions; None where there were no prices to trade at.
    worker: WorkerReplay | None = None
    # Of each member, each rule that it was compared with, and the champion; the ensemble's own is above.
    reliability: dict[str, ReliabilityCurve] = {}
