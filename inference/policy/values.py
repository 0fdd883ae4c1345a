"""The values of rules: from a file's or a person's words to what the policy holds, and back."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from decimal import Decimal, InvalidOperation
from enum import StrEnum
from functools import cache
from types import NoneType, UnionType
from typing import Any, Union, get_args, get_origin, get_type_hints

import msgspec

from inference.domain.errors import PolicyError
from inference.domain.policy import Policy, policy_rules

NO_LIMIT = "none"
# Beyond it no money, time or share lies; arithmetic stays exact and fast below.
LARGEST = Decimal(10) ** 15
SMALLEST = Decimal(10) ** -15
_MOST_NAMES = 2000
_LONGEST_NAME = 80

ALIASES: Mapping[str, str] = {
    "universe.mode": "universe_mode",
    "universe.filters.min_volume_24h": "min_volume_24h",
    "universe.filters.min_liquidity": "min_liquidity",
    "universe.filters.blacklist": "denied_symbols",
    "risk.max_position_usd": "max_notional",
    "risk.min_position_usd": "min_notional",
    "risk.max_leverage": "leverage",
    "risk.max_daily_dd_pct": "max_daily_drawdown",
    "risk.max_weekly_dd_pct": "max_weekly_drawdown",
    "risk.risk_pct_per_trade": "risk_per_trade",
    "execution.max_concurrent_trades": "max_positions",
    "execution.cooldown_seconds": "cooldown_seconds",
}
"""Names that older documents use; `_pct` holds a fraction there too."""


@cache
def kinds() -> Mapping[str, Any]:
    """Return the type of each rule, by its name."""
    hints = get_type_hints(Policy)
    return {name: hints[name] for name in policy_rules()}


def kind_of(name: str) -> tuple[Any, bool]:
    """Return the type of a rule's value, and whether there may be none."""
    hint = kinds()[name]
    if get_origin(hint) in (Union, UnionType):
        inner = [one for one in get_args(hint) if one is not NoneType]
        return inner[0], True
    return get_origin(hint) or hint, False


def rule_named(text: str, where: str = "Policy") -> str:
    """
    Return the rule that a name means: its own, with its section before it, or that of older documents.

    Raises:
        PolicyError: There is none; the message names the nearest.
    """
    rules = policy_rules()
    if text in rules:
        return text
    if text in ALIASES:
        return ALIASES[text]
    section, dot, name = text.rpartition(".")
    if dot and name in rules and rules[name].section == section:
        return name
    raise PolicyError(unknown_rules([text], where))


def unknown_rules(names: Iterable[str], where: str) -> str:
    """Return what to say of names that are no rules."""
    rules = policy_rules()
    offered = [*rules, *(f"{about.section}.{name}" for name, about in rules.items()), *ALIASES]
    unknown = sorted(names)
    near = {one: _elsewhere(one) or difflib.get_close_matches(one, offered, n=1, cutoff=0.6) for one in unknown}
    meant = "; ".join(f"did you mean {found[0]} rather than {one}?" for one, found in near.items() if found)
    return f"{where} names unknown rules {unknown}; {meant or f'known are {sorted(rules)}'}"


def rule_value(name: str, value: object, where: str = "Policy") -> Any:
    """
    Return a rule's value from what TOML, JSON or a person says.

    Raises:
        PolicyError: It is of another kind, not finite, or too large or too fine for any use.
    """
    kind, optional = kind_of(name)
    if value is None or (optional and value == NO_LIMIT):
        if optional:
            return None
        raise _wrong(name, value, where)
    if isinstance(value, bool):
        raise _wrong(name, value, where)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        return _chosen(name, value, kind, where)
    if kind is tuple:
        return _names(name, value, where)
    if kind is str:
        return _name(name, value, where)
    return _number(name, value, kind, where)


def value_of_text(name: str, text: str) -> Any:
    """
    Return a rule's value from what a person wrote on a command line; lists are joined by commas.

    Raises:
        PolicyError: The text cannot be meant.
    """
    kind, _ = kind_of(name)
    text = text.strip()
    if kind is tuple:
        parts = [] if text == NO_LIMIT else [one.strip() for one in text.split(",") if one.strip()]
        return rule_value(name, parts)
    if kind is int and text.lstrip("+-").isdecimal() and len(text) < 20:
        return rule_value(name, int(text))
    return rule_value(name, text)


def value_text(value: object) -> str:
    """Return a value as `value_of_text` reads it."""
    if value is None or value == ():
        return NO_LIMIT
    if isinstance(value, tuple):
        return ",".join(value)
    return f"{value:f}" if isinstance(value, Decimal) else str(value)


def rules_of(values: Mapping[str, object], where: str = "Policy") -> dict[str, Any]:
    """
    Return rules by name from a flat or a sectioned document.

    Raises:
        PolicyError: A name is unknown or said twice, or a value cannot be used.
    """
    if not isinstance(values, Mapping):
        raise PolicyError(f"{where} must be a table of rules, was {type(values).__name__}")
    found: dict[str, Any] = {}
    unknown = []
    for key, value in _flat(values):
        try:
            name = rule_named(key, where)
        except PolicyError:
            unknown.append(key)
            continue
        if name in found:
            raise PolicyError(f"{where} says {name} twice; say it once")
        found[name] = rule_value(name, value, where)
    if unknown:
        raise PolicyError(unknown_rules(unknown, where))
    return found


def policy_of(values: Mapping[str, object], where: str = "Policy") -> Policy:
    """
    Return the policy that a document says; what it leaves out keeps its default.

    Raises:
        PolicyError: A rule is unknown, of another kind, outside its bounds, or contradicts another.
    """
    rules = rules_of(values, where)
    try:
        return Policy(**rules)
    except PolicyError as error:
        raise PolicyError(f"{where}: {error}") from error


def plain(policy: Policy) -> dict[str, Any]:
    """Return the rules that a record states, as plain JSON values; decimals are text."""
    found: dict[str, Any] = _json_values(policy.stated())
    return found


def in_sections(policy: Policy) -> dict[str, dict[str, Any]]:
    """Return every rule as a plain JSON value, by section."""
    sections: dict[str, dict[str, Any]] = {}
    for name, about in policy_rules().items():
        sections.setdefault(about.section.value, {})[name] = _json_values(getattr(policy, name))
    return sections


def _elsewhere(text: str) -> list[str]:
    # The right name in another section than its own.
    name, rules = text.rpartition(".")[2], policy_rules()
    return [f"{rules[name].section}.{name}"] if name in rules else []


def _json_values(value: object) -> Any:
    return msgspec.json.decode(msgspec.json.encode(value))


def _flat(values: Mapping[str, object], prefix: str = "", depth: int = 0) -> Iterable[tuple[str, object]]:
    for key, value in values.items():
        if isinstance(value, Mapping) and depth < 3:
            yield from _flat(value, f"{prefix}{key}.", depth + 1)
        else:
            yield f"{prefix}{key}", value


def _chosen(name: str, value: object, kind: type[StrEnum], where: str) -> StrEnum:
    try:
        return kind(value)  # type: ignore[arg-type]
    except ValueError:
        raise _wrong(name, value, where) from None


def _names(name: str, value: object, where: str) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or len(value) > _MOST_NAMES:
        raise _wrong(name, value, where)
    for one in value:
        if not isinstance(one, str) or not 0 < len(one) <= _LONGEST_NAME or not one.isprintable() or "," in one:
            raise _wrong(name, one, where)
    return tuple(dict.fromkeys(value))


def _name(name: str, value: object, where: str) -> str:
    # Its names have capitals only; who writes them small means the same.
    if not isinstance(value, str) or not 0 < len(value) <= _LONGEST_NAME or not value.isascii():
        raise _wrong(name, value, where)
    return value.upper()


def _number(name: str, value: object, kind: Any, where: str) -> Any:
    if kind is int and not isinstance(value, int):
        raise _wrong(name, value, where)
    if not isinstance(value, int | float | str | Decimal) or (isinstance(value, str) and len(value) > _LONGEST_NAME):
        raise _wrong(name, value, where)
    if isinstance(value, int) and abs(value) > LARGEST:
        raise _wrong(name, "a number of too many digits", where)
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise _wrong(name, value, where) from None
    if not number.is_finite() or (number and not SMALLEST <= abs(number) <= LARGEST):
        raise _wrong(name, value, where)
    if kind is int:
        return int(number)
    return number if kind is Decimal else float(number)


def _wrong(name: str, value: object, where: str) -> PolicyError:
    about, found = policy_rules()[name], repr(value)
    bounds = f" in {about.bounds.text}" if about.bounds else ""
    return PolicyError(f"{where}: {name} needs {_words(name)}{bounds}, was {found[:80]}")


def _words(name: str) -> str:
    kind, optional = kind_of(name)
    if isinstance(kind, type) and issubclass(kind, StrEnum):
        said = " or ".join(f'"{one.value}"' for one in kind)
    elif kind is tuple:
        said = "a list of names"
    elif kind is str:
        said = "a name"
    else:
        said = "a whole number" if kind is int else "a number"
    return f'{said} or "{NO_LIMIT}"' if optional else said
