"""Market regimes: of each series by itself, by its own past, and unknown rather than guessed."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset
from flows.training.regimes import learn_regimes, regime_metrics
from flows.training.splits import plan_splits
from inference.regime.market import MarketRegime, RegimeThresholds, efficiency_ratio, regimes, volatility
from tests.training_support import make_frames, small_config

THRESHOLDS = RegimeThresholds(efficiency=0.3, volatility=(0.001, 0.002), by_symbol={"WILD": (0.01, 0.02)})
RETURNS = arrays.arrays(np.float64, (3, 64), elements=st.floats(-0.1, 0.1, allow_subnormal=False), unique=False)


@given(RETURNS)
def test_a_row_has_the_same_regime_in_any_company(returns):
    """Alone or among others, in any order: a series' regime is its own."""
    together = regimes(returns, ["A", "WILD", "C"], THRESHOLDS)
    alone = [regimes(returns[row : row + 1], [name], THRESHOLDS)[0] for row, name in enumerate(("A", "WILD", "C"))]

    assert list(together) == alone
    assert regimes(returns[::-1], ["C", "WILD", "A"], THRESHOLDS) == together[::-1]


@given(RETURNS)
def test_measures_stay_within_their_bounds(returns):
    """Efficiency lies in [0, 1] whatever prices did, and does not change with the size or the sign of all moves."""
    ratio = efficiency_ratio(returns)

    assert ((ratio >= 0) & (ratio <= 1 + 1e-12)).all()
    np.testing.assert_allclose(efficiency_ratio(-2 * returns), ratio, rtol=1e-9, atol=1e-12)
    assert (volatility(returns) >= 0).all()


def test_regimes_say_what_prices_did():
    """A straight way trends, a way back and forth ranges; a symbol is calm or wild by its own measure."""
    up, shaking = np.full((1, 64), 0.0015), np.tile([[0.005, -0.005]], 32)

    assert regimes(up, ["A"], THRESHOLDS) == (MarketRegime.TRENDING_NORMAL,)
    assert regimes(-up, ["A"], THRESHOLDS) == (MarketRegime.TRENDING_NORMAL,)
    assert regimes(shaking, ["A"], THRESHOLDS) == (MarketRegime.RANGING_TURBULENT,)
    assert regimes(shaking, ["WILD"], THRESHOLDS) == (MarketRegime.RANGING_CALM,)
    assert regimes(np.zeros((1, 64)), ["A"], THRESHOLDS) == (MarketRegime.RANGING_CALM,)


def test_what_is_not_known_is_called_unknown():
    """A missing return, or a bundle that learned no regimes, gives no regime."""
    holed = np.full((1, 64), 0.001)
    holed[0, 7] = np.nan

    assert regimes(holed, ["A"], THRESHOLDS) == (MarketRegime.UNKNOWN,)
    assert regimes(np.zeros((2, 64)), ["A", "B"], None) == (MarketRegime.UNKNOWN,) * 2


@pytest.mark.parametrize("edges", [(0.2, 0.1), (-0.1, 0.1), (0.1, float("inf")), (float("nan"), 0.1)])
def test_edges_that_do_not_rise_are_refused(edges):
    """Thresholds from a damaged manifest are no thresholds."""
    with pytest.raises(ValueError, match="must rise"):
        RegimeThresholds(efficiency=0.3, volatility=edges, by_symbol={})


def test_thresholds_are_learned_on_the_fit_window_alone():
    """A market that goes wild after the fit window changes no threshold; each tercile holds a third of the fit rows."""
    frames, config = make_frames(series=3, candles=1500), small_config()
    dataset = Dataset(frames, horizon=12, window=64)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, config, timeframe_ms=300_000)
    learned = learn_regimes(dataset, dataset.learned_rows(splits))
    wild = tuple(
        dataclasses.replace(
            one, log_return=np.where(one.open_time_ms >= splits.validation.start_ms, 0.5, one.log_return)
        )
        for one in frames.frames
    )
    changed = Dataset(dataclasses.replace(frames, frames=wild), horizon=12, window=64)
    shares = regime_metrics(dataset, rows := dataset.learned_rows(splits), np.ones(len(rows)), learned)
    calm = sum(value for name, value in shares.items() if name.endswith("calm/share"))

    assert learn_regimes(changed, changed.learned_rows(splits)) == learned
    assert set(learned.by_symbol) == set(frames.symbols)
    assert calm == pytest.approx(1 / 3, abs=0.02)
    assert sum(value for name, value in shares.items() if name.endswith("/share")) == pytest.approx(1)


def test_a_market_that_never_moves_is_an_error():
    """Constant prices have no regimes to learn, and the error says so."""
    frames = make_frames(series=1, candles=1500)
    still = dataclasses.replace(frames.frames[0], log_return=np.zeros(1500))
    dataset = Dataset(dataclasses.replace(frames, frames=(still,)), horizon=12, window=64)
    splits = plan_splits(dataset.start_ms, dataset.end_ms, small_config(), timeframe_ms=300_000)

    with pytest.raises(BadInputError, match="constant prices"):
        learn_regimes(dataset, dataset.learned_rows(splits))
