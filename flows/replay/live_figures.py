"""What matured opinions on live candles are worth: predictions, simulated fills, and a challenger beside a champion."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import msgspec
import numpy as np

from flows.replay.maturing import LiveRows, Opinions
from flows.training.dataset import Floats, Rows, Times
from flows.training.evaluate import (
    CalibrationCurve,
    calibration_metrics,
    independent_outcomes,
    prediction_metrics,
    prefixed,
    spread,
)
from flows.training.moments import BlockSums, Interval, Sampling, ratio
from flows.training.report import NetCurve
from flows.training.trading import Trades, trade_metrics

DAY_MS = 86_400_000
_SAMPLES, _SEED = 1000, 7
LAST_DAY = "live_shadow/day"
SEEN_TAG = "live_shadow_seen_ms"


class MetricPoint(msgspec.Struct, frozen=True, kw_only=True):
    """A figure of a run at a step, with the moment (UTC, ms) that it tells of."""

    key: str
    value: float
    step: int
    time_ms: int


class LiveReport(msgspec.Struct, frozen=True, kw_only=True):
    """
    A challenger on live candles, from its first to its newest matured prediction.

    `metrics` are named `live_shadow/<who>/<statistic>`, and `live_shadow/ensemble_minus_<whom>/…` for differences that
    are paired in time. `points` hold them again day by day, each as known at the day's end. `seen_ms` is
    the newest candle of the journal: all that was due by then is in.
    """

    version: str
    bundle_digest: str
    venue: str
    mode: str
    champion_version: str | None
    champion_digest: str | None
    symbols: tuple[str, ...]
    start_ms: int
    end_ms: int
    metrics: dict[str, float]
    points: tuple[MetricPoint, ...]
    curves: tuple[NetCurve, ...]
    stated: tuple[float, ...]
    observed: tuple[float, ...]
    count: tuple[int, ...]
    seen_ms: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class _Fills:
    trades: Trades
    # What each row's entry brought, 0 where none was made.
    net: Floats


def live_report(rows: LiveRows, *, since_day: int = 0) -> LiveReport:
    """Return all that is known of a challenger; `points` begin with the UTC day `since_day`, counted from 1970."""
    ours = _fills(rows, rows.ours)
    curves = [_curve("ensemble", ours.trades, rows)]
    beside = rows.take(rows.beside)
    if beside.theirs is not None:
        curves.append(_curve("champion", _fills(beside, beside.theirs).trades, beside))
    said = rows.take(np.isfinite(rows.ours.expected))
    label = _label(said, said.ours)
    curve = CalibrationCurve(said.ours.probability_up[label != 0], label[label != 0] > 0)
    return LiveReport(
        version=rows.ours.version,
        bundle_digest=rows.ours.digest,
        venue=rows.venue,
        mode=rows.mode,
        champion_version=None if rows.theirs is None else rows.theirs.version,
        champion_digest=None if rows.theirs is None else rows.theirs.digest,
        symbols=rows.symbols,
        start_ms=int(rows.close_ms[0]) if len(rows) else 0,
        end_ms=int(rows.exit_ms[-1]) if len(rows) else 0,
        metrics=live_figures(rows),
        points=daily_points(rows, since_day=since_day),
        curves=tuple(curves),
        stated=tuple(curve.stated),
        observed=tuple(curve.observed),
        count=tuple(curve.count),
        seen_ms=rows.seen_ms,
    )


def daily_points(rows: LiveRows, *, since_day: int = 0) -> tuple[MetricPoint, ...]:
    """
    Return every figure at the end of each day, of what was predicted until then.

    Days are those of UTC, counted from 1970, so that charts of several runs lie above each other. The same outcomes
    give the same points, to the bit; only the newest day still grows. The day itself comes last.
    """
    points: list[MetricPoint] = []
    days = rows.close_ms // DAY_MS
    for day in np.unique(days[days >= since_day]).tolist():
        until = rows.take(days <= day)
        time_ms = int(until.exit_ms[-1])
        figures = live_figures(until) | {LAST_DAY: float(day)}
        points += [MetricPoint(key=key, value=value, step=day, time_ms=time_ms) for key, value in figures.items()]
    return tuple(points)


def live_figures(rows: LiveRows) -> dict[str, float]:
    """
    Return the figures of matured predictions; what cannot be computed is left out.

    Intervals are of blocks of two horizons, all symbols of a block drawn together. A slot is one horizon of one symbol:
    what could have been traded, whether it was or not. Against the champion only rows count on which both were asked.
    """
    horizon_ms = rows.ours.horizon * rows.timeframe_ms
    sampling = Sampling(block_ms=2 * horizon_ms, samples=_SAMPLES, seed=_SEED)
    candles = np.unique(rows.close_ms)
    due = len(rows) + rows.unpriced
    said = rows.take(np.isfinite(rows.ours.expected))
    found = {
        "days": len(candles) * rows.timeframe_ms / DAY_MS,
        "candles": float(len(candles)),
        "predictions": float(len(said)),
        "independent_outcomes": _independent(said, horizon_ms),
        "coverage": len(rows) / due if due else float("nan"),
        "abstained_share": 1 - len(said) / len(rows) if len(rows) else float("nan"),
    }
    metrics = prefixed("live_shadow", found)
    if not len(said):
        return metrics
    metrics |= _of("ensemble", rows, rows.ours, sampling)
    metrics |= _difference("flat", rows, _fills(rows, rows.ours).net, np.zeros(len(rows)), sampling)
    both = rows.take(rows.beside)
    if both.theirs is None or not len(both):
        return metrics
    paired = {
        "paired_days": len(np.unique(both.close_ms)) * rows.timeframe_ms / DAY_MS,
        "agreement_with_champion": float((np.sign(both.ours.expected) == np.sign(both.theirs.expected)).mean()),
    }
    metrics |= prefixed("live_shadow", paired)
    metrics |= _of("champion", both, both.theirs, sampling)
    ours, theirs = _fills(both, both.ours), _fills(both, both.theirs)
    return metrics | _difference("champion", both, ours.net, theirs.net, sampling)


def _of(who: str, rows: LiveRows, model: Opinions, sampling: Sampling) -> dict[str, float]:
    """Return how one model predicted, and what trading by it would have brought."""
    spoke = np.isfinite(model.expected)
    name = f"live_shadow/{who}"
    figures = prefixed(name, trade_metrics(_fills(rows, model).trades, sampling))
    if spoke.any():
        at = rows.take(spoke)
        said = model.take(spoke)
        outcomes = _rows(at, _label(at, said))
        figures |= prefixed(name, prediction_metrics(outcomes, said.expected, sampling))
        figures |= prefixed(name, calibration_metrics(outcomes, said.probability_up, sampling))
    return figures


def _difference(whom: str, rows: LiveRows, ours: Floats, theirs: Floats, sampling: Sampling) -> dict[str, float]:
    slots = np.full(len(rows), 1 / rows.ours.horizon)
    sums = BlockSums.of(rows.close_ms, sampling.block_ms, {"net": ours - theirs, "slots": slots})
    found = sums.interval(lambda s: ratio(s["net"], s["slots"]), sampling)
    in_bps = Interval(value=found.value * 1e4, low=found.low * 1e4, high=found.high * 1e4)
    return prefixed(f"live_shadow/ensemble_minus_{whom}", spread("net_per_slot_bps", in_bps))


def _fills(rows: LiveRows, model: Opinions) -> _Fills:
    """
    Trade as the decision chain would: confident enough, expecting more than a round trip costs, one at a time a symbol.

    A long buys at the ask that was shown once the candle had closed, and sells at the bid that was shown a horizon
    later; a short the other way round. Both sides pay the policy's taker fee. Slippage is only expected, not paid.
    """
    confidence = np.maximum(model.probability_up, 1 - model.probability_up)
    direction = np.where(model.probability_up > 0.5, 1, -1)
    middle = (rows.bid_in + rows.ask_in) / 2
    costs = 2 * (rows.taker_fee + rows.slippage) + (rows.ask_in - rows.bid_in) / middle
    with np.errstate(invalid="ignore"):
        wanted = (confidence >= model.threshold) & (direction * model.expected > costs)
    hold_ms = model.horizon * rows.timeframe_ms
    entered = _first_free(np.flatnonzero(wanted), rows.series, rows.close_ms, hold_ms)
    sign = direction[entered]
    paid = np.where(sign > 0, rows.ask_in[entered], rows.bid_in[entered])
    left = np.where(sign > 0, model.bid_out[entered], model.ask_out[entered])
    net = sign * (left - paid) / paid - rows.taker_fee[entered] * (1 + left / paid)
    gross = sign * np.expm1(_label(rows, model)[entered])
    by_row = np.zeros(len(rows))
    by_row[entered] = net
    return _Fills(Trades(rows.series[entered], rows.close_ms[entered], sign, gross, net), by_row)


def _first_free(wanted: Times, series: Times, close_ms: Times, hold_ms: int) -> Times:
    """Return those of `wanted`, in order of time, at which their symbol is in no trade."""
    free_ms: dict[int, int] = {}
    taken = []
    for place in wanted.tolist():
        symbol, at_ms = int(series[place]), int(close_ms[place])
        if at_ms >= free_ms.get(symbol, 0):
            taken.append(place)
            free_ms[symbol] = at_ms + hold_ms
    return np.array(taken, np.int64)


def _label(rows: LiveRows, model: Opinions) -> Floats:
    """Return the log return over the model's horizon, from the middle of the prices shown to the middle."""
    return np.asarray(np.log((model.bid_out + model.ask_out) / (rows.bid_in + rows.ask_in)))


def _rows(rows: LiveRows, label: Floats) -> Rows:
    return Rows(np.arange(len(rows)), rows.series, rows.close_ms, label)


def _independent(rows: LiveRows, horizon_ms: int) -> float:
    with warnings.catch_warnings():
        # A symbol that never moved correlates with nothing.
        warnings.simplefilter("ignore", RuntimeWarning)
        return independent_outcomes(_rows(rows, _label(rows, rows.ours)), horizon_ms=horizon_ms)


def _curve(name: str, trades: Trades, rows: LiveRows) -> NetCurve:
    hold_ms = rows.ours.horizon * rows.timeframe_ms
    return NetCurve(
        name=name,
        exit_ms=tuple((trades.entry_ms + hold_ms).tolist()),
        cumulative_net=tuple(np.cumsum(trades.net).tolist()),
    )
