"""JSON as it is meant: every key once, numbers finite, nesting bounded."""

from __future__ import annotations

import json
import math
from typing import Any

from inference.models.inspection.refusal import Fault, InspectionError, require

_MAX_DEPTH = 16


def strict_json(content: bytes, what: str) -> Any:
    """
    Return a JSON document; one that readers could understand differently is refused.

    Raises:
        InspectionError: It is no UTF-8 JSON, repeats a key, holds a number that is none, or nests deeper than 16.
    """
    require(_depth(content) <= _MAX_DEPTH, Fault.TOO_DEEP, f"{what} nests deeper than {_MAX_DEPTH}")

    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        require(len(found) == len(pairs), Fault.DUPLICATE_KEY, lambda: f"{what} names a key twice: {_twice(pairs)!r}")
        return found

    def no_constant(word: str) -> Any:
        raise InspectionError(Fault.NOT_FINITE, f"{what} holds {word}, which is no number")

    def finite(digits: str) -> float:
        value = float(digits)
        require(math.isfinite(value), Fault.NOT_FINITE, f"{what} holds the number {digits[:40]}, which is too large")
        return value

    try:
        text = content.decode("utf-8")
        return json.loads(text, object_pairs_hook=once, parse_constant=no_constant, parse_float=finite)
    except (ValueError, RecursionError) as error:
        raise InspectionError(Fault.STRUCTURE, f"{what} is no JSON: {error}") from error


def _twice(pairs: list[tuple[str, Any]]) -> str:
    names = [name for name, _ in pairs]
    return next(name for name in names if names.count(name) > 1)[:60]


def _depth(content: bytes) -> int:
    """Return the deepest nesting of brackets outside of strings."""
    depth = deepest = 0
    in_string = escaped = False
    for byte in content:
        if in_string:
            in_string = escaped or byte != 0x22
            escaped = not escaped and byte == 0x5C
        elif byte == 0x22:
            in_string = True
        elif byte in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif byte in b"]}":
            depth -= 1
    return deepest
