from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import talib

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.features.definition import FEATURES, INDEX
from feature_store.features.engine import FeatureEngine
from feature_store.sources.recorded import read_file
from tests.feature_support import market, recorded, relative_error

TOLERANCE = 1e-9
# Near zero, CCI is a small difference of prices: at 30000 either order of summing loses seven digits of it.
LOOSER = {"cci_20": 1e-8}


class Columns:
    """Candles as TA-Lib wants them."""

    def __init__(self, block: CandleBlock) -> None:
        self.open, self.high, self.low, self.close, self.volume = (np.ascontiguousarray(x) for x in block.values.T)


def _direction(x: Columns) -> np.ndarray:
    plus, minus = talib.PLUS_DI(x.high, x.low, x.close, 14), talib.MINUS_DI(x.high, x.low, x.close, 14)
    return (plus - minus) / (plus + minus)


def _sample_deviation(x: Columns, length: int) -> np.ndarray:
    returns = np.diff(np.log(x.close))
    return np.append([np.nan], talib.STDDEV(returns * 1e3, length) / 1e3 * np.sqrt(length / (length - 1)))


ORACLES: dict[str, Callable[[Columns], np.ndarray]] = {
    "rsi_14": lambda x: talib.RSI(x.close, 14),
    "macd": lambda x: talib.MACD(x.close, 12, 26, 9)[0],
    "macd_signal": lambda x: talib.MACD(x.close, 12, 26, 9)[1],
    "macd_histogram": lambda x: talib.MACD(x.close, 12, 26, 9)[2],
    "bollinger_upper": lambda x: talib.BBANDS(x.close, 20, 2, 2)[0],
    "bollinger_middle": lambda x: talib.BBANDS(x.close, 20, 2, 2)[1],
    "bollinger_lower": lambda x: talib.BBANDS(x.close, 20, 2, 2)[2],
    "stochastic_k": lambda x: talib.STOCH(x.high, x.low, x.close, 14, 3, 0, 3, 0)[0],
    "stochastic_d": lambda x: talib.STOCH(x.high, x.low, x.close, 14, 3, 0, 3, 0)[1],
    "atr_14": lambda x: talib.ATR(x.high, x.low, x.close, 14),
    "adx_14": lambda x: talib.ADX(x.high, x.low, x.close, 14),
    "sma_10": lambda x: talib.SMA(x.close, 10),
    "sma_30": lambda x: talib.SMA(x.close, 30),
    "sma_50": lambda x: talib.SMA(x.close, 50),
    "ema_10": lambda x: talib.EMA(x.close, 10),
    "ema_20": lambda x: talib.EMA(x.close, 20),
    "ema_50": lambda x: talib.EMA(x.close, 50),
    "wma_20": lambda x: talib.WMA(x.close, 20),
    "volume_sma_20": lambda x: talib.SMA(x.volume, 20),
    "obv": lambda x: talib.OBV(x.close, x.volume),
    "atr_volatility_14": lambda x: talib.NATR(x.high, x.low, x.close, 14) / 100,
    "trend_direction": _direction,
    "trend_strength": lambda x: (
        abs(talib.EMA(x.close, 20) - talib.EMA(x.close, 50)) / talib.ATR(x.high, x.low, x.close, 14)
    ),
    "roc_10": lambda x: talib.ROC(x.close, 10),
    "roc_48": lambda x: talib.ROC(x.close, 48),
    "cci_20": lambda x: talib.CCI(x.high, x.low, x.close, 20),
    "williams_r_14": lambda x: talib.WILLR(x.high, x.low, x.close, 14),
    "mfi_14": lambda x: talib.MFI(x.high, x.low, x.close, x.volume, 14),
    "price_change_1": lambda x: talib.MOM(x.close, 1),
    "simple_return_1": lambda x: talib.ROCP(x.close, 1),
    "simple_return_3": lambda x: talib.ROCP(x.close, 3),
    "simple_return_12": lambda x: talib.ROCP(x.close, 12),
    "historical_volatility_20": lambda x: _sample_deviation(x, 20),
    "historical_volatility_60": lambda x: _sample_deviation(x, 60),
}


def disagreements(block: CandleBlock) -> dict[str, float]:
    """Features whose values or warm-up TA-Lib does not confirm, with their largest relative error."""
    features, columns = FeatureEngine(Timeframe.M5).advance(block), Columns(block)
    wrong = {}
    for name, oracle in ORACLES.items():
        found, expected = features[:, INDEX[name]], oracle(columns)
        same_warm_up = np.array_equal(np.isnan(found), np.isnan(expected))
        error = relative_error(found, expected)
        if not same_warm_up or error > LOOSER.get(name, TOLERANCE):
            wrong[name] = error if same_warm_up else np.inf
    return wrong


@pytest.mark.parametrize("seed", range(6))
def test_talib_agrees(seed):
    """An independent implementation gives the same numbers and the same warm-up, feature by feature."""
    assert disagreements(market(3_000, seed=seed, flat=0.02)) == {}


def test_every_feature_that_names_talib_is_compared_with_it():
    """Where the definition claims TA-Lib as its source, this file holds it to that."""
    claimed = {feature.name for feature in FEATURES if "TA-Lib" in feature.source}
    assert claimed <= ORACLES.keys()


@pytest.mark.needs_market_data
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_talib_agrees_on_real_candles(symbol):
    """The same on a year of recorded 5m candles, with its real gaps, wicks and quiet hours."""
    blocks = dict(read_file(recorded("binance_usdm_5m_2023-01_2023-12.parquet")))
    block = blocks[Series("binance_usdm", symbol, Timeframe.M5)]
    assert len(block) > 100_000
    assert disagreements(block) == {}
