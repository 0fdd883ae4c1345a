"""What changed from one bundle to another, by the name of the manifest's field."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from inference.models.manifest import Manifest

# What a change belongs to, by the first word of its path; what is not named here belongs to `model`.
_SECTIONS = {
    "training": "windows",
    "members": "members",
    "weighting": "members",
    "model_inputs": "inputs",
    "feature_fingerprint": "inputs",
    "window": "inputs",
    "data_fingerprint": "data",
    "symbols": "data",
    "timeframe": "data",
    "threshold": "thresholds",
    "calibration": "thresholds",
    "scale": "thresholds",
    "max_abs_expected_return": "thresholds",
    "round_trip_cost": "thresholds",
    "regime": "thresholds",
    "regime_model": "thresholds",
    "trained_inputs": "inputs",
    "metrics": "metrics",
    "golden": "checks",
}
SECTIONS = ("model", "data", "windows", "inputs", "members", "thresholds", "metrics", "checks")
"""What changes are grouped by, in the order in which a person asks."""


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One value that differs; None where one of the bundles does not have it."""

    section: str
    field: str
    before: Any
    after: Any


def changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[Change, ...]:
    """Return what differs between two flattened manifests, section by section, each in the order of its names."""
    found = [
        Change(section=_section(name), field=name, before=before.get(name), after=after.get(name))
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    ]
    return tuple(sorted(found, key=lambda one: (SECTIONS.index(one.section), one.field)))


def flattened(manifest: Manifest) -> dict[str, Any]:
    """
    Return a manifest as single values by dotted names.

    What has a name of its own is found by it, wherever it stands: `members.xgboost.weight`. Rows of numbers stay whole.
    """
    return dict(_walk("", msgspec.to_builtins(manifest)))


def _section(field: str) -> str:
    return _SECTIONS.get(field.partition(".")[0], "model")


def _walk(name: str, value: Any) -> list[tuple[str, Any]]:
    if isinstance(value, Mapping):
        return [pair for key, one in value.items() for pair in _walk(f"{name}.{key}" if name else str(key), one)]
    if isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) and "name" in one for one in value):
        return [pair for one in value for pair in _walk(f"{name}.{one['name']}", {**one, "name": one["name"]})]
    if isinstance(value, list | tuple) and value and all(isinstance(one, Mapping) for one in value):
        return [pair for place, one in enumerate(value) for pair in _walk(f"{name}.{place}", one)]
    return [(name, list(value) if isinstance(value, tuple) else value)]
