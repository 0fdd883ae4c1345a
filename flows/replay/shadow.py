"""A bundle scored on candles that it never saw, net of costs, beside naive rules, staying flat and the champion."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_store.errors import BadInputError
from flows.replay.report import NetCurve, ShadowReport
from flows.training.baselines import Ridge, baseline_scores
from flows.training.calibrate import fit_rule, probabilities
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Rows, thinned
from flows.training.evaluate import (
    CalibrationCurve,
    calibration_metrics,
    independent_outcomes,
    prediction_metrics,
    prefixed,
    spread,
)
from flows.training.moments import Interval, Sampling
from flows.training.splits import Splits
from flows.training.trading import Trades, net_difference, simulate, trade_metrics
from inference.domain.errors import BundleError
from inference.models.bundle import Bundle, load_bundle
from inference.models.manifest import Manifest, TimeWindow


@dataclass(frozen=True, slots=True, eq=False)
class _Scene:
    """What all rules of one shadow run share."""

    dataset: Dataset
    splits: Splits
    rows: Rows
    window: TimeWindow
    sampling: Sampling
    cost: float

    def trade(self, expected: Floats, probability_up: Floats, threshold: float) -> Trades:
        return simulate(
            self.rows, expected, probability_up,
            threshold=threshold, cost=self.cost, horizon_ms=self.splits.horizon_ms,
        )  # fmt: skip

    def compare(self, ours: Trades, theirs: Trades, share: float = 1.0) -> dict[str, float]:
        """Return how much more a rule earned than a share of another, in bps of notional per slot."""
        start, end = self.window.start_ms, self.window.end_ms
        slots = (end - start) / self.splits.horizon_ms * len(self.dataset.symbols)
        found = net_difference(
            ours, theirs, start_ms=start, end_ms=end, slots=slots, sampling=self.sampling, share=share
        )
        in_bps = Interval(value=found.value * 1e4, low=found.low * 1e4, high=found.high * 1e4)
        return spread("net_per_slot_bps", in_bps)


def shadow_candidate(
    bundle_path: Path,
    frames: FrameSet,
    window: TimeWindow,
    config: TrainingConfig,
    champion_path: Path | None = None,
) -> ShadowReport:
    """
    Score a bundle on a window that it never saw.

    Naive rules are made tradable exactly as the ensemble was, on the bundle's own validation and calibration windows,
    which `frames` must therefore hold too. A champion is compared on the candles that it did not see either.

    Raises:
        BundleError: The bundle cannot be trusted.
        BadInputError: The window was seen in training, or holds too few candles to score.
    """
    bundle = load_bundle(bundle_path, expected_fingerprint=frames.feature_fingerprint)
    _check_unseen(bundle.manifest, window, frames.timeframe_ms)
    scene = _scene(bundle.manifest, frames, window, config)
    predicted = score_rows(bundle, scene.dataset, scene.rows)
    trades = scene.trade(predicted.expected, predicted.probability_up, bundle.threshold)

    metrics = {
        "shadow/coverage": scene.dataset.coverage(window),
        "shadow/independent_outcomes": independent_outcomes(scene.rows, horizon_ms=scene.splits.horizon_ms),
        "shadow/days": (window.end_ms - window.start_ms) / 86_400_000,
        "shadow/abstained_share": float((~predicted.believed).mean()),
    }
    for name, values in (predicted.members | {"ensemble": predicted.expected}).items():
        metrics |= prefixed(f"shadow/{name}", prediction_metrics(scene.rows, values, scene.sampling))
    metrics |= prefixed("shadow/ensemble", calibration_metrics(scene.rows, predicted.probability_up, scene.sampling))
    metrics |= prefixed("shadow/ensemble", trade_metrics(trades, scene.sampling))
    metrics |= prefixed("shadow/ensemble_minus_flat", scene.compare(trades, _no_trades()))

    rules = {"ensemble": trades} | _naive_rules(scene, config, metrics, trades)
    notes: list[str] = []
    champion_digest = _against_champion(scene, champion_path, frames, predicted, trades, metrics, notes, rules)
    moved = scene.rows.label != 0
    curve = CalibrationCurve(predicted.probability_up[moved], scene.rows.label[moved] > 0)
    return ShadowReport(
        bundle_digest=bundle.digest,
        champion_digest=champion_digest,
        window=window,
        candles=len(np.unique(scene.rows.open_time_ms)),
        rows=len(scene.rows),
        symbols=frames.symbols,
        threshold=bundle.threshold,
        metrics=metrics,
        curves=tuple(_curve(name, one, scene.splits.horizon_ms) for name, one in rules.items()),
        stated=tuple(curve.stated),
        observed=tuple(curve.observed),
        count=tuple(curve.count),
        notes=tuple(notes),
    )


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """A bundle's opinion of every row; where it abstained, 0 expected and 0.5 probable."""

    expected: Floats
    probability_up: Floats
    members: dict[str, Floats]
    believed: np.ndarray[tuple[int], np.dtype[np.bool_]]


def score_rows(bundle: Bundle, dataset: Dataset, rows: Rows) -> Predicted:
    """Score rows through the very code that the worker runs."""
    outputs = [
        bundle.score(dataset.inputs(part), dataset.windows(part), dataset.returns(part))
        for part in dataset.batches(rows)
    ]
    expected = np.concatenate([one.expected_return for one in outputs])
    members = {name: np.concatenate([one.members[name] for one in outputs]) for name in outputs[0].members}
    return Predicted(
        np.nan_to_num(expected, nan=0.0),
        np.concatenate([one.probability_up for one in outputs]),
        {name: np.nan_to_num(values, nan=0.0) for name, values in members.items()},
        np.isfinite(expected),
    )


def _check_unseen(manifest: Manifest, window: TimeWindow, timeframe_ms: int) -> None:
    """A label that ends in the shadow window was seen with it, so a horizon must lie between."""
    seen_ms = manifest.training.seen_until_ms
    if window.start_ms < seen_ms + manifest.horizon * timeframe_ms:
        raise BadInputError(
            f"The shadow window starts at {window.start_ms}, but this bundle has seen candles until {seen_ms}; "
            "score it on what came at least one horizon later"
        )


def _scene(manifest: Manifest, frames: FrameSet, window: TimeWindow, config: TrainingConfig) -> _Scene:
    dataset = Dataset(frames, horizon=manifest.horizon, window=manifest.window)
    horizon_ms = manifest.horizon * frames.timeframe_ms
    trained = manifest.training
    splits = Splits(
        fit=trained.fit,
        validation=trained.validation,
        calibration=trained.calibration,
        shadow=window,
        horizon_ms=horizon_ms,
    )
    rows = dataset.rows(window, splits, stride=config.evaluation_stride)
    if len(rows) < 50:
        raise BadInputError(
            f"The shadow window has {len(rows)} matured rows, at least 50 are needed; wait, or load more"
        )
    sampling = Sampling(block_ms=2 * horizon_ms, samples=config.bootstrap_samples, seed=config.seed)
    return _Scene(dataset, splits, rows, window, sampling, config.round_trip_cost)


def _naive_rules(
    scene: _Scene, config: TrainingConfig, metrics: dict[str, float], ensemble: Trades
) -> dict[str, Trades]:
    """Make each naive score tradable as the ensemble was, and trade it; no rule sees the shadow window's labels."""
    dataset, splits = scene.dataset, scene.splits
    validation = dataset.rows(splits.validation, splits, stride=config.evaluation_stride)
    calibration = dataset.rows(splits.calibration, splits, stride=config.evaluation_stride)
    ridge = Ridge.fit(dataset, thinned(dataset.rows(splits.fit, splits), 3, dataset.timeframe_ms), config)
    learned = baseline_scores(dataset, ridge, validation), baseline_scores(dataset, ridge, calibration)

    rules = {}
    for name, raw in baseline_scores(dataset, ridge, scene.rows).items():
        metrics |= prefixed(f"shadow/{name}", prediction_metrics(scene.rows, raw, scene.sampling))
        rule = fit_rule(((validation, learned[0][name]), (calibration, learned[1][name])), config, splits.horizon_ms)
        expected = raw * rule.scale
        rules[name] = scene.trade(expected, probabilities(rule.calibration, expected), rule.threshold)
        metrics |= prefixed(f"shadow/{name}", trade_metrics(rules[name], scene.sampling))
        metrics |= prefixed(f"shadow/ensemble_minus_{name}", scene.compare(ensemble, rules[name]))
    metrics |= prefixed("shadow/ensemble_minus_half_ridge", scene.compare(ensemble, rules["ridge"], share=0.5))
    return rules


def _against_champion(
    scene: _Scene,
    path: Path | None,
    frames: FrameSet,
    ours: Predicted,
    our_trades: Trades,
    metrics: dict[str, float],
    notes: list[str],
    rules: dict[str, Trades],
) -> str | None:
    if path is None:
        notes.append("There is no champion yet: compared with naive rules and with staying flat.")
        return None
    try:
        champion = load_bundle(path, expected_fingerprint=frames.feature_fingerprint)
    except BundleError as error:
        notes.append(f"The champion could not be compared: {error}")
        metrics["shadow/champion_unusable"] = 1.0
        return None
    seen_ms = champion.manifest.training.seen_until_ms + scene.splits.horizon_ms
    if seen_ms > scene.window.start_ms:
        notes.append("The champion has seen part of this window, so the comparison favours it.")
        metrics["shadow/champion_saw_share"] = min(
            (seen_ms - scene.window.start_ms) / (scene.window.end_ms - scene.window.start_ms), 1.0
        )
    theirs = score_rows(champion, scene.dataset, scene.rows)
    trades = scene.trade(theirs.expected, theirs.probability_up, champion.threshold)
    rules["champion"] = trades
    metrics |= prefixed("shadow/champion", prediction_metrics(scene.rows, theirs.expected, scene.sampling))
    metrics |= prefixed("shadow/champion", trade_metrics(trades, scene.sampling))
    metrics |= prefixed("shadow/ensemble_minus_champion", scene.compare(our_trades, trades))
    metrics["shadow/agreement_with_champion"] = float((np.sign(ours.expected) == np.sign(theirs.expected)).mean())
    return champion.digest


def _no_trades() -> Trades:
    nothing = np.empty(0)
    places = np.empty(0, np.int64)
    return Trades(places, places, places, nothing, nothing)


def _curve(name: str, trades: Trades, horizon_ms: int) -> NetCurve:
    return NetCurve(
        name=name,
        exit_ms=tuple((trades.entry_ms + horizon_ms).tolist()),
        cumulative_net=tuple(np.cumsum(trades.net).tolist()),
    )
