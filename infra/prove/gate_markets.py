"""Markets of which the truth is known, as the frames that ingest and the feature store would give of them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import INDEX, MODEL_INPUT_NAMES, fingerprint
from feature_store.features.engine import FeatureEngine, model_inputs
from feature_store.sources.recorded import read_file
from feature_store.ticks import suspect_marks
from flows.training.dataset import FrameSet, TrainingFrame
from flows.training.traded import TradedCandles
from infra.prove.recorded_markets import FOLDER_VARIABLE, sound
from infra.sandbox.market.series import DAY_MS
from infra.sandbox.market.synthetic import SyntheticMarket
from infra.sandbox.market.truth import foresee

GENESIS_MS = 1_735_689_600_000  # 2025-01-01, any day would do.
_MINUTES = Timeframe.M5.milliseconds // 60_000
_STEP_MS = Timeframe.M5.milliseconds
BLOCK = 12
"""Candles that stay together when real ones are shuffled: one horizon, so that no label lies in what its row saw."""

# Recorded five-minute candles of many symbols; each seed takes a stretch of one of them.
_FILES = (
    "binance_spot_5m_2022-01_2022-09.parquet",
    "binance_spot_5m_2022-10_2023-03_broad.parquet",
    "binance_spot_5m_2023-04_2023-12.parquet",
)


@dataclass(frozen=True, slots=True, eq=False)
class Truth:
    """Expected log return of the next hour, series by candles, as the optimal filter of minute candles foresees it."""

    close_ms: npt.NDArray[np.int64]
    expected: npt.NDArray[np.float64]


def synthetic_candles(symbols: int, days: int, edge: float, seed: int) -> dict[str, CandleBlock]:
    """Return the candles of five minutes that the sandbox exchange would serve for some days, by symbol."""
    return _candles(_market(symbols, days, edge, seed))


def synthetic_frames(symbols: int, days: int, edge: float, seed: int) -> tuple[FrameSet, Truth]:
    """Return a seeded market of a known edge, and what could be expected of it at each candle's close."""
    market = _market(symbols, days, edge, seed)
    seen = foresee(market, market.first_ms, GENESIS_MS)
    at_close = seen.time_ms % _STEP_MS == 0
    frames = [_frame(name, block) for name, block in _candles(market).items()]
    return _frame_set(frames), Truth(seen.time_ms[at_close], seen.by_filter[:, at_close])


def _market(symbols: int, days: int, edge: float, seed: int) -> SyntheticMarket:
    return SyntheticMarket(symbols=symbols, seed=seed, edge=edge, start_ms=GENESIS_MS, history_days=days)


def _candles(market: SyntheticMarket) -> dict[str, CandleBlock]:
    blocks = {}
    for index, character in enumerate(market.characters):
        minutes = market.history(index, market.first_ms, GENESIS_MS)
        whole = len(minutes.open) // _MINUTES * _MINUTES
        high, low, opened, close, volume = (
            np.asarray(column[:whole], float).reshape(-1, _MINUTES)
            for column in (minutes.high, minutes.low, minutes.open, minutes.close, minutes.volume)
        )
        blocks[f"{character.base}/USDT:USDT"] = CandleBlock(
            minutes.open_time[:whole:_MINUTES].astype(np.int64),
            np.stack([opened[:, 0], high.max(1), low.min(1), close[:, -1], volume.sum(1)], axis=1),
        )
    return blocks


def has_recorded() -> bool:
    """Whether the folder that MARKET_DATA_DIR names holds a file that can be shuffled."""
    folder = os.environ.get(FOLDER_VARIABLE)
    return bool(folder) and any((Path(folder) / name).exists() for name in _FILES)


def shuffled_frames(symbols: int, days: int, seed: int) -> FrameSet:
    """
    Return a stretch of recorded candles, its blocks of one horizon put in random order, all symbols alike.

    What prices did within an hour, their fat tails, and how symbols move together are real; which hour follows which is
    chance, so that nothing that came before tells what comes next.
    """
    rng = np.random.default_rng([seed, 11])
    folder = Path(os.environ[FOLDER_VARIABLE])
    files = [folder / name for name in _FILES if (folder / name).exists()]
    series = _recorded(files[int(rng.integers(len(files)))])
    candles = days * DAY_MS // _STEP_MS + 1
    times, values = _common_stretch(series, symbols, candles, rng)
    order = rng.permutation((candles - 1) // BLOCK)
    rows = (order[:, None] * BLOCK + np.arange(1, BLOCK + 1)).ravel()
    frames = [_frame(name, _rearranged(times, block, rows)) for name, block in values.items()]
    return _frame_set(frames)


@lru_cache(maxsize=3)
def _recorded(path: Path) -> dict[str, CandleBlock]:
    found = ((series, sound(block, series.timeframe)) for series, block in read_file(path))
    return {series.symbol: block for series, block in found if series.timeframe is Timeframe.M5}


def _common_stretch(
    series: dict[str, CandleBlock], symbols: int, candles: int, rng: np.random.Generator
) -> tuple[npt.NDArray[np.int64], dict[str, npt.NDArray[np.float64]]]:
    """Return a random stretch that at least six symbols have without a gap, and up to `symbols` of these."""
    first = min(int(block.open_time_ms[0]) for block in series.values())
    last = max(int(block.open_time_ms[-1]) for block in series.values())
    for _ in range(200):
        begin = int(rng.integers(first // _STEP_MS, last // _STEP_MS - candles)) * _STEP_MS
        whole: dict[str, npt.NDArray[np.float64]] = {}
        for name, block in series.items():
            place = int(np.searchsorted(block.open_time_ms, begin))
            part = block.open_time_ms[place : place + candles]
            if len(part) == candles and part[0] == begin and part[-1] == begin + (candles - 1) * _STEP_MS:
                whole[name] = block.values[place : place + candles]
        if len(whole) >= 6:
            chosen = sorted(rng.permutation(sorted(whole))[:symbols].tolist())
            times = begin + np.arange(candles, dtype=np.int64) * _STEP_MS
            return times, {name: whole[name] for name in chosen}
    raise ValueError("No stretch of the recorded candles is without gaps in six symbols")


def _rearranged(
    times: npt.NDArray[np.int64], values: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]
) -> CandleBlock:
    """Return candles whose moves, against the close before each, are those of `rows`."""
    before = values[rows - 1, 3]
    relative = values[rows, :4] / before[:, None]
    close = values[0, 3] * np.cumprod(relative[:, 3])
    base = np.concatenate([values[:1, 3], close[:-1]])
    return CandleBlock(times[1 : len(rows) + 1], np.column_stack([relative * base[:, None], values[rows, 4]]))


def _frame(symbol: str, block: CandleBlock) -> TrainingFrame:
    features = FeatureEngine(Timeframe.M5).advance(block)
    return TrainingFrame(
        symbol,
        block.open_time_ms,
        model_inputs(features),
        features[:, INDEX["log_return_1"]],
        block.close,
        traded=TradedCandles(block=block, atr=features[:, INDEX["atr_14"]]),
        suspect=suspect_marks(block, Timeframe.M5),
    )


def _frame_set(frames: list[TrainingFrame]) -> FrameSet:
    return FrameSet(tuple(frames), MODEL_INPUT_NAMES, fingerprint(), _STEP_MS)
