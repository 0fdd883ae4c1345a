"""Exit profiles that a person writes, as TOML; strict, since a rule that is misspelt protects nothing."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any

import msgspec

from inference.domain.errors import PolicyError
from inference.domain.exit_profile import BUILT_IN, ExitProfile, Target
from inference.domain.policy import BARRIERS

_TABLE = "profiles"
_NAME = "name"
_MOST_PROFILES = 50
# Beyond it no multiple, share or count lies; arithmetic stays exact and fast below.
_LARGEST, _MOST_DIGITS = Decimal(10) ** 9, 15


def profiles_of(text: str, where: str = "Exit profiles") -> Mapping[str, ExitProfile]:
    """
    Return the profiles that a text says, by name, beside those that are built in.

    One table a profile, such as `[profiles.PATIENT]`; what it leaves out keeps its default.

    Raises:
        PolicyError: It is not TOML, names an unknown rule, holds a value of another kind or outside its bounds, or a
            profile contradicts itself, has the name of a built-in one, or no buffer before liquidation.
    """
    try:
        # Multiples stay exact: numbers are read as Decimal, not as float.
        document = tomllib.loads(text, parse_float=Decimal)
    except (RecursionError, ValueError) as error:
        raise PolicyError(f"{where} are not TOML: {error}") from error
    _refuse_unknown(document, {_TABLE}, where)
    tables = document.get(_TABLE, {})
    if not isinstance(tables, Mapping) or len(tables) > _MOST_PROFILES:
        raise PolicyError(f"{where}: profiles must be at most {_MOST_PROFILES} tables, such as [profiles.PATIENT]")
    found = dict(BUILT_IN)
    for name, table in tables.items():
        if name == BARRIERS or name in BUILT_IN:
            raise PolicyError(f"{where}: profile {name} is built in; give yours another name")
        found[name] = _profile(name, table, where)
    return MappingProxyType(found)


def profile_named(name: str, profiles: Mapping[str, ExitProfile] = BUILT_IN) -> ExitProfile:
    """
    Return a profile.

    Raises:
        PolicyError: There is none of that name; the message names the nearest.
    """
    if name in profiles:
        return profiles[name]
    raise PolicyError(f"There is no exit profile {name[:60]!r}; {_meant(name, profiles)}")


def _profile(name: str, table: object, where: str) -> ExitProfile:
    place = f"{where}: profile {name[:60]}"
    if not isinstance(table, Mapping):
        raise PolicyError(f"{place} must be a table of rules, was {table!r:.80}")
    _refuse_unknown(table, {one for one in ExitProfile.__struct_fields__ if one != _NAME}, place)
    targets = table.get("targets", [])
    if not isinstance(targets, list) or not all(isinstance(one, Mapping) for one in targets):
        raise PolicyError(f"{place}: targets must be a list of tables, such as {{ r = 1, share = 0.3 }}")
    for number, target in enumerate(targets, 1):
        _refuse_unknown(target, Target.__struct_fields__, f"{place}: target {number}")
        _refuse_odd(target, f"{place}: target {number}")
    _refuse_odd(table, place)
    try:
        profile = msgspec.convert({**table, _NAME: name}, ExitProfile)
    except msgspec.ValidationError as error:
        raise PolicyError(f"{place}: {error}".replace(", got ", ", was ")) from error
    if profile.liquidation_buffer == 0 and profile.liquidation_buffer_atr == 0:
        raise PolicyError(f"{place} needs a buffer before liquidation: liquidation_buffer or liquidation_buffer_atr")
    return profile


def _refuse_odd(table: Mapping[str, Any], place: str) -> None:
    for name, value in table.items():
        if name == "targets":
            continue
        # TOML knows nan, inf, and numbers in quotes; a person means none of them.
        odd = isinstance(value, bool | float | str) or not isinstance(value, int | Decimal)
        if odd or not _is_usable(Decimal(value)):
            raise PolicyError(f"{place}: {name} needs a number of at most {_MOST_DIGITS} digits, was {value!r:.60}")


def _is_usable(number: Decimal) -> bool:
    if not number.is_finite() or abs(number) > _LARGEST:
        return False
    _, digits, exponent = number.as_tuple()
    return len(digits) <= _MOST_DIGITS and isinstance(exponent, int) and exponent >= -_MOST_DIGITS


def _refuse_unknown(table: Mapping[str, Any], known: Iterable[str], place: str) -> None:
    for name in table:
        if name not in known:
            raise PolicyError(f"{place} names an unknown rule {name[:60]!r}; {_meant(name, known)}")


def _meant(name: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"did you mean {near[0]}?" if near else f"known are {', '.join(sorted(known))}"
