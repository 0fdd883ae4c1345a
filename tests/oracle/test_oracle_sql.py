from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import FEATURE_NAMES
from feature_store.features.engine import FeatureEngine
from feature_store.reference import features_in_sql
from feature_store.sources.recorded import read_file
from tests.feature_support import market, recorded, relative_error, without

TOLERANCE = 1e-9


def disagreements(blocks: dict[str, CandleBlock]) -> dict[str, float]:
    """Features for which kernel and SQL differ, with their largest relative error."""
    wrong = {}
    by_sql = features_in_sql(blocks)
    for name, block in blocks.items():
        by_kernel = FeatureEngine(Timeframe.M5).advance(block)
        for column, feature in enumerate(FEATURE_NAMES):
            found, expected = by_sql[name][:, column], by_kernel[:, column]
            same_warm_up = np.array_equal(np.isnan(found), np.isnan(expected))
            error = relative_error(found, expected)
            if not same_warm_up or error > TOLERANCE:
                wrong[f"{name}.{feature}"] = error if same_warm_up else np.inf
    return wrong


def test_sql_gives_all_49_features():
    """Two independent implementations give one number: markets with ticks, flat stretches and short gaps."""
    blocks = {f"seed {seed}": market(600, seed=seed, flat=0.02) for seed in range(4)}
    blocks["gaps"] = without(market(600, seed=9, flat=0.02), np.r_[100:110, 300:364, 500])
    blocks["dear"] = market(600, seed=5, price=60_000, tick=0.1, flat=0)
    blocks["cheap"] = market(600, seed=6, price=0.00002, tick=1e-8, flat=0)
    assert disagreements(blocks) == {}


def test_sql_and_kernel_agree_on_a_market_that_stands_still():
    """Where nothing moves, both say 0 for every ratio and neither divides by nothing."""
    assert disagreements({"still": market(200, flat=1.0)}) == {}


@pytest.mark.needs_market_data
def test_sql_agrees_on_real_candles():
    """The same on recorded candles of both perpetuals, three weeks of 5m."""
    blocks = {
        series.symbol: block[:6_000] for series, block in read_file(recorded("binance_usdm_5m_2022-06_2022-11.parquet"))
    }
    assert len(blocks) == 2
    assert disagreements(blocks) == {}
