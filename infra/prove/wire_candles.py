"""Candles that a worker trades twice, over the wire and in process: made by seed, or recorded from real markets."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import reduce
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.candle import CandleBlock
from infra.sandbox.engine.recorded import recorded_instrument
from infra.sandbox.market.recording import RecordingError, contents, read_recording

STEP_MS = 300_000
BEFORE, AFTER = 900, 90
"""Candles before the market opens to the worker, and from then on."""

_USUAL = {
    "BTCUSDT": (30_000.0, 1),
    "ETHUSDT": (2_000.0, 2),
    "SOLUSDT": (20.0, 3),
    "XRPUSDT": (0.5, 4),
    "BNBUSDT": (300.0, 2),
    "DOGEUSDT": (0.08, 5),
}
# Seven o'clock, so that funding is paid at eight.
_OPENS_MS = int(datetime(2026, 1, 8, 7, tzinfo=UTC).timestamp()) * 1000


@dataclass(frozen=True, slots=True, eq=False)
class WireCandles:
    """Candles of five minutes by native name, as an exchange tells them, and when the market opens."""

    name: str
    opens_ms: int
    blocks: dict[str, CandleBlock]

    @classmethod
    def told(cls, name: str, opens_ms: int, blocks: dict[str, CandleBlock]) -> WireCandles:
        """Return candles with prices in ticks and volumes in steps of the instruments they were recorded of."""
        found = {}
        # In the order of the exchange's list: what is summed over a market depends on it in the last digit.
        for symbol, block in sorted(blocks.items()):
            instrument = recorded_instrument(symbol, symbol.removesuffix("USDT"), block.values[:, :4])
            prices = np.round(block.values[:, :4], instrument.price_decimals)
            volume = np.round(block.values[:, 4:], instrument.quantity_decimals)
            found[symbol] = CandleBlock(block.open_time_ms, np.concatenate([prices, volume], axis=1))
        return cls(name, opens_ms, found)

    def write(self, path: Path) -> None:
        """Write them as a recording that the sandbox exchange replays."""
        tables = []
        for symbol, block in self.blocks.items():
            count = len(block)
            columns = dict(zip(("open", "high", "low", "close", "volume"), block.values.T, strict=True))
            said = {"exchange": ["binance_usdm"] * count, "symbol": [symbol] * count, "timeframe": ["5m"] * count}
            tables.append(pa.table(said | {"ts": block.open_time_ms} | columns))
        pq.write_table(pa.concat_tables(tables), path)


def made(seed: int, symbols: int) -> WireCandles:
    """Return candles of up to six symbols that wander by chance, on ticks, with gaps between close and open."""
    rng = np.random.default_rng(seed)
    count = BEFORE + AFTER
    times = _OPENS_MS + STEP_MS * (np.arange(count, dtype=np.int64) - BEFORE)
    blocks = {}
    for symbol, (usual, decimals) in list(_USUAL.items())[:symbols]:
        close = np.round(usual * np.exp(np.cumsum(0.002 * rng.standard_normal(count))), decimals)
        gap = 1 + 0.0005 * rng.standard_normal(count) * (rng.random(count) < 0.3)
        opened = np.round(np.concatenate([close[:1], close[:-1]]) * gap, decimals)
        wick = np.abs(0.001 * usual * rng.standard_normal((2, count)))
        high = np.round(np.maximum(opened, close) + wick[0], decimals)
        low = np.round(np.minimum(opened, close) - wick[1], decimals)
        volume = np.round(rng.uniform(50, 150, count), 2)
        blocks[symbol] = CandleBlock(times, np.stack([opened, high, low, close, volume], axis=1))
    return WireCandles.told(f"seed {seed}", _OPENS_MS, blocks)


def recorded(windows: int, symbols: int) -> list[WireCandles]:
    """Return stretches without a hole of the recordings in MARKET_DATA_DIR; none where it is unset."""
    path = _recording(symbols)
    if path is None:
        return []
    recording = read_recording(path)
    longest = sorted(recording.series, key=lambda one: (-len(one.open_time), one.symbol))[:symbols]
    times: npt.NDArray[np.int64] = reduce(np.intersect1d, [one.open_time for one in longest])
    count = BEFORE + AFTER
    whole = np.flatnonzero(times[count - 1 :] - times[: len(times) - count + 1] == (count - 1) * STEP_MS)
    chosen = whole[np.linspace(0, len(whole) - 1, windows + 2).astype(int)[1:-1]] if len(whole) else []
    return [
        WireCandles.told(
            f"{path.name} from {np.datetime64(int(times[first + BEFORE]), 'ms')}",
            int(times[first + BEFORE]),
            {one.symbol: _between(one.open_time, one.values, int(times[first]), count) for one in longest},
        )
        for first in chosen
    ]


def _recording(symbols: int) -> Path | None:
    """Return the smallest recording of MARKET_DATA_DIR that has candles of five minutes of so many symbols."""
    folder = os.environ.get("MARKET_DATA_DIR")
    found = []
    for path in sorted(Path(folder).glob("*.parquet")) if folder else ():
        with contextlib.suppress(RecordingError):
            timeframe_ms, names = contents(path)
            if timeframe_ms == STEP_MS and len(names) >= symbols:
                found.append(path)
    return min(found, key=lambda path: path.stat().st_size, default=None)


def _between(times: npt.NDArray[np.int64], values: npt.NDArray[np.float64], first_ms: int, count: int) -> CandleBlock:
    start = int(np.searchsorted(times, first_ms))
    return CandleBlock(times[start : start + count], values[start : start + count])
