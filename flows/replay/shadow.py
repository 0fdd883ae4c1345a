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
from flows.replay.scene import Judged, Scene
from flows.replay.told_regimes import told_regimes
from flows.replay.worker_account import Terms, opinions_of, traded_market, worker_account
from flows.training.baselines import Ridge, baseline_scores
from flows.training.calibrate import THRESHOLDS, probabilities
from flows.training.candle_quality import quality_metrics
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, FrameSet, Inputs, Rows, joined, thinned
from flows.training.evaluate import independent_outcomes, prefixed, reliability, size_curve
from flows.training.heads import head_metrics
from flows.training.moments import Sampling
from flows.training.pack import predict_members
from flows.training.performance import DailyIC
from flows.training.report import ReliabilityCurve
from flows.training.selection import probability_of_overfitting
from flows.training.splits import Splits
from flows.training.trading import Trades
from inference.domain.errors import BundleError
from inference.models.bundle import Bundle, load_bundle, open_compared
from inference.models.ensemble import Member
from inference.models.manifest import Manifest, TimeWindow


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
    ours = Judged(predicted.expected, predicted.probability_up, trades)

    metrics = {
        "shadow/coverage": scene.dataset.coverage(window),
        "shadow/independent_outcomes": independent_outcomes(scene.rows, horizon_ms=scene.splits.horizon_ms),
        "shadow/days": (window.end_ms - window.start_ms) / 86_400_000,
        "shadow/abstained_share": float((~predicted.believed).mean()),
    }
    metrics |= prefixed("shadow", quality_metrics(scene.dataset, window))
    metrics |= prefixed("shadow/ensemble", scene.scores(ours))
    metrics |= prefixed("shadow/ensemble_minus_flat", scene.compare(trades, _no_trades()))
    metrics |= prefixed("shadow", head_metrics(bundle.manifest.heads, predicted.heads, scene.rows, scene.sampling))
    daily = DailyIC.of(scene.rows, predicted.expected)

    members, naive = _others(scene, bundle, open_compared(bundle_path, bundle.manifest), predicted, config)
    for name, one in (members | naive).items():
        metrics |= prefixed(f"shadow/{name}", scene.scores(one))
        metrics |= prefixed(f"shadow/ensemble_minus_{name}", scene.difference(ours, one))
    half = scene.compare(trades, naive["ridge"].trades, share=0.5)
    metrics |= prefixed("shadow/ensemble_minus_half_ridge", half)
    rules = {"ensemble": trades} | {name: one.trades for name, one in naive.items()}
    metrics |= prefixed("shadow", {"probability_of_overfitting": _overfitting(scene, bundle, predicted, rules)})
    drift = _input_drift(scene, bundle.manifest)
    metrics |= prefixed("shadow", dict(drift.metrics()))
    notes: list[str] = list(drift.notes())
    found = None if champion_path is None else (champion_path, champion_digest)
    compared_digest, champion = _against_champion(scene, found, frames, ours, metrics, notes)
    beside = members | naive
    if champion is not None:
        beside["champion"], rules["champion"] = champion, champion.trades
    worker = _as_worker(scene, bundle, frames, predicted, terms or Terms(), metrics, notes)
    curve = reliability(scene.rows, predicted.probability_up)
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
        size_curves={
            name: size_curve(scene.rows, values)
            for name, values in (predicted.members | {"ensemble": predicted.expected}).items()
        },
        worker=worker,
        reliability={
            name: ReliabilityCurve.of(reliability(scene.rows, one.probability_up)) for name, one in beside.items()
        },
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


def _scene(manifest: Manifest, frames: FrameSet, window: TimeWindow, config: TrainingConfig) -> Scene:
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
    return Scene(dataset, splits, rows, window, sampling, config.round_trip_cost)


def _input_drift(scene: Scene, manifest: Manifest) -> InputDrift:
    dataset = scene.dataset
    there = ~dataset.excluded
    return input_drift(
        dataset.input_names, dataset.inputs_all[there], dataset.open_time_ms[there],
        windows=manifest.training, judged=scene.window,
    )  # fmt: skip


def _others(
    scene: Scene, bundle: Bundle, compared: Mapping[str, Member], predicted: Predicted, config: TrainingConfig
) -> tuple[dict[str, Judged], dict[str, Judged]]:
    """
    Make each member, each naive score, and each member without a vote, tradable as the ensemble was, and trade it.

    The members that vote come first, then the others. No rule sees the shadow window's labels.
    """
    dataset, splits = scene.dataset, scene.splits
    before = tuple(
        dataset.rows(window, splits, stride=config.evaluation_stride)
        for window in (splits.validation, splits.calibration)
    )
    ridge = Ridge.fit(dataset, thinned(dataset.learned_rows(splits), 3, dataset.timeframe_ms), config)

    def naive(rows: Rows) -> dict[str, Floats]:
        return baseline_scores(dataset, ridge, rows) | predict_members(
            compared, dataset, rows, config.market_share_removed
        )

    def judged(now: Mapping[str, Floats], *learned: Mapping[str, Floats]) -> dict[str, Judged]:
        first, second = learned
        return {
            name: scene.made_tradable(raw, ((before[0], first[name]), (before[1], second[name])), config)
            for name, raw in now.items()
        }

    said = [score_rows(bundle, dataset, rows).members for rows in before]
    return judged(predicted.members, *said), judged(naive(scene.rows), *map(naive, before))


def _against_champion(
    scene: Scene,
    found: tuple[Path, str | None] | None,
    frames: FrameSet,
    ours: Judged,
    metrics: dict[str, float],
    notes: list[str],
) -> tuple[str | None, Judged | None]:
    if found is None:
        notes.append("There is no champion yet: compared with naive rules and with staying flat.")
        return None, None
    try:
        path, digest = found
        champion = load_bundle(path, expected_fingerprint=frames.feature_fingerprint, expected_digest=digest)
    except BundleError as error:
        notes.append(f"The champion could not be compared: {error}")
        metrics["shadow/champion_unusable"] = 1.0
        return None, None
    seen_ms = champion.manifest.training.seen_until_ms + scene.splits.horizon_ms
    if seen_ms > scene.window.start_ms:
        notes.append("The champion has seen part of this window, so the comparison favours it.")
        metrics["shadow/champion_saw_share"] = min(
            (seen_ms - scene.window.start_ms) / (scene.window.end_ms - scene.window.start_ms), 1.0
        )
    said = score_rows(champion, scene.dataset, scene.rows)
    trades = scene.trade(said.expected, said.probability_up, champion.threshold)
    theirs = Judged(said.expected, said.probability_up, trades)
    metrics |= prefixed("shadow/champion", scene.scores(theirs))
    metrics |= prefixed("shadow/champion_minus_flat", scene.compare(trades, _no_trades()))
    metrics |= prefixed("shadow/ensemble_minus_champion", scene.difference(ours, theirs))
    metrics["shadow/agreement_with_champion"] = float((np.sign(ours.predicted) == np.sign(said.expected)).mean())
    return champion.digest, theirs


def _as_worker(
    scene: Scene,
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
    everything = functools.reduce(joined, (some for some, _ in said))
    opinions = opinions_of(
        dataset,
        everything,
        np.concatenate([expected for expected, _ in heard]),
        np.concatenate([rising for _, rising in heard]),
        told_regimes(bundle, dataset, everything),
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


def _overfitting(scene: Scene, bundle: Bundle, predicted: Predicted, rules: dict[str, Trades]) -> float:
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
