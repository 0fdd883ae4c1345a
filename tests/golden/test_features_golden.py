from __future__ import annotations

import dataclasses
import re

import pytest

from feature_store.features import definition, inputs, kernel, layout, native
from feature_store.features.definition import FEATURE_NAMES, FEATURES, MODEL_INPUT_NAMES, Family, fingerprint

# A change here means: every stored state, feature file and model bundle is of another feature set.
FINGERPRINT = "6e50d67c175854f5675813129c22255f2c26843005750be6696a19283e3df808"
SPECIFIED = {f"FE-{number:03}" for number in range(5, 30)}


def test_the_fingerprint_is_the_released_one():
    """Nobody changes a name, order, formula or parameter without noticing what that invalidates."""
    assert fingerprint() == FINGERPRINT


def test_there_are_exactly_49_features_by_unique_names():
    """The contract is 49 ordered names."""
    assert len(FEATURES) == len(set(FEATURE_NAMES)) == 49
    assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in FEATURE_NAMES + MODEL_INPUT_NAMES)
    assert len(set(MODEL_INPUT_NAMES)) == len(MODEL_INPUT_NAMES)


def test_every_specified_family_is_there():
    """Each row FE-005 to FE-029 of the specification has at least one feature, and every family one."""
    assert {feature.source[:6] for feature in FEATURES} == SPECIFIED
    assert {feature.family for feature in FEATURES} == set(Family)


def test_the_kernel_and_the_definition_name_the_same_things():
    """The compiled constants are the documented ones: order, tail, warm-up, width of the inputs."""
    places = [int(getattr(layout, name.upper())) for name in FEATURE_NAMES]
    assert places == list(range(0, 49 * layout.WIDTH, layout.WIDTH))
    assert (definition.TAIL, len(MODEL_INPUT_NAMES)) == (layout.TAIL, layout.INPUTS)
    assert (definition.WINDOW, native.COUNTERS) == (kernel.WINDOW, kernel.COUNTERS)
    assert (native.STATE_SIZE, native._ROOM) == (layout.STATE_SIZE, layout.ROWS * layout.WIDTH)
    assert max(definition.WARM_UP) < kernel.MOST_WARM_UP
    assert inputs.BOUND == definition.INPUT_BOUND
    assert max(feature.lookback or 0 for feature in FEATURES) <= definition.TAIL


@pytest.mark.parametrize("field", [field.name for field in dataclasses.fields(definition.Feature)])
def test_every_property_of_a_feature_moves_the_fingerprint(field, monkeypatch):
    """The fingerprint covers all that defines a feature."""
    changed = dataclasses.replace(FEATURES[0], **{field: 7 if field in {"lookback", "warm_up"} else "other"})
    monkeypatch.setattr(definition, "FEATURES", (changed, *FEATURES[1:]))
    assert fingerprint() != FINGERPRINT


def test_order_moves_the_fingerprint(monkeypatch):
    """The same features in another order are another set."""
    monkeypatch.setattr(definition, "FEATURES", FEATURES[::-1])
    assert fingerprint() != FINGERPRINT
