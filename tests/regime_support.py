"""A market whose regimes are known, because they were drawn; and models of regimes to read it with."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import INDEX, MODEL_INPUT_NAMES
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.store import TrainingFrame as StoreFrame
from flows.training.dataset import FrameSet
from inference.regime.detector import RegimeModel
from inference.regime.hidden_markov import HiddenMarkov
from inference.regime.states import Regime
from tests.training_support import FIVE_MINUTES_MS, START_MS

_PARTS = 12
# Drift and volatility of a candle in usual volatilities, and the mean stay in candles.
KINDS = {
    Regime.RANGE: (0.0, 1.0, 300),
    Regime.TREND: (0.3, 1.0, 200),
    Regime.HIGH_VOLATILITY: (0.0, 3.0, 150),
    Regime.CRASH: (-0.9, 3.5, 40),
}
_NEXT = {
    Regime.RANGE: (Regime.TREND, Regime.HIGH_VOLATILITY),
    Regime.TREND: (Regime.RANGE, Regime.HIGH_VOLATILITY),
    Regime.HIGH_VOLATILITY: (Regime.RANGE, Regime.CRASH),
    Regime.CRASH: (Regime.HIGH_VOLATILITY, Regime.RANGE),
}


@dataclass(frozen=True)
class KnownMarket:
    """Series as training reads them, and the regime of each of their candles [n, T], as places among `KINDS`."""

    frames: FrameSet
    truth: np.ndarray


def known_market(
    *, series: int = 3, candles: int = 12_000, seed: int = 1, kinds: tuple[Regime, ...] = tuple(KINDS)
) -> KnownMarket:
    """Return series that switch among `kinds`, each by itself, each with a volatility of its own."""
    stored, truth = {}, []
    for number in range(series):
        rng = np.random.default_rng([seed, number])
        found = _drawn_regimes(candles, kinds, rng)
        block = _block(found, 0.001 * (1 + number), rng)
        one = Series("sandbox", f"S{number:02d}/USDT:USDT", Timeframe.M5)
        features = FeatureEngine(one.timeframe).advance(block)
        stored[one] = StoreFrame(
            series=one,
            open_time_ms=block.open_time_ms,
            features=features,
            inputs=model_inputs(features),
            log_return=features[:, INDEX["log_return_1"]],
            close=block.close,
            forward_log_return=np.full(len(block), np.nan),
        )
        truth.append(found)
    return KnownMarket(FrameSet.of_store(stored), np.stack(truth))


def _drawn_regimes(candles: int, kinds: tuple[Regime, ...], rng: np.random.Generator) -> np.ndarray:
    order = list(KINDS)
    found, now = [], kinds[0]
    while len(found) < candles:
        found += [order.index(now)] * (1 + rng.geometric(1 / KINDS[now][2]))
        following = [one for one in _NEXT[now] if one in kinds] or [now]
        now = following[rng.integers(len(following))]
    return np.array(found[:candles])


def _block(regimes: np.ndarray, volatility: float, rng: np.random.Generator) -> CandleBlock:
    figures = np.array([KINDS[one][:2] for one in KINDS])
    # A trend keeps its way for as long as it lasts.
    begins = np.flatnonzero(np.diff(regimes, prepend=-1))
    way = np.repeat(rng.choice([-1.0, 1.0], len(begins)), np.diff(np.append(begins, len(regimes))))
    drift = figures[regimes, 0] * np.where(regimes == list(KINDS).index(Regime.TREND), way, 1.0)
    moves = rng.standard_normal((len(regimes), _PARTS)) * figures[regimes, 1][:, None] / np.sqrt(_PARTS)
    paths = volatility * (moves + drift[:, None] / _PARTS)
    logs = np.log(100.0) + np.cumsum(paths.ravel()).reshape(paths.shape)
    opened = np.append(np.log(100.0), logs[:-1, -1])
    high, low = np.maximum(logs.max(axis=1), opened), np.minimum(logs.min(axis=1), opened)
    volume = 1000 * np.exp(0.3 * rng.standard_normal(len(regimes))) * figures[regimes, 1]
    values = np.exp(np.stack([opened, high, low, logs[:, -1]], axis=1))
    times = START_MS + FIVE_MINUTES_MS * np.arange(len(regimes), dtype=np.int64)
    return CandleBlock(times, np.column_stack([values, volume]))


def small_hidden(states: int = 4) -> HiddenMarkov:
    """Return hidden states such as training finds: calm to wild, the wildest falling."""
    levels = np.linspace(-0.3, 1.2, states)
    stay = 0.96
    rows = np.full((states, states), (1 - stay) / max(states - 1, 1))
    np.fill_diagonal(rows, stay if states > 1 else 1.0)
    return HiddenMarkov(
        start=tuple([1 / states] * states),
        transitions=tuple(tuple(row) for row in rows.tolist()),
        means=tuple((-1.0 if place == states - 1 else 0.0, float(level)) for place, level in enumerate(levels)),
        variances=tuple((float(np.exp(2 * level)), 0.1) for level in levels),
        lowest=(-12.0, -4.0),
        highest=(12.0, 3.0),
        overlap=4,
        unseen=-3.0,
        rare=-2.0,
        memory=6,
        warm_up=6,
    )


def small_model(symbols: tuple[str, ...]) -> RegimeModel:
    """Return a model of regimes for some symbols."""
    return RegimeModel(
        hidden=small_hidden(),
        names=(Regime.RANGE, Regime.TREND, Regime.HIGH_VOLATILITY, Regime.CRASH),
        scales=dict.fromkeys(symbols, 0.001),
    )


def plausible_inputs(rng: np.random.Generator, candles: int, series: int) -> np.ndarray:
    """Return model inputs [T, n, M] as candles may have them, with wild ones and missing ones among them."""
    shape = (candles, series, len(MODEL_INPUT_NAMES))
    inputs = 0.002 * rng.standard_normal(shape) * rng.choice([1.0, 1.0, 6.0], (candles, series, 1))
    names = {name: place for place, name in enumerate(MODEL_INPUT_NAMES)}
    inputs[..., names["volatility_20"]] = np.abs(inputs[..., names["volatility_20"]])
    inputs[..., names["adx"]] = rng.uniform(-1, 1, shape[:2])
    inputs[rng.random(shape[:2]) < 0.02] = np.nan
    return inputs.astype(np.float32)
