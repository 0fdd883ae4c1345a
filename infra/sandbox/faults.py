"""Faults on demand: which request fails, how, and how often."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any, Final

ACTIONS: Final = frozenset(
    {"status", "hang", "drop", "delay", "exec_then_drop", "exec_then_hang", "exec_then_status", "late_exec"}
)
LOG_LENGTH: Final = 2_000


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

    def matches(self, method: str, path: str) -> bool:
        """Whether the rule speaks of this request."""
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
    try:
        status = int(raw.get("status", 503))
        times = raw.get("times")
        probability = raw.get("p")
        if times is None and probability is None:
            times = 1
        return Fault(
            path=str(raw.get("path", "")),
            method=str(raw.get("method", "")).upper(),
            action=action,
            times=None if times is None else int(times),
            probability=1.0 if probability is None else float(probability),
            seconds=float(raw.get("secs", 30.0)),
            status=status,
            code=int(raw.get("code", {429: -1003, 418: -1003, 403: -1000}.get(status, -1000))),
            body=None if raw.get("body") is None else str(raw["body"]),
            headers={str(k): str(v) for k, v in (raw.get("headers") or {}).items()},
        )
    except (TypeError, ValueError) as error:
        raise FaultError(f"A fault has a number that is not one: {error}") from error


@dataclass(slots=True)
class FaultPlan:
    """The rules in force and the log of requests; chance is seeded."""

    seed: int
    rules: list[Fault] = field(default_factory=list)
    is_logging: bool = False
    log: list[dict[str, Any]] = field(default_factory=list)
    _chance: random.Random = field(init=False)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)

    def pick(self, method: str, path: str) -> Fault | None:
        """Return the fault this request meets and use it up."""
        for rule in self.rules:
            if not rule.matches(method, path) or self._chance.random() >= rule.probability:
                continue
            if rule.times is not None:
                rule.times -= 1
                if rule.times <= 0:
                    self.rules.remove(rule)
            return rule
        return None

    def note(self, entry: dict[str, Any]) -> None:
        """Remember a request while the log is on."""
        if self.is_logging:
            self.log.append(entry)
            del self.log[:-LOG_LENGTH]
