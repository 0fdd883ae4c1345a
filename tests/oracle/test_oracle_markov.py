"""Hidden states against statsmodels, which filters and fits Markov models in another way."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from statsmodels.tsa.regime_switching.markov_regression import MarkovRegression

from flows.training.hidden_markov import fit_states
from inference.regime.hidden_markov import HiddenMarkov, first_belief, prepare, walk

STAY = np.array([0.98, 0.95])
MEANS, VARIANCES = np.array([0.1, -0.3]), np.array([0.5, 4.0])


@pytest.fixture(scope="module")
def returns() -> np.ndarray:
    """Return one series that switches between a calm state and a wild one."""
    rng = np.random.default_rng(11)
    state, found = 0, []
    for _ in range(3000):
        state = state if rng.random() < STAY[state] else 1 - state
        found.append(MEANS[state] + np.sqrt(VARIANCES[state]) * rng.standard_normal())
    return np.array(found)


def _reference(returns: np.ndarray) -> MarkovRegression:
    return MarkovRegression(returns, k_regimes=2, trend="c", switching_variance=True)


def test_the_filter_says_what_statsmodels_says(returns):
    """With the same numbers, the probability of each state at each candle agrees to twelve digits."""
    stationary = (1 - STAY)[::-1] / (1 - STAY).sum()
    model = HiddenMarkov(
        start=tuple(stationary.tolist()),
        transitions=((0.98, 0.02), (0.05, 0.95)),
        means=tuple((one,) for one in MEANS.tolist()),
        variances=tuple((one,) for one in VARIANCES.tolist()),
        lowest=(-1e6,),
        highest=(1e6,),
        overlap=1,
        unseen=-100.0,
        rare=-50.0,
        memory=1,
        warm_up=1,
    )
    prepared = prepare(model)
    beliefs = list(walk(prepared, first_belief(prepared, 1), returns[:, None, None]))
    ours = np.concatenate([one.probability for one in beliefs])
    theirs = _reference(returns).filter([STAY[0], 1 - STAY[1], *MEANS, *VARIANCES])

    np.testing.assert_allclose(ours, theirs.filtered_marginal_probabilities, rtol=0, atol=1e-12)
    # With a memory of one candle, what surprises is that candle's log density.
    assert sum(one.surprise[0] for one in beliefs) == pytest.approx(theirs.llf, rel=1e-12)


def test_the_fit_is_as_likely_as_that_of_statsmodels(returns):
    """Of one series both find the same states, and ours is no less likely."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = _reference(returns).fit(disp=False)
    ours = fit_states(returns[None, :, None], states=2, seed=1)

    assert ours.converged
    # Ours learns where the series began, which may be worth the logarithm of one probability.
    assert ours.log_likelihood * len(returns) > theirs.llf - 1
    order = np.argsort(theirs.params[2:4])
    np.testing.assert_allclose(ours.means[:, 0], theirs.params[2:4][order], atol=0.02)
    np.testing.assert_allclose(ours.variances[:, 0], theirs.params[4:6][order], rtol=0.03)
