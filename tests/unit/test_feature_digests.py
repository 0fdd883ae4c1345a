"""Digests of feature rows: equal where the bits are, different where one bit is not, and packed without loss."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from feature_store.errors import BadInputError
from feature_store.features.definition import FEATURE_NAMES, MODEL_INPUT_NAMES
from feature_store.features.digests import (
    DIGESTS,
    FACTS,
    digested,
    pack_facts,
    pack_inputs,
    unpack_digests,
    unpack_facts,
    unpack_inputs,
)

COLUMNS, INPUTS = len(FEATURE_NAMES), len(MODEL_INPUT_NAMES)
rows = arrays(np.float64, st.tuples(st.integers(0, 4), st.just(COLUMNS)), elements=st.floats(width=64))


def _inputs(count: int) -> np.ndarray:
    return np.zeros((count, INPUTS), np.float32)


@given(rows)
def test_equal_rows_have_equal_digests(features):
    """The digest is a function of the bits, whatever the memory layout; every NaN is the same."""
    other = np.asfortranarray(features)
    other[np.isnan(other)] = -np.float64("nan")

    assert np.array_equal(digested(features, _inputs(len(features))), digested(other, _inputs(len(features))))


@given(
    st.floats(allow_nan=False),
    st.integers(0, COLUMNS - 1),
    st.sampled_from(["next", "sign", "nan"]),
)
def test_one_bit_shows_in_its_own_feature(value, column, change):
    """The next number, the other sign and NaN are told from a value, and every other feature stays the same."""
    before = np.zeros((1, COLUMNS))
    before[0, column] = value
    after = before.copy()
    after[0, column] = {"next": math.nextafter(value, -math.inf), "sign": -value, "nan": np.nan}[change]
    if after.tobytes() == before.tobytes():
        return

    old, new = digested(before, _inputs(1))[0], digested(after, _inputs(1))[0]

    assert old["row"] != new["row"]
    assert np.flatnonzero(old["features"] != new["features"]).tolist() in ([column], [])
    if change == "next":
        # The last bit is what skew begins with: it must never hide behind a short digest.
        assert old["features"][column] != new["features"][column]


def test_short_digests_seldom_agree_by_chance():
    """Of random values that differ, no more than a few in 65,536 share their 16 bits."""
    rng = np.random.default_rng(0)
    one, other = (digested(rng.normal(100, 5, (8_000, COLUMNS)), _inputs(8_000)) for _ in range(2))

    assert (one["features"] == other["features"]).mean() < 3 / 65_536
    assert len(np.unique(one["row"])) == 8_000


def test_inputs_have_a_digest_of_their_own():
    """A difference in what models read shows although the features are the same."""
    changed = _inputs(1)
    changed[0, 3] = 1e-30
    old, new = digested(np.ones((1, COLUMNS)), _inputs(1))[0], digested(np.ones((1, COLUMNS)), changed)[0]

    assert old["row"] == new["row"]
    assert old["inputs"] != new["inputs"]


@given(st.lists(st.tuples(st.integers(0, 2**62), st.integers(0, 2**62), *[st.integers(0, 2**32 - 1)] * 3), max_size=20))
def test_facts_come_back(values):
    """Packed facts are the facts that were packed, and of another number of rows they are refused."""
    facts = np.array(values, FACTS)
    packed = pack_facts(facts)

    assert np.array_equal(unpack_facts(packed, len(facts)), facts)
    with pytest.raises(BadInputError, match="packed facts"):
        unpack_facts(packed, len(facts) + 1)


@given(arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(0, 4)), elements=st.floats(width=32)))
def test_inputs_come_back(inputs):
    """Packed inputs are the inputs that were packed, to the bit; of another shape they are refused."""
    packed = pack_inputs(inputs)

    np.testing.assert_array_equal(unpack_inputs(packed, *inputs.shape), inputs)
    with pytest.raises(BadInputError, match="packed inputs"):
        unpack_inputs(packed, inputs.shape[0] + 1, inputs.shape[1] + 1)


@given(st.binary(max_size=200), st.integers(0, 5), st.integers(0, 5))
def test_damaged_inputs_are_refused(content, count, columns):
    """Whatever bytes a journal holds for added inputs, they give so many numbers or one sentence."""
    found = _or_refused(lambda *given: unpack_inputs(*given, columns), content, count)

    assert found is None or found.shape == (count, columns)


@given(st.binary(max_size=200), st.integers(0, 5))
def test_damaged_bytes_are_refused(content, count):
    """Whatever bytes a journal holds, they give rows or one sentence, and never more memory than the rows need."""
    for unpack, kind in ((unpack_facts, FACTS), (unpack_digests, DIGESTS)):
        found = _or_refused(unpack, content, count)

        assert found is None or (len(found), found.dtype) == (count, kind)


def _or_refused(unpack, content: bytes, count: int):
    try:
        return unpack(content, count)
    except BadInputError:
        return None
