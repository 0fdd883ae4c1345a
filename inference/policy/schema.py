"""The JSON schema of a policy, made from the rules themselves."""

from __future__ import annotations

from dataclasses import fields
from decimal import Decimal
from enum import StrEnum
from typing import Any

import msgspec

from inference.domain.policy import Policy, policy_rules
from inference.domain.policy_rules import Bounds, Section
from inference.policy.values import LARGEST, NO_LIMIT, SMALLEST, kind_of

DRAFT = "https://json-schema.org/draft/2020-12/schema"
NAME_IN_ANY_CASE = "^[A-Za-z][A-Za-z0-9_]{0,39}$"
_DECIMAL = r"^-?[0-9]+(\.[0-9]+)?([eE][-+]?[0-9]+)?$"


def policy_schema() -> dict[str, Any]:
    """Return the schema of a policy in sections, as `qtctl policy show --json` prints one under `rules`."""
    defaults = {one.name: one.default for one in fields(Policy)}
    sections: dict[str, Any] = {
        one.value: {"type": "object", "additionalProperties": False, "properties": {}} for one in Section
    }
    for name, about in policy_rules().items():
        sections[about.section.value]["properties"][name] = {
            "description": about.says,
            **_value_schema(name, about.bounds),
            "default": msgspec.to_builtins(defaults[name]),
        }
    return {
        "$schema": DRAFT,
        "title": "Trading policy",
        "description": (
            "Every rule of a deployment. Fractions are of equity, money is quote currency, times are UTC. Numbers with"
            " decimals may be text, so that they stay exact; null, or none, is no limit."
        ),
        "type": "object",
        "additionalProperties": False,
        "properties": sections,
    }


def _value_schema(name: str, bounds: Bounds | None) -> dict[str, Any]:
    kind, optional = kind_of(name)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return {"enum": [one.value for one in kind]}
    if kind is tuple:
        return {"type": "array", "items": {"type": "string", "minLength": 1, "maxLength": 80}, "uniqueItems": True}
    if kind is str:
        return {"type": "string", "pattern": NAME_IN_ANY_CASE}
    number: dict[str, Any] = {"type": "integer" if kind is int else "number", **_limits(bounds)}
    if kind is not int:
        number |= _apart_from_zero(bounds)
    choices = [number]
    if kind is Decimal:
        choices.append({"type": "string", "pattern": _DECIMAL})
    if optional:
        choices.append({"enum": [None, NO_LIMIT]})
    return choices[0] if len(choices) == 1 else {"anyOf": choices}


def _limits(bounds: Bounds | None) -> dict[str, Any]:
    limits: dict[str, Any] = {"minimum": _plain(-LARGEST), "maximum": _plain(LARGEST)}
    if bounds is None:
        return limits
    if bounds.low.is_finite():
        del limits["minimum"]
        limits["minimum" if bounds.takes_low else "exclusiveMinimum"] = _plain(bounds.low)
    if bounds.high.is_finite():
        del limits["maximum"]
        limits["maximum" if bounds.takes_high else "exclusiveMaximum"] = _plain(bounds.high)
    return limits


def _apart_from_zero(bounds: Bounds | None) -> dict[str, Any]:
    """Leave out what is nearer to zero than numbers are kept; zero itself is a number like others."""
    if bounds is not None and bounds.low >= SMALLEST:
        return {}
    smallest = float(SMALLEST)
    above = {"exclusiveMinimum": 0, "exclusiveMaximum": smallest}
    if bounds is not None and bounds.low >= 0:
        return {"not": above}
    return {"not": {"anyOf": [above, {"exclusiveMinimum": -smallest, "exclusiveMaximum": 0}]}}


def _plain(number: Decimal) -> int | float:
    return int(number) if number == number.to_integral_value() else float(number)
