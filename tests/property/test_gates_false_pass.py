"""How often chance alone would pass the gates that measure skill."""

from __future__ import annotations

import numpy as np

from flows.training.calibrate import fit_rule, probabilities
from flows.training.dataset import Rows
from flows.training.evaluate import prediction_metrics
from flows.training.moments import Sampling
from flows.training.trading import simulate, trade_metrics
from tests.training_support import FIVE_MINUTES_MS, small_config

HORIZON = 12
HORIZON_MS = HORIZON * FIVE_MINUTES_MS
SERIES, VALIDATION, CALIBRATION, SHADOW = 10, 950, 950, 1500
RUNS = 150


def _noise_market(rng: np.random.Generator, candles: int, start: int) -> tuple[Rows, np.ndarray]:
    """Return overlapping labels of correlated series, and predictions that know nothing but look like some."""
    steps = candles + HORIZON
    common = rng.standard_normal((steps, 1))
    moves = 0.0018 * (np.sqrt(0.5) * common + np.sqrt(0.5) * rng.standard_normal((steps, SERIES)))
    total = np.cumsum(moves, axis=0)
    label = total[HORIZON:] - total[:-HORIZON]
    walk = np.zeros((candles, SERIES))
    shocks = rng.standard_normal((candles, SERIES))
    for t in range(1, candles):
        walk[t] = 0.97 * walk[t - 1] + np.sqrt(1 - 0.97**2) * shocks[t]
    times = np.repeat(FIVE_MINUTES_MS * (start + np.arange(candles)), SERIES)
    rows = Rows(np.arange(candles * SERIES), np.tile(np.arange(SERIES), candles), times, label.ravel())
    return rows, 0.001 * walk.ravel()


def _gates_held(seed: int, *, cost_bps: float) -> dict[str, bool]:
    """Make a knowing-nothing score tradable, score it as the shadow does, and tell which gates it held."""
    rng = np.random.default_rng([11, seed])
    config = small_config(fee_bps=cost_bps / 2, slippage_bps=0.0)
    sampling = Sampling(block_ms=2 * HORIZON_MS, samples=300, seed=7)
    windows = _noise_market(rng, VALIDATION, 0), _noise_market(rng, CALIBRATION, VALIDATION)
    rows, score = _noise_market(rng, SHADOW, VALIDATION + CALIBRATION)
    rule = fit_rule(windows, config, HORIZON_MS)
    expected = score * rule.scale
    stated = probabilities(rule.calibration, expected)
    trades = simulate(
        rows, expected, stated, threshold=rule.threshold, cost=config.round_trip_cost, horizon_ms=HORIZON_MS
    )
    figures = prediction_metrics(rows, expected, sampling) | trade_metrics(trades, sampling)
    return {
        "rmse_skill_low": figures["rmse_skill_low"] > 0,
        "ic_low": figures["ic_low"] > 0,
        "net_per_trade_low": figures.get("net_per_trade_bps_low", -1.0) > 0 and len(trades) >= 30,
    }


def test_chance_alone_hardly_ever_passes():
    """
    Of 150 candidates that know nothing, each statistical gate lets few through, and all of them together none.

    An interval at 95 % lets 2.5 % through above by design; overlap and correlation must not make it many times that.
    """
    held = [_gates_held(seed, cost_bps=14.0) for seed in range(RUNS)]
    rates = {name: np.mean([one[name] for one in held]) for name in held[0]}
    together = np.mean([all(one.values()) for one in held])

    assert rates["ic_low"] <= 0.08, rates
    assert rates["rmse_skill_low"] <= 0.08, rates
    assert rates["net_per_trade_low"] <= 0.01, rates
    assert together == 0
