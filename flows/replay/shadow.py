"""A bundle scored on candles that it never saw, net of costs, beside naive rules, staying flat and the champion."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from feature_store.errors import BadInputError
from flows.drifting.cycles import InputDrift, input_drift
from flows.replay.report import NetCurve, ShadowReport, WorkerReplay
from flows.replay.worker_account import Terms, opinions_of, traded_market, worker_account
from flows.training.baselines import Ridge, baseline_scores
from flows.training.calibrate import THRESHOLDS, fit_rule, probabilities
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Inputs, Rows, joined, thinned
from flows.training.evaluate import (
    CalibrationCurve,
    calibration_metrics,
    independent_outcomes,
    prediction_metrics,
    prefixed,
    size_curve,
    spread,
)
from flows.training.heads import head_metrics
from flows.training.moments import Interval, Sampling
from flows.training.pack import predict_members
from flows.training.performance import (
    Account,
    DailyIC,
    capacity,
    performance_difference,
    performance_metrics,
    score_difference,
    steadiness,
)
from flows.training.selection import probability_of_overfitting
from flows.training.splits import Splits
from flows.training.trading import Trades, net_difference, simulate, trade_metrics
from inference.domain.errors import BundleError
from inference.models.bundle import Bundle, load_bundle, open_compared
from inference.models.ensemble import Member
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

    @property
    def account(self) -> Account:
        """Return the capital and the time that every rule is measured on."""
        return Account(
            start_ms=self.window.start_ms,
            end_ms=self.window.end_ms,
            symbols=len(self.dataset.symbols),
            horizon_ms=self.splits.horizon_ms,
        )

    def earned(self, trades: Trades) -> dict[str, float]:
        """Return what a rule's trades earned, each by itself and together as an account, and how large they may be."""
        held = performance_metrics(trades, self.account, self.sampling)
        return trade_metrics(trades, self.sampling) | held | {"capacity_per_trade": self._capacity(trades)}

    def _capacity(self, trades: Trades) -> float:
        # Rows lie series by series, oldest first; no open time needs more than 44 bits.
        keys = (self.rows.series << 44) | self.rows.open_time_ms
        entered = self.rows.index[np.searchsorted(keys, (trades.series << 44) | trades.entry_ms)]
        return capacity(trades, self.dataset.quote_volume[entered])

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
    *,
    terms: Terms | None = None,
    expected_digest: str | None = None,
    champion_digest: str | None = None,
) -> ShadowReport:
    """
    Score a bundle on a window that it never saw.

    Naive rules are made tradable exactly as the ensemble was, on the bundle's own validation and calibration windows,
    which `frames` must therefore hold too. A champion is compared on the candles that it did not see either. The
    digests are those that the registry states, where it was asked.

    Where the frames hold prices to trade at, the worker's own decisions trade the window as well, by the rules and
    from the balance of `terms`, the defaults where none are given.

    Raises:
        BundleError: The bundle cannot be trusted.
        BadInputError: The window was seen in training, or holds too few candles to score.
    """
    bundle = load_bundle(bundle_path, expected_fingerprint=frames.feature_fingerprint, expected_digest=expected_digest)
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
    sizes: dict[str, tuple[tuple[float, float], ...]] = {}
    for name, values in (predicted.members | {"ensemble": predicted.expected}).items():
        metrics |= prefixed(f"shadow/{name}", prediction_metrics(scene.rows, values, scene.sampling))
        metrics |= prefixed(f"shadow/{name}", steadiness(scene.rows, values))
        sizes[name] = size_curve(scene.rows, values)
    metrics |= prefixed("shadow/ensemble", calibration_metrics(scene.rows, predicted.probability_up, scene.sampling))
    metrics |= prefixed("shadow/ensemble", scene.earned(trades))
    metrics |= prefixed("shadow/ensemble_minus_flat", scene.compare(trades, _no_trades()))
    metrics |= prefixed("shadow", head_metrics(bundle.manifest.heads, predicted.heads, scene.rows, scene.sampling))
    daily = DailyIC.of(scene.rows, predicted.expected)

    compared = open_compared(bundle_path, bundle.manifest)
    rules = {"ensemble": trades} | _naive_rules(scene, config, metrics, predicted, trades, compared)
    metrics |= prefixed("shadow", {"probability_of_overfitting": _overfitting(scene, bundle, predicted, rules)})
    drift = _input_drift(scene, bundle.manifest)
    metrics |= prefixed("shadow", dict(drift.metrics()))
    notes: list[str] = list(drift.notes())
    champion = None if champion_path is None else (champion_path, champion_digest)
    compared_digest = _against_champion(scene, champion, frames, predicted, trades, metrics, notes, rules)
    worker = _as_worker(scene, bundle, frames, predicted, terms or Terms(), metrics, notes)
    moved = scene.rows.label != 0
    curve = CalibrationCurve(predicted.probability_up[moved], scene.rows.label[moved] > 0)
    return ShadowReport(
        bundle_digest=bundle.digest,
        champion_digest=compared_digest,
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
        daily_ic=tuple(zip(daily.day_ms.tolist(), daily.ic.tolist(), strict=True)),
        size_curves=sizes,
        worker=worker,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Predicted:
    """A bundle's opinion of every row; where it abstained, 0 expected and 0.5 probable."""

    expected: Floats
    probability_up: Floats
    members: dict[str, Floats]
    believed: np.ndarray[tuple[int], np.dtype[np.bool_]]
    heads: dict[str, Floats]


def score_rows(
    bundle: Bundle, dataset: Dataset, rows: Rows, progress: Callable[[float], None] = lambda _: None
) -> Predicted:
    """Score rows through the very code that the worker runs; all rows of a candle have to be among them."""

    def parts() -> Iterator[tuple[Inputs, Inputs, Inputs]]:
        done = 0
        for part in dataset.batches(rows):
            yield dataset.inputs(part), dataset.windows(part), dataset.returns(part)
            done += len(part)
            progress(done / len(rows))

    output = bundle.score_parts(parts(), rows.open_time_ms)
    return Predicted(
        np.nan_to_num(output.expected_return, nan=0.0),
        output.probability_up,
        {name: np.nan_to_num(values, nan=0.0) for name, values in output.members.items()},
        ~output.abstained,
        dict(output.heads),
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


def _input_drift(scene: _Scene, manifest: Manifest) -> InputDrift:
    dataset = scene.dataset
    there = ~dataset.excluded
    return input_drift(
        dataset.input_names, dataset.inputs_all[there], dataset.open_time_ms[there],
        windows=manifest.training, judged=scene.window,
    )  # fmt: skip


def _naive_rules(
    scene: _Scene,
    config: TrainingConfig,
    metrics: dict[str, float],
    ours: Predicted,
    ensemble: Trades,
    compared: Mapping[str, Member],
) -> dict[str, Trades]:
    """
    Make each naive score, and each member without a vote, tradable as the ensemble was, and trade it.

    No rule sees the shadow window's labels.
    """
    dataset, splits = scene.dataset, scene.splits
    validation = dataset.rows(splits.validation, splits, stride=config.evaluation_stride)
    calibration = dataset.rows(splits.calibration, splits, stride=config.evaluation_stride)
    ridge = Ridge.fit(dataset, thinned(dataset.learned_rows(splits), 3, dataset.timeframe_ms), config)

    def scores(rows: Rows) -> dict[str, Floats]:
        return baseline_scores(dataset, ridge, rows) | predict_members(
            compared, dataset, rows, config.market_share_removed
        )

    learned = scores(validation), scores(calibration)
    rules = {}
    for name, raw in scores(scene.rows).items():
        metrics |= prefixed(f"shadow/{name}", prediction_metrics(scene.rows, raw, scene.sampling))
        rule = fit_rule(((validation, learned[0][name]), (calibration, learned[1][name])), config, splits.horizon_ms)
        expected = raw * rule.scale
        rules[name] = scene.trade(expected, probabilities(rule.calibration, expected), rule.threshold)
        metrics |= prefixed(f"shadow/{name}", scene.earned(rules[name]))
        metrics |= _minus(scene, name, (ours.expected, raw), (ensemble, rules[name]))
    metrics |= prefixed("shadow/ensemble_minus_half_ridge", scene.compare(ensemble, rules["ridge"], share=0.5))
    return rules


def _against_champion(
    scene: _Scene,
    found: tuple[Path, str | None] | None,
    frames: FrameSet,
    ours: Predicted,
    our_trades: Trades,
    metrics: dict[str, float],
    notes: list[str],
    rules: dict[str, Trades],
) -> str | None:
    if found is None:
        notes.append("There is no champion yet: compared with naive rules and with staying flat.")
        return None
    try:
        path, digest = found
        champion = load_bundle(path, expected_fingerprint=frames.feature_fingerprint, expected_digest=digest)
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
    metrics |= prefixed("shadow/champion", scene.earned(trades))
    metrics |= prefixed("shadow/champion_minus_flat", scene.compare(trades, _no_trades()))
    metrics |= _minus(scene, "champion", (ours.expected, theirs.expected), (our_trades, trades))
    metrics["shadow/agreement_with_champion"] = float((np.sign(ours.expected) == np.sign(theirs.expected)).mean())
    return champion.digest


def _as_worker(
    scene: _Scene,
    bundle: Bundle,
    frames: FrameSet,
    predicted: Predicted,
    terms: Terms,
    metrics: dict[str, float],
    notes: list[str],
) -> WorkerReplay | None:
    """Trade the window by the worker's own decisions; it decides on candles whose outcome is not known yet, too."""
    dataset, rows, window = scene.dataset, scene.rows, scene.window
    inside = (dataset.open_time_ms >= window.start_ms) & (dataset.open_time_ms < window.end_ms) & dataset.complete
    inside[rows.index] = False
    index = np.flatnonzero(inside)
    said = [(rows, predicted)]
    if len(index):
        others = Rows(index, dataset.series[index], dataset.open_time_ms[index], dataset.label[index])
        said.append((others, score_rows(bundle, dataset, others)))
    heard = [(np.where(one.believed, one.expected, np.nan), np.where(one.believed, one.probability_up, np.nan))
             for _, one in said]  # fmt: skip
    opinions = opinions_of(
        dataset,
        functools.reduce(joined, (some for some, _ in said)),
        np.concatenate([expected for expected, _ in heard]),
        np.concatenate([rising for _, rising in heard]),
    )
    try:
        market = traded_market(
            frames, opinions, window, threshold=bundle.threshold, version=f"shadow:{bundle.digest[:12]}"
        )
    except BadInputError as error:
        notes.append(f"The worker's own decisions were not replayed: {error}")
        return None
    figures, account = worker_account(market, terms, horizon_ms=scene.splits.horizon_ms, sampling=scene.sampling)
    metrics |= prefixed("shadow/worker", figures)
    return account


def _minus(
    scene: _Scene, name: str, predicted: tuple[Floats, Floats], trades: tuple[Trades, Trades]
) -> dict[str, float]:
    """Return how much better the ensemble was than another: money, Sharpe ratio and scores, paired in time."""
    return prefixed(
        f"shadow/ensemble_minus_{name}",
        scene.compare(*trades)
        | performance_difference(*trades, scene.account, scene.sampling)
        | score_difference(scene.rows, *predicted, scene.sampling),
    )


def _overfitting(scene: _Scene, bundle: Bundle, predicted: Predicted, rules: dict[str, Trades]) -> float:
    """Return the probability that the best of all that could have been chosen was chosen by luck."""
    account = scene.account
    returns = [account.returns(one) for name, one in rules.items() if name not in ("ensemble", "zero")]
    returns += [
        account.returns(scene.trade(predicted.expected, predicted.probability_up, threshold))
        for threshold in THRESHOLDS
    ]
    for values in predicted.members.values():
        stated = probabilities(bundle.manifest.calibration, values)
        returns.append(account.returns(scene.trade(values, stated, bundle.threshold)))
    return probability_of_overfitting(np.stack(returns, axis=1))


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
