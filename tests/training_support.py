"""Frames with a known edge, or with none, made quickly and always the same."""

from __future__ import annotations

import hashlib

import numpy as np

from flows.training.config import NetConfig, TrainingConfig, TreeConfig
from flows.training.dataset import FrameSet, TrainingFrame

FIVE_MINUTES_MS = 300_000
START_MS = 1_735_689_600_000
INPUT_NAMES = ("last_return", "momentum_12", "momentum_48", "volatility_20", "volume_ratio", "hidden_state", "noise")
FINGERPRINT = hashlib.sha256(b"inputs made for tests").hexdigest()


def make_frames(*, series: int = 4, candles: int = 2000, edge: float = 0.5, seed: int = 1) -> FrameSet:
    """
    Return correlated series whose return over the next hour follows `hidden_state` and a reversal of `momentum_12`.

    `edge` is about the correlation between what can be known and what comes; with 0 nothing can be found.
    """
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(candles)
    frames = tuple(_series(f"S{n:02d}/USDT:USDT", common, edge, np.random.default_rng([seed, n])) for n in range(series))
    return FrameSet(frames, INPUT_NAMES, FINGERPRINT, FIVE_MINUTES_MS)


def _series(symbol: str, common: np.ndarray, edge: float, rng: np.random.Generator) -> TrainingFrame:
    candles = len(common)
    state = _autoregression(rng.standard_normal(candles), 0.94)
    noise = 0.5 * common + np.sqrt(0.75) * rng.standard_normal(candles)
    volatility = 0.0015 * np.exp(0.3 * _autoregression(rng.standard_normal(candles), 0.98))
    returns = np.zeros(candles)
    slow = 0.0
    for t in range(1, candles):
        # `slow` is yesterday's news, half of it taken back: a reversal that windows of returns show.
        returns[t] = volatility[t] * (noise[t] + edge * (0.30 * state[t - 1] - 0.12 * slow))
        slow = 0.9 * slow + returns[t] / volatility[t]
    close = 100 * np.exp(np.cumsum(returns))
    inputs = np.stack(
        [
            returns / 0.0015,
            _moving_sum(returns, 12) / 0.005,
            _moving_sum(returns, 48) / 0.01,
            np.sqrt(_moving_sum(returns**2, 20) / 20) / 0.0015,
            np.exp(0.5 * rng.standard_normal(candles)),
            state,
            rng.standard_normal(candles),
        ],
        axis=1,
    ).astype(np.float32)
    inputs[:48] = np.nan
    times = START_MS + FIVE_MINUTES_MS * np.arange(candles, dtype=np.int64)
    return TrainingFrame(symbol, times, inputs, close)


def _autoregression(shocks: np.ndarray, decay: float) -> np.ndarray:
    values = np.zeros(len(shocks))
    for t in range(1, len(shocks)):
        values[t] = decay * values[t - 1] + np.sqrt(1 - decay**2) * shocks[t]
    return values


def _moving_sum(values: np.ndarray, length: int) -> np.ndarray:
    total = np.cumsum(values)
    return total - np.concatenate([np.zeros(length), total[:-length]])


def small_config(**changes: object) -> TrainingConfig:
    """Return a configuration that trains all four members in seconds."""
    sizes: dict[str, object] = {
        "created_at": "2026-01-01T00:00:00Z",
        "code_version": "test",
        "xgboost": TreeConfig(rounds=40, min_leaf_rows=40),
        "lightgbm": TreeConfig(rounds=40, min_leaf_rows=40),
        "nhits": NetConfig(max_steps=30, learning_rate=2e-3, hidden=16),
        "patchtst": NetConfig(max_steps=20, learning_rate=2e-3, hidden=16),
        "nhits_inputs": ("hidden_state", "momentum_12"),
        "bootstrap_samples": 200,
        "parity_rows": 64,
    }
    return TrainingConfig(**(sizes | changes))  # type: ignore[arg-type]
