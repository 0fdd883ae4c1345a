"""Frames with a known edge, or with none, made quickly and always the same."""

from __future__ import annotations

import atexit
import functools
import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import INDEX
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.store import TrainingFrame as StoreFrame
from feature_store.ticks import suspect_marks
from flows.training.config import FoldConfig, NetConfig, TrainingConfig, TreeConfig
from flows.training.dataset import FrameSet, TrainingFrame
from flows.training.pipeline import train_candidate
from flows.training.report import MemberReport, ReliabilityCurve, TrainingReport
from flows.training.traded import TradedCandles
from flows.training.tripwire_bounds import TripwireBounds
from inference.models.manifest import TimeWindow, TrainingWindows

FIVE_MINUTES_MS = 300_000
START_MS = 1_735_689_600_000
INPUT_NAMES = ("last_return", "momentum_12", "momentum_48", "volatility_20", "volume_ratio", "hidden_state", "regime")
# Hundreds of candles and edges that no market has; the defaults of production stop on both.
LOOSE = TripwireBounds(
    independent_outcomes=2, next_candle_ic=0.6, input_ic=0.9, score_ic=0.9, score_r2=0.9, score_hit_rate=0.95,
    audits=False,
)  # fmt: skip
FEW_FOLDS = FoldConfig(walk_forward=2, groups=4, rounds=5, most_rows=1_000)
FINGERPRINT = hashlib.sha256(b"inputs made for tests").hexdigest()


def make_frames(*, series: int = 4, candles: int = 2000, edge: float = 0.5, seed: int = 1) -> FrameSet:
    """
    Return correlated series whose next hour follows `hidden_state`, and in one regime more than in the other.

    `edge` is about the correlation between what can be known and what comes; with 0 nothing can be found.
    """
    rng = np.random.default_rng(seed)
    common = rng.standard_normal(candles)
    frames = tuple(
        _series(f"S{n:02d}/USDT:USDT", common, edge, np.random.default_rng([seed, n])) for n in range(series)
    )
    return FrameSet(frames, INPUT_NAMES, FINGERPRINT, FIVE_MINUTES_MS)


def _series(symbol: str, common: np.ndarray, edge: float, rng: np.random.Generator) -> TrainingFrame:
    candles = len(common)
    state = _autoregression(rng.standard_normal(candles), 0.94)
    regime = _autoregression(rng.standard_normal(candles), 0.98)
    noise = 0.5 * common + np.sqrt(0.75) * rng.standard_normal(candles)
    volatility = 0.0015 * np.exp(0.3 * _autoregression(rng.standard_normal(candles), 0.98))
    returns = np.zeros(candles)
    slow = 0.0
    for t in range(1, candles):
        # `slow` is yesterday's news, half of it taken back: a reversal that windows of returns show.
        known = 0.30 * state[t - 1] * (0.5 + 0.9 * (regime[t - 1] > 0)) - 0.12 * slow
        returns[t] = volatility[t] * (noise[t] + edge * known)
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
            regime,
        ],
        axis=1,
    ).astype(np.float32)
    inputs[:48] = np.nan
    times = START_MS + FIVE_MINUTES_MS * np.arange(candles, dtype=np.int64)
    nothing = np.zeros(candles, bool)
    return TrainingFrame(symbol, times, inputs, returns, close, traded=priced(times, close), suspect=nothing)


def priced(times: np.ndarray, close: np.ndarray) -> TradedCandles:
    """Return candles that open where the last one closed and go nowhere else, with a range over a day's quarter."""
    opened = np.append(close[0], close[:-1])
    values = np.stack([opened, np.maximum(opened, close), np.minimum(opened, close), close, np.ones(len(close))], 1)
    return TradedCandles(block=CandleBlock(times, values), atr=_moving_sum(np.abs(close - opened), 72) / 72, tick=0.001)


def make_candle_frames(*, series: int = 20, candles: int = 8640, edge: float = 1.0, seed: int = 1) -> FrameSet:
    """
    Return the real model inputs of candles from a correlated, clustered market.

    With an edge, each return leans against the last 24 candles' move and with the volume that came with it.
    """
    rng = np.random.default_rng(seed)
    market = rng.standard_normal(candles) * np.exp(0.4 * _autoregression(rng.standard_normal(candles), 0.99))
    frames, suspect = {}, {}
    for number in range(series):
        one = Series("sandbox", f"S{number:02d}/USDT:USDT", Timeframe.M5)
        block = _candles(market, edge, np.random.default_rng([seed, number]))
        features = FeatureEngine(one.timeframe).advance(block)
        frames[one] = StoreFrame(
            series=one,
            open_time_ms=block.open_time_ms,
            features=features,
            inputs=model_inputs(features),
            log_return=features[:, INDEX["log_return_1"]],
            close=block.close,
            forward_log_return=np.full(len(block), np.nan),
        )
        suspect[one] = suspect_marks(block, one.timeframe)
    return FrameSet.of_store(frames, suspect=suspect)


def _candles(market: np.ndarray, edge: float, rng: np.random.Generator) -> CandleBlock:
    candles = len(market)
    own = rng.standard_normal(candles) * np.exp(0.4 * _autoregression(rng.standard_normal(candles), 0.98))
    shocks = 0.0011 * (0.6 * market + 0.8 * own)
    heat = _autoregression(rng.standard_normal(candles), 0.95)
    returns, slow = np.zeros(candles), 0.0
    for t in range(1, candles):
        returns[t] = shocks[t] - edge * 0.022 * slow * (1 + 0.5 * np.tanh(heat[t - 1]))
        slow = (1 - 1 / 24) * slow + returns[t]
    close = 100 * np.exp(np.cumsum(returns))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = np.abs(rng.standard_normal((2, candles))) * 0.0005
    volume = 1000 * np.exp(0.6 * heat + 0.3 * rng.standard_normal(candles))
    high = np.maximum(opened, close) * (1 + wick[0])
    low = np.minimum(opened, close) * (1 - wick[1])
    times = START_MS + FIVE_MINUTES_MS * np.arange(candles, dtype=np.int64)
    return CandleBlock(times, np.stack([opened, high, low, close, volume], axis=1))


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
        "lightgbm": TreeConfig(rounds=40, min_leaf_rows=40, linear_leaves=True),
        "nhits": NetConfig(max_steps=30, learning_rate=2e-3, hidden=16),
        "patchtst": NetConfig(max_steps=20, learning_rate=2e-3, hidden=16),
        "compared": (),
        "nhits_inputs": ("hidden_state", "momentum_12"),
        "summarised_inputs": ("last_return",),
        "summary_lengths": (8, 32),
        "bootstrap_samples": 200,
        "parity_rows": 64,
        "folds": FEW_FOLDS,
        "tripwires": LOOSE,
    }
    return TrainingConfig(**(sizes | changes))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Trained:
    """A candidate that several tests look at; its folder must be copied before it is changed."""

    path: Path
    report: TrainingReport
    frames: FrameSet
    config: TrainingConfig


@functools.cache
def trained_candidate() -> Trained:
    """Train all four members once for the whole session, on a small market with a strong edge."""
    folder = tempfile.TemporaryDirectory(prefix="bundle-")
    atexit.register(folder.cleanup)
    frames, config = make_frames(series=4, candles=2400, edge=1.0), small_config()
    report = train_candidate(frames, config, Path(folder.name), silent)
    return Trained(Path(folder.name), report, frames, config)


def silent(step: str, fraction: float) -> None:
    """Progress that nobody watches."""


def bundle_inputs(frames: FrameSet, n: int = 32, *, window: int = 64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return inputs, windows and returns of n places late in the first series."""
    frame = frames.frames[0]
    last = len(frame.open_time_ms) - 1 - np.arange(n)
    spans = last[:, None] + np.arange(1 - window, 1)
    windows = frame.inputs[spans]
    return windows[:, -1].copy(), windows, frame.log_return[spans].astype(np.float32)


def trained_report(metrics: dict[str, float]) -> TrainingReport:
    """Return a report of two members with given figures, for tests that judge."""
    windows = TrainingWindows(**{
        name: TimeWindow(start_ms=place * 1_000_000, end_ms=place * 1_000_000 + 900_000)
        for place, name in enumerate(("fit", "validation", "calibration", "shadow"))
    })  # fmt: skip
    member = MemberReport(
        name="xgboost", weight=0.5, scale=1.0, inputs=("rsi",), file="xgboost.ubj", file_bytes=1, parity=0.0,
        importance={},
    )  # fmt: skip
    return TrainingReport(
        bundle_digest="b" * 64, feature_fingerprint=FINGERPRINT, created_at="2026-01-01T00:00:00Z", code_version="test",
        symbols=("A",), timeframe="5m", horizon=12, windows=windows, rows={}, weighting="skill", threshold=0.6,
        members=(member, replace(member, name="lightgbm")), baselines=(), metrics=metrics,
        reliability=ReliabilityCurve(stated=(), observed=(), count=()), error_correlation=(),
    )  # fmt: skip
