"""Faults on demand: which request fails, how, and how often."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field
from typing import Any, Final

ACTIONS: Final = frozenset(
    {"status", "hang", "drop", "delay", "exec_then_drop", "exec_then_hang", "exec_then_status", "exec_then_truncate",
     "late_exec"}
)  # fmt: skip
LOG_LENGTH: Final = 2_000
LONGEST_SECONDS: Final = 86_400.0
MOST_RULES: Final = 10_000


@dataclass(slots=True)
class Fault:
    """One rule: the first that matches a request is applied."""

    path: str
    method: str
    action: str
    # How many more times; None is without end.
    times: int | None
    probability: float
    seconds: float
    status: int
    code: int
    body: str | None
    headers: dict[str, str]
    # An overloaded venue still takes what makes positions smaller.
    spare_reduce_only: bool = False

    def matches(self, method: str, path: str, *, reduces: bool = False) -> bool:
        """Whether the rule speaks of this request; `reduces` marks one that can only make a position smaller."""
        if reduces and self.spare_reduce_only:
            return False
        return self.path in path and self.method in {"", method}


class FaultError(ValueError):
    """A fault was described in a way the control plane does not understand."""


def parse_fault(raw: dict[str, Any]) -> Fault:
    """
    Read a fault from the control plane.

    Raises:
        FaultError: The action is unknown or a number is not one.
    """
    action = str(raw.get("action", "status"))
    if action not in ACTIONS:
        raise FaultError(f"Unknown action '{action}', expected one of {', '.join(sorted(ACTIONS))}")
    status = _whole(raw, "status", 503, 100, 599)
    times, chance = raw.get("times"), raw.get("p")
    if times is None and chance is None:
        times = 1
    headers = raw.get("headers") or {}
    if not isinstance(headers, dict):
        raise FaultError(f"A fault's headers are a table, was {str(headers)[:80]!r}")
    told = {str(name): str(value) for name, value in headers.items()}
    if any(character in text for one in told.items() for text in one for character in "\r\n\0"):
        raise FaultError("A fault's headers may not break the line")
    if raw.get("retry_after") is not None:
        told["Retry-After"] = f"{number(raw, 'retry_after', 0.0, most=LONGEST_SECONDS):g}"
    return Fault(
        path=str(raw.get("path") or ""),
        method=str(raw.get("method") or "").upper(),
        action=action,
        times=None if times is None else _whole({"times": times}, "times", 1, 1, 10**9),
        probability=1.0 if chance is None else number(raw, "p", 1.0, most=1.0),
        seconds=number(raw, "secs", 30.0, most=LONGEST_SECONDS),
        status=status,
        code=_whole(raw, "code", {429: -1003, 418: -1003}.get(status, -1000), -99_999, 99_999),
        body=None if raw.get("body") is None else str(raw["body"]),
        headers=told,
        spare_reduce_only=flag(raw, "spare_reduce_only", default=False),
    )


def number(raw: dict[str, Any], name: str, default: float, *, least: float = 0.0, most: float = math.inf) -> float:
    """
    Return a number of an operation, or its default where there is none.

    Raises:
        FaultError: It is no number, or not between the bounds.
    """
    found = raw.get(name)
    if found is None:
        return default
    try:
        value = float(found)
    except (TypeError, ValueError):
        value = math.nan
    if isinstance(found, bool) or not math.isfinite(value) or not least <= value <= most:
        raise FaultError(f"'{name}' expects a number from {least:g} to {most:g}, was {str(found)[:40]!r}")
    return value


def flag(raw: dict[str, Any], name: str, *, default: bool) -> bool:
    """
    Return a yes or no of an operation, or its default where there is none.

    Raises:
        FaultError: It is neither.
    """
    found = raw.get(name)
    if found is None:
        return default
    if not isinstance(found, bool):
        raise FaultError(f"'{name}' expects true or false, was {str(found)[:40]!r}")
    return found


def _whole(raw: dict[str, Any], name: str, default: int, least: int, most: int) -> int:
    value = number(raw, name, float(default), least=least, most=most)
    if value != int(value):
        raise FaultError(f"'{name}' expects a whole number, was {value}")
    return int(value)


@dataclass(slots=True)
class FaultPlan:
    """The rules in force and the log of requests; chance is seeded."""

    seed: int
    rules: list[Fault] = field(default_factory=list)
    is_logging: bool = False
    log: list[dict[str, Any]] = field(default_factory=list)
    # Requests by method and path: how many there were, and how many met a fault.
    met: dict[str, list[int]] = field(default_factory=dict)
    # What was asked of the control plane, and by whom; this outlives `clear`.
    operations: list[dict[str, Any]] = field(default_factory=list)
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def reseed(self, seed: int) -> None:
        """Draw chance anew from a seed: the same requests then meet the same faults again."""
        self.seed = seed
        self._chance = random.Random(seed)

    def add(self, fault: Fault) -> None:
        """
        Put a rule in force, after those that are.

        Raises:
            FaultError: There are too many already.
        """
        if len(self.rules) >= MOST_RULES:
            raise FaultError(f"At most {MOST_RULES} faults at a time; undo them with 'clear'")
        self.rules.append(fault)

    def withdraw(self, fault: Fault) -> None:
        """Take a rule back, unless it is used up."""
        self.rules = [one for one in self.rules if one is not fault]

    def pick(self, method: str, path: str, *, reduces: bool = False) -> Fault | None:
        """Return the fault this request meets and use it up; count both."""
        fault = self._pick(method, path, reduces=reduces)
        counts = self.met.setdefault(f"{method} {path}", [0, 0])
        counts[0] += 1
        counts[1] += fault is not None
        return fault

    def _pick(self, method: str, path: str, *, reduces: bool) -> Fault | None:
        for rule in self.rules:
            if not rule.matches(method, path, reduces=reduces) or self._chance.random() >= rule.probability:
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self.withdraw(rule)
            return rule
        return None

    def note(self, entry: dict[str, Any]) -> None:
        """Remember a request while the log is on."""
        if self.is_logging:
            self.log.append(entry)
            del self.log[:-LOG_LENGTH]

    def note_operation(self, entry: dict[str, Any]) -> None:
        """Remember what was done to the venue."""
        self.operations.append(entry)
        del self.operations[:-LOG_LENGTH]
