"""What a demonstration measured, worked out from what the servers answered; no network, no clock."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np

# Shadow candles were seen by no member; the others only stand in where shadow figures are missing.
_WINDOWS = ("shadow", "calibration", "validation")
_MEMBERS = ("xgboost", "lightgbm", "nhits", "patchtst")
SCORES = ("rmse", "mae", "r2", "hit_rate", "ic", "net_per_trade_bps")


class ModelScore(msgspec.Struct, frozen=True, kw_only=True):
    """How well one member, the ensemble or a naive baseline predicted the forward return."""

    name: str
    role: str
    scores: dict[str, float]


class Trading(msgspec.Struct, frozen=True, kw_only=True):
    """What was traded, as the venue's own audit tells it."""

    closed_trades: int
    symbols: list[str]
    pnl: float
    pnl_low: float
    pnl_high: float
    gross_pnl: float
    fees: float
    funding: float
    winners: int
    equity: float
    open_positions: int
    max_unprotected_ms: float
    unprotected_intervals: int
    duplicate_client_ids: list[str]


class Report(msgspec.Struct, kw_only=True):
    """One demonstration, as `--report` writes it."""

    exit_status: int = 1
    outcome: str = ""
    settings: dict[str, Any] = {}
    urls: dict[str, str] = {}
    verdict: str | None = None
    gate_reasons: str | None = None
    model_version: str | None = None
    champion_version: str | None = None
    window: str | None = None
    models: list[ModelScore] = []
    metrics: dict[str, float] = {}
    trading: Trading | None = None
    journal_verified: bool | None = None
    journal: str = ""
    worker: dict[str, Any] = {}
    refusals: dict[str, int] = {}
    seconds: dict[str, float] = {}
    killed: list[str] = []


def scores_of(metrics: Mapping[str, float]) -> tuple[str | None, list[ModelScore]]:
    """Sort a run's flat metrics into one row per model, members first, then the ensemble, then the baselines."""
    for window in _WINDOWS:
        rows: dict[str, dict[str, float]] = {}
        for key, value in metrics.items():
            parts = key.split("/")
            if len(parts) == 3 and parts[0] == window and parts[2] in SCORES:
                rows.setdefault(parts[1], {})[parts[2]] = value
        found = [
            ModelScore(name=name, role=_role(name), scores=scores) for name, scores in rows.items() if "rmse" in scores
        ]
        if found:
            order = {"member": 0, "ensemble": 1, "champion": 2, "baseline": 3}
            return window, sorted(found, key=lambda one: (order[one.role], one.name))
    return None, []


def reasons_by_line(tag: str | None) -> str | None:
    """Put each reason of a verdict, which MLflow holds as one text, on a line of its own."""
    return None if not tag else re.sub(r";? (?=[a-z][a-z0-9_]* was \S+, bound )", "\n", tag)


def _role(name: str) -> str:
    if name in _MEMBERS:
        return "member"
    return name if name in ("ensemble", "champion") else "baseline"


def total_interval(
    values: Sequence[float], *, samples: int = 4000, seed: int = 7, level: float = 0.95
) -> tuple[float, float]:
    """
    Return a bootstrap confidence interval of the sum of some trades' results.

    Trades are drawn with replacement; with none the interval is zero, and with one it is that one.
    """
    if not values:
        return 0.0, 0.0
    drawn = np.random.default_rng(seed).choice(np.asarray(values, dtype=np.float64), size=(samples, len(values)))
    low, high = np.quantile(drawn.sum(axis=1), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def trading_of(audit: Mapping[str, Any], *, before: int = 0) -> Trading:
    """Sum up the venue's audit, leaving out the first `before` round trips, which an earlier run closed."""
    trades = list(audit.get("trades") or [])[before:]
    results = [float(trade["pnl"]) for trade in trades]
    low, high = total_interval(results)
    unprotected = audit.get("unprotected") or {}
    return Trading(
        closed_trades=len(trades),
        symbols=sorted({str(trade["symbol"]) for trade in trades}),
        pnl=sum(results),
        pnl_low=low,
        pnl_high=high,
        gross_pnl=sum(float(trade["gross_pnl"]) for trade in trades),
        fees=sum(float(trade["fees"]) for trade in trades),
        funding=sum(float(trade["funding"]) for trade in trades),
        winners=sum(result > 0 for result in results),
        equity=float(audit.get("equity") or 0.0),
        open_positions=len(audit.get("open_positions") or []),
        max_unprotected_ms=float(unprotected.get("max_wall_ms") or 0.0),
        unprotected_intervals=len(unprotected.get("intervals") or []),
        duplicate_client_ids=list(audit.get("duplicate_client_ids") or []),
    )
