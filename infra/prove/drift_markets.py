"""A market whose volatility, volume and edge have a memory, a champion fitted to it, and changes planted after that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.signal import lfilter

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import INDEX
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.store import TrainingFrame
from flows.replay.shadow import Predicted
from flows.training.calibrate import Rule, fit_rule, probabilities
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet, Rows
from flows.training.splits import Splits, plan_splits
from inference.models.manifest import TrainingWindows

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

STEP_MS, DAY = 300_000, 288
WARM_UP_DAYS, TRAINED_DAYS = 3, 30
SYMBOLS = 3
HORIZON, WINDOW = 12, 64
_START_MS = 1_735_689_600_000
_SHOCK = 0.0020
# Memory in candles: of volatility half an hour and a day, as in the sandbox; of the edge and of volume two hours.
_FAST, _SLOW, _EDGE, _VOLUME = 6.0, 288.0, 24.0, 24.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """What becomes of the market or the champion: from promotion on, or in the newest day only."""

    name: str
    volatility: float = 1.0
    volume: float = 1.0
    timidity: float = 1.0
    edge: float = 1.0


@dataclass(frozen=True, slots=True, eq=False)
class Played:
    """A market with the champion's opinions of it, ready for the check."""

    dataset: Dataset
    windows: TrainingWindows
    said: Predictor
    rule: Rule
    config: TrainingConfig
    end_ms: int


@dataclass(frozen=True, slots=True, eq=False)
class Predictor:
    """A champion: a noisy view of what drives returns, scaled and calibrated out of sample as members are."""

    raw: Floats
    rule: Rule
    timid_from_ms: int
    timidity: float

    def __call__(self, rows: Rows) -> Predicted:
        """Return what it says of rows."""
        timid = np.where(rows.open_time_ms >= self.timid_from_ms, self.timidity, 1.0)
        expected = self.raw[rows.index] * self.rule.scale * timid
        up = probabilities(self.rule.calibration, expected)
        return Predicted(expected, up, {"view": expected}, np.isfinite(expected), {})


def play(seed: int, edge: float, days: int, change: Change) -> Played:
    """
    Return a market of 30 days on which a champion is made, and of some days since.

    Args:
        seed: Of everything.
        edge: Correlation between what drives the next candle and its return, in units of volatility.
        days: How many days since the promotion.
        change: What happens then: to the edge from promotion on, to the rest in the newest day.
    """
    rng = np.random.default_rng([seed, 4])
    candles = (WARM_UP_DAYS + TRAINED_DAYS + days) * DAY
    newest, promoted = candles - DAY, (WARM_UP_DAYS + TRAINED_DAYS) * DAY
    shared = _volatility(rng, candles)
    common = rng.standard_normal(candles)
    frames, views = {}, []
    for number in range(SYMBOLS):
        one = Series("synthetic", f"S{number}/USDT:USDT", Timeframe.M5)
        block, view = _series(rng, shared, common, edge, change, newest, promoted)
        features = FeatureEngine(one.timeframe).advance(block)
        kept = slice(WARM_UP_DAYS * DAY, None)
        frames[one] = TrainingFrame(
            series=one,
            open_time_ms=block.open_time_ms[kept],
            features=features[kept],
            inputs=model_inputs(features)[kept],
            log_return=features[kept, INDEX["log_return_1"]],
            close=block.close[kept],
            forward_log_return=np.full(len(block), np.nan)[kept],
        )
        views.append(view[kept])
    dataset = Dataset(FrameSet.of_store(frames), horizon=HORIZON, window=WINDOW)
    config = TrainingConfig(created_at="2026-01-01T00:00:00+00:00", code_version="proof")
    begin = _START_MS + WARM_UP_DAYS * DAY * STEP_MS
    splits = plan_splits(begin, begin + TRAINED_DAYS * DAY * STEP_MS, config, timeframe_ms=STEP_MS)
    raw = np.concatenate(views)
    rule = _fitted(dataset, raw, splits, config)
    end_ms = _START_MS + candles * STEP_MS
    said = Predictor(raw, rule, end_ms - DAY * STEP_MS, change.timidity)
    return Played(dataset, splits.as_manifest(), said, rule, config, end_ms)


def _fitted(dataset: Dataset, raw: Floats, splits: Splits, config: TrainingConfig) -> Rule:
    windows = [dataset.rows(window, splits, stride=3) for window in (splits.validation, splits.calibration)]
    first, second = ((rows, raw[rows.index]) for rows in windows)
    return fit_rule((first, second), config, splits.horizon_ms)


def _series(
    rng: np.random.Generator, shared: Floats, common: Floats, edge: float, change: Change, newest: int, promoted: int
) -> tuple[CandleBlock, Floats]:
    candles = len(shared)
    place = np.arange(candles)
    daily = 1 + 0.25 * np.sin(2 * np.pi * place / DAY)
    width = _SHOCK * daily * np.exp(0.5 * (shared + _volatility(rng, candles)))
    width = width * np.where(place >= newest, change.volatility, 1.0)
    driver = _remembering(rng, candles, _EDGE)
    strength = edge * np.where(place >= promoted, change.edge, 1.0)
    noise = 0.6 * common + 0.8 * rng.standard_normal(candles)
    moves = width * (noise + strength * np.concatenate([[0.0], driver[:-1]]))
    close = 100 * np.exp(np.cumsum(moves))
    opened = np.concatenate([[100.0], close[:-1]])
    wick = np.abs(rng.standard_normal((2, candles))) * 0.4 * width
    busy = np.exp(0.5 * _remembering(rng, candles, _VOLUME) + 0.3 * rng.standard_normal(candles))
    volume = 1000 * busy * (width / _SHOCK) * np.where(place >= newest, change.volume, 1.0)
    high, low = np.maximum(opened, close) * (1 + wick[0]), np.minimum(opened, close) * (1 - wick[1])
    times = _START_MS + STEP_MS * place.astype(np.int64)
    # What the champion sees of the driver, with an error that has the same memory.
    view = 0.003 * (driver + 0.7 * _remembering(rng, candles, _EDGE))
    return CandleBlock(times, np.stack([opened, high, low, close, volume], axis=1)), view


def _volatility(rng: np.random.Generator, candles: int) -> Floats:
    """Return a factor of log volatility, halves of which come from one memory each."""
    found: Floats = 0.22 * _remembering(rng, candles, _FAST) + 0.30 * _remembering(rng, candles, _SLOW)
    return found


def _remembering(rng: np.random.Generator, candles: int, memory: float) -> Floats:
    """Return a first-order autoregression of unit variance, settled."""
    decay = np.exp(-1 / memory)
    burn = int(6 * memory)
    found: Floats = lfilter([np.sqrt(1 - decay**2)], [1, -decay], rng.standard_normal(candles + burn))[burn:]
    return found
