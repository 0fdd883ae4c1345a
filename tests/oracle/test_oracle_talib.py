from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import VOLUME, CandleBlock, Series, Timeframe
from feature_store.features.definition import FEATURES, INDEX
from feature_store.features.engine import FeatureEngine
from feature_store.sources.recorded import read_file
from infra.prove.comparing import relative_error
from infra.prove.markets import market
from infra.prove.reference_exact import EXACT
from infra.prove.reference_talib import TALIB, Columns
from tests.feature_support import recorded

TOLERANCE = 1e-9
# Near zero, CCI is a small difference of prices: at 30000 TA-Lib's sums lose seven digits of it, the kernel's none.
LOOSER = {"cci_20": 1e-8}


def disagreements(block: CandleBlock) -> dict[str, float]:
    """Features whose values or warm-up TA-Lib does not confirm, with their largest relative error."""
    features, columns = FeatureEngine(Timeframe.M5).advance(block), Columns(block)
    wrong = {}
    for name, oracle in TALIB.items():
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


def test_cci_keeps_its_digits_where_the_market_hardly_moves():
    """At 60000, with moves of a few cents, CCI is right to the bar against 80-bit arithmetic, where TA-Lib's is not."""
    lively = market(2_000, price=60_000, tick=0.01, flat=0.7)
    prices = np.round(6_000_000 + (lively.values[:, :VOLUME] - 60_000) * 1e-2) / 100
    block = CandleBlock(lively.open_time_ms, np.column_stack([prices, lively.values[:, VOLUME]]))
    exact = EXACT["cci_20"](block)
    found = FeatureEngine(Timeframe.M5).advance(block)[:, INDEX["cci_20"]]
    assert np.array_equal(np.isnan(found), np.isnan(exact))
    assert relative_error(found, exact) < TOLERANCE / 1000
    assert relative_error(TALIB["cci_20"](Columns(block)), exact) > TOLERANCE


def test_every_feature_that_names_talib_is_compared_with_it():
    """Where the definition claims TA-Lib as its source, TA-Lib is asked."""
    claimed = {feature.name for feature in FEATURES if "TA-Lib" in feature.source}
    assert claimed <= TALIB.keys()


@pytest.mark.needs_market_data
@pytest.mark.parametrize("symbol", ["BTCUSDT", "ETHUSDT"])
def test_talib_agrees_on_real_candles(symbol):
    """The same on a year of recorded 5m candles, with its real gaps, wicks and quiet hours."""
    blocks = dict(read_file(recorded("binance_usdm_5m_2023-01_2023-12.parquet")))
    block = blocks[Series("binance_usdm", symbol, Timeframe.M5)]
    assert len(block) > 100_000
    assert disagreements(block) == {}
