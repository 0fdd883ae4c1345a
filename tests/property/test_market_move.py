"""What all series of a moment have in common is taken off alike, in whatever parts and order rows come."""

from __future__ import annotations

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from inference.models.bundle import load_bundle
from inference.models.manifest import MANIFEST_NAME
from inference.models.market_move import without_market
from tests.training_support import bundle_inputs, trained_candidate


@st.composite
def markets(draw):
    """Return values, moments and a share; some values are missing, some series alone at their moment."""
    count = draw(st.integers(1, 60))
    seed = draw(st.integers(0, 10_000))
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(count)
    values[rng.random(count) < draw(st.sampled_from([0.0, 0.2, 1.0]))] = np.nan
    return values, rng.integers(0, draw(st.integers(1, 30)), count), draw(st.floats(0, 1))


@given(markets(), st.randoms(use_true_random=False))
def test_order_changes_nothing_and_gaps_stay_gaps(market, random):
    """Rows in another order answer the same, and a row without a value neither gets one nor counts."""
    values, moments, share = market
    order = np.array(random.sample(range(len(values)), len(values)))
    found = without_market(values, moments, share)
    known = np.isfinite(values)

    np.testing.assert_allclose(without_market(values[order], moments[order], share), found[order], atol=1e-12)
    np.testing.assert_array_equal(np.isfinite(found), known)
    np.testing.assert_allclose(without_market(values[known], moments[known], share), found[known], atol=1e-12)


@given(markets())
def test_a_series_alone_keeps_all_and_many_keep_their_differences(market):
    """Nothing is taken from one that is alone; of many, what tells them apart stays as it is."""
    values, moments, share = market
    found = without_market(values, moments, share)
    for moment in np.unique(moments):
        mine = (moments == moment) & np.isfinite(values)
        if mine.sum() == 1:
            assert found[mine] == values[mine]
        elif mine.sum() > 1:
            kept = values[mine] - values[mine].mean()
            np.testing.assert_allclose(found[mine] - found[mine].mean(), kept, atol=1e-9)
            assert abs(found[mine].mean()) <= abs(values[mine].mean()) + 1e-12


@settings(max_examples=20, deadline=None)
@given(cut=st.integers(1, 39))
def test_parts_answer_as_the_whole(cut):
    """Windows that come in parts make the very opinions that they make at once."""
    made = trained_candidate()
    bundle = load_bundle(made.path, expected_fingerprint=made.frames.feature_fingerprint)
    arrays = bundle_inputs(made.frames, 40)
    moments = np.arange(40) // 4
    whole = bundle.score(*arrays, moments)
    parts = bundle.score_parts([tuple(one[:cut] for one in arrays), tuple(one[cut:] for one in arrays)], moments)

    assert bundle.manifest.market_share == made.config.market_share_removed > 0
    np.testing.assert_array_equal(parts.expected_return, whole.expected_return)
    np.testing.assert_array_equal(parts.probability_up, whole.probability_up)
    assert not np.array_equal(whole.expected_return, bundle.score(*arrays).expected_return)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_beyond_all_is_refused(share):
    """A manifest that would turn opinions round is no manifest."""
    made = trained_candidate()
    manifest = load_bundle(made.path, expected_fingerprint=made.frames.feature_fingerprint).manifest

    with pytest.raises(ValueError, match="share of the market"):
        msgspec.structs.replace(manifest, market_share=share)
    assert (made.path / MANIFEST_NAME).exists()
