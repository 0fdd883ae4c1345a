"""A policy from a TOML file: every key is a rule, every rule is checked."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Mapping
from dataclasses import fields
from decimal import Decimal
from pathlib import Path

from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.policy.values import NO_LIMIT, policy_of

_LARGEST_BYTES = 1_000_000


def read_policy(path: Path | None) -> Policy:
    """
    Return the policy in a file, or the default one where no file is named.

    Rules stand by themselves, under `[policy]`, or in tables named for their sections.

    Raises:
        PolicyError: The file cannot be read, names an unknown rule, or holds a value outside its bounds.
    """
    return Policy() if path is None else policy_of(read_rules(path), f"Policy file {path}")


def read_rules(path: Path) -> Mapping[str, object]:
    """
    Return what a file says of rules, not looked at yet.

    Raises:
        PolicyError: The file cannot be read, or is not TOML; or not JSON, where its name ends so.
    """
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise PolicyError(f"Policy file {path} has more than {_LARGEST_BYTES} bytes; name a file of rules")
        # Money stays exact: numbers are read as Decimal, not as float.
        document = _document(path.read_text(encoding="utf-8"), is_json=path.suffix == ".json")
    except OSError as error:
        raise PolicyError(f"Policy file {path} cannot be read: {error.strerror}; name a file of rules") from error
    except (RecursionError, ValueError) as error:
        form = "JSON" if path.suffix == ".json" else "TOML"
        raise PolicyError(f"Policy file {path} is not {form}: {error}") from error
    if not isinstance(document, Mapping):
        raise PolicyError(f"Policy file {path} must hold a table of rules, was {document!r:.80}")
    if "policy" in document and len(document) > 1:
        beside = sorted(set(document) - {"policy"})
        raise PolicyError(f"Policy file {path} says {beside} beside policy; put all rules into policy, or leave it out")
    # `qtctl policy show --json` says more of a version than its rules.
    rules = document.get("policy", document.get("rules", document))
    if not isinstance(rules, Mapping):
        raise PolicyError(f"Policy file {path}: policy must be a table of rules, was {rules!r:.80}")
    return rules


def _document(text: str, *, is_json: bool) -> object:
    if not is_json:
        return tomllib.loads(text, parse_float=Decimal)
    return json.loads(text, parse_float=Decimal, parse_constant=_no_number, object_pairs_hook=_once)


def _no_number(word: str) -> object:
    raise ValueError(f"{word} is no number")


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError(f"a name is said twice among {sorted(found)[:20]}")
    return found


def policy_text(policy: Policy, note: str = "") -> str:
    """Return a policy as a file that `read_policy` reads as the same one, with a note to people above it."""
    lines = [f"# {line}" for line in note.splitlines()]
    lines.append("[policy]")
    defaults = {one.name: one.default for one in fields(Policy)}
    for name, value in policy.stated().items():
        if value is not None:
            lines.append(f"{name} = {_toml(value)}")
        elif defaults[name] is not None:
            lines.append(f'{name} = "{NO_LIMIT}"')
    return "\n".join(lines) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, tuple):
        return "[" + ", ".join(_toml(one) for one in value) + "]"
    # Without an exponent: TOML reads one as a float, and people do not read it at all.
    return f"{value:f}" if isinstance(value, Decimal) else repr(value)
