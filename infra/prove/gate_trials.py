"""Whole trainings on markets of known truth, judged by the gates, with all imported here that a verdict depends on."""

from __future__ import annotations

import ast
import hashlib
import tempfile
from pathlib import Path
from typing import Literal

import grimp
import msgspec
import numpy as np
from scipy.stats import beta

from feature_store.clock import monotonic
from feature_store.errors import QuantumError
from flows.replay.report import ShadowReport
from flows.replay.shadow import shadow_candidate
from flows.training.calibrate import fit_rule, probabilities
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Rows
from flows.training.gates import judge, load_gates
from flows.training.pipeline import train_candidate
from flows.training.report import TrainingReport
from flows.training.splits import Splits
from flows.training.trading import Trades, simulate
from infra.prove.gate_markets import Truth, shuffled_frames, synthetic_frames

ROOT = Path(__file__).resolve().parents[2]
TREES = ("xgboost", "lightgbm")
EVERYONE = ("xgboost", "lightgbm", "nhits", "patchtst")
_DAY_MS = 86_400_000
# What a verdict depends on beside what is imported by name: members are found by being there.
_FOUND = "flows/training/members"


class Trial(msgspec.Struct, frozen=True, kw_only=True):
    """One candidate: of which market, from which members."""

    market: Literal["synthetic", "shuffled"]
    seed: int
    edge: float = 0.0
    members: tuple[str, ...] = TREES
    symbols: int = 20
    days: int = 30

    @property
    def key(self) -> str:
        """A name for what was tried, the same for the same trial."""
        return hashlib.sha256(msgspec.json.encode(self)).hexdigest()[:20]


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """
    What came of a trial.

    Sharpe ratios are of net returns a day, over the locked window; the oracle trades the same rows by the same rule.
    `failed` is the tripwire or error that ended the training, empty where it ran to its end. Without an edge
    the oracle's figures are 0.
    """

    trial: Trial
    promoted: bool
    refusals: tuple[str, ...] = ()
    failed: str = ""
    ic: float = 0.0
    net: float = 0.0
    sharpe: float = 0.0
    oracle_net: float = 0.0
    oracle_sharpe: float = 0.0
    trades: int = 0
    seconds: float = 0.0


def code_digest() -> str:
    """Return a digest of the code and the gates that decide a trial: of all that is imported, however far away."""
    graph = grimp.build_graph("flows", "inference", "feature_store", "infra", cache_dir=None)
    names = {__name__} | graph.find_upstream_modules(__name__)
    places = [ROOT.joinpath(*name.split(".")) for name in names]
    modules = [place / "__init__.py" if place.is_dir() else place.with_suffix(".py") for place in places]
    digest = hashlib.sha256((ROOT / "mlflow" / "gates.yaml").read_bytes())
    for path in sorted({*modules, *(ROOT / _FOUND).glob("*.py")}):
        # What is said to people decides nothing, nor does how lines are broken.
        digest.update(ast.dump(ast.parse(path.read_bytes())).encode())
    return digest.hexdigest()[:12]


def run(trial: Trial) -> Outcome:
    """Train, score in shadow and judge one candidate exactly as the flows do, in memory."""
    began = monotonic()
    frames, truth = _frames(trial)
    # Members without a vote change no verdict, and would cost hours over all trials.
    config = TrainingConfig(
        created_at="1970-01-01T00:00:00+00:00",
        code_version="gate-trials",
        members=trial.members,
        compared=(),
        seed=trial.seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        bundle = Path(folder)
        try:
            training = train_candidate(frames, config, bundle, lambda _step, _share: None)
            shadow = shadow_candidate(bundle, frames, training.windows.shadow, config)
        except QuantumError as error:
            # A training that ends itself promotes nothing: a tripwire, an export that is not what was trained.
            return Outcome(trial=trial, promoted=False, failed=str(error)[:300], seconds=monotonic() - began)
    verdict = judge(training, shadow, load_gates(ROOT / "mlflow" / "gates.yaml"))
    ours = _by_day(shadow, "ensemble")
    oracle = _oracle(frames, truth, training, config) if truth is not None else np.empty(0)
    return Outcome(
        trial=trial,
        promoted=verdict.passed,
        refusals=tuple(check.name for check in verdict.refusals),
        ic=shadow.metrics.get("shadow/ensemble/ic", 0.0),
        net=float(ours.sum()),
        sharpe=_sharpe(ours),
        oracle_net=float(oracle.sum()),
        oracle_sharpe=_sharpe(oracle),
        trades=int(shadow.metrics.get("shadow/ensemble/trades", 0)),
        seconds=monotonic() - began,
    )


def upper_limit(found: int, of: int, confidence: float = 0.95) -> float:
    """Return the one-sided upper limit of a rate (Clopper and Pearson, 1934)."""
    return 1.0 if found >= of else float(beta.ppf(confidence, found + 1, of - found))


def lower_limit(found: int, of: int, confidence: float = 0.95) -> float:
    """Return the one-sided lower limit of a rate (Clopper and Pearson, 1934)."""
    return 0.0 if found <= 0 else float(beta.ppf(1 - confidence, found, of - found + 1))


def _frames(trial: Trial) -> tuple[FrameSet, Truth | None]:
    if trial.market == "shuffled":
        return shuffled_frames(trial.symbols, trial.days, trial.seed), None
    frames, truth = synthetic_frames(trial.symbols, trial.days, trial.edge, trial.seed)
    return frames, truth if trial.edge else None


def _by_day(shadow: ShadowReport, name: str) -> Floats:
    """Return the net return of each day of the window, trades at notional 1, by when they ended."""
    curve = next(one for one in shadow.curves if one.name == name)
    net = np.diff(np.asarray(curve.cumulative_net), prepend=0.0)
    return _daily(np.asarray(curve.exit_ms, np.int64), net, shadow.window.start_ms, shadow.window.end_ms)


def _daily(exit_ms: np.ndarray, net: Floats, start_ms: int, end_ms: int) -> Floats:
    """Sum by days, counted from the window's start; the piece of a day at its end counts as what it is."""
    days = max(1, -(-(end_ms - start_ms) // _DAY_MS))
    place = np.clip((exit_ms - start_ms) // _DAY_MS, 0, days - 1).astype(np.int64)
    return np.bincount(place, weights=net, minlength=days) if len(net) else np.zeros(days)


def _sharpe(daily: Floats) -> float:
    deviation = float(daily.std(ddof=1)) if len(daily) > 1 else 0.0
    return float(daily.mean()) / deviation if deviation > 0 else 0.0


def _oracle(frames: FrameSet, truth: Truth, training: TrainingReport, config: TrainingConfig) -> Floats:
    """Trade what the optimal filter expects, by a rule made on the windows on which the ensemble's was made."""
    dataset = Dataset(frames, horizon=config.horizon, window=config.window)
    windows = training.windows
    splits = Splits(
        fit=windows.fit, validation=windows.validation, calibration=windows.calibration, shadow=windows.shadow,
        horizon_ms=config.horizon * frames.timeframe_ms,
    )  # fmt: skip

    def expected(rows: Rows) -> Floats:
        close_ms = rows.open_time_ms + frames.timeframe_ms
        return truth.expected[rows.series, np.searchsorted(truth.close_ms, close_ms)]

    learned = [dataset.rows(window, splits) for window in (splits.validation, splits.calibration)]
    rule = fit_rule(tuple((rows, expected(rows)) for rows in learned), config, splits.horizon_ms)
    rows = dataset.rows(splits.shadow, splits)
    seen = expected(rows) * rule.scale
    trades: Trades = simulate(
        rows, seen, probabilities(rule.calibration, seen),
        threshold=rule.threshold, cost=config.round_trip_cost, horizon_ms=splits.horizon_ms,
    )  # fmt: skip
    return _daily(trades.entry_ms + splits.horizon_ms, trades.net, splits.shadow.start_ms, splits.shadow.end_ms)
