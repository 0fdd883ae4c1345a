"""A policy from a TOML file: every key is a rule, every rule is checked."""

from __future__ import annotations

import tomllib
from dataclasses import fields
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import Any, get_type_hints

from inference.domain.errors import PolicyError
from inference.domain.policy import EntryStyle, Policy


def read_policy(path: Path | None) -> Policy:
    """
    Return the policy in a file, or the default one where no file is named.

    Raises:
        PolicyError: The file cannot be read, names an unknown rule, or holds a value outside its bounds.
    """
    if path is None:
        return Policy()
    try:
        # Money stays exact: TOML's numbers are read as Decimal, not as float.
        document = tomllib.loads(path.read_text(), parse_float=Decimal)
    except OSError as error:
        raise PolicyError(f"Policy file {path} cannot be read: {error.strerror}; name a TOML file") from error
    except tomllib.TOMLDecodeError as error:
        raise PolicyError(f"Policy file {path} is not TOML: {error}") from error
    rules = document.get("policy", document)
    known = {field.name for field in fields(Policy)}
    unknown = sorted(set(rules) - known)
    if unknown:
        raise PolicyError(f"Policy file {path} names unknown rules {unknown}; known are {sorted(known)}")
    hints = get_type_hints(Policy)
    return Policy(**{name: _value(name, value, hints[name], path) for name, value in rules.items()})


def policy_text(policy: Policy, note: str = "") -> str:
    """Return a policy as a file that `read_policy` reads as the same one, with a note to people above it."""
    lines = [f"# {line}" for line in note.splitlines()]
    lines.append("[policy]")
    for field in fields(Policy):
        value = getattr(policy, field.name)
        if value is not None:  # TOML has no word for a rule that is left to the bundle.
            # Without an exponent: TOML reads one as a float, and people do not read it at all.
            lines.append(f"{field.name} = {_toml(value)}")
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, EntryStyle):
        return f'"{value.value}"'
    return f"{value:f}" if isinstance(value, Decimal) else repr(value)


def _value(name: str, value: Any, kind: Any, path: Path) -> Any:
    wrong = PolicyError(f"Policy file {path}: {name} needs {_words(kind)}, was {value!r}")
    if isinstance(value, bool):
        raise wrong
    if kind is EntryStyle:
        try:
            return EntryStyle(value)
        except ValueError:
            raise wrong from None
    if kind is int:
        if not isinstance(value, int):
            raise wrong
        return value
    try:
        number = Decimal(str(value))
    except InvalidOperation:
        raise wrong from None
    if not number.is_finite():
        raise wrong
    return number if kind is Decimal else float(number)


def _words(kind: Any) -> str:
    if kind is EntryStyle:
        return " or ".join(f'"{one.value}"' for one in EntryStyle)
    return "a whole number" if kind is int else "a number"
