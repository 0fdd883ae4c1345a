"""Faults by the clock: what is done to the venue when, read from a file; pure, both clocks are arguments."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.sandbox.faults import FaultError

_CLOCK_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)(?::([0-5]\d))?")
_DAY_MS = 86_400_000
MOST_STEPS = 10_000


@dataclass(frozen=True, slots=True)
class Step:
    """
    One entry of a script: what is done, when, and for how long.

    `at` is a time of the venue (`12:00`, the next one, or a date with a time); `after` counts seconds of the wall since
    the script was given. `lasts` are seconds of the wall too; without it what is done stays done.
    """

    operation: Mapping[str, Any]
    at: str | None
    after: float | None
    lasts: float | None


def read_script(path: Path) -> list[dict[str, Any]]:
    """
    Read the steps of a TOML file (`[[step]]` tables) or of a JSON file (a list, or an object with `step`).

    Raises:
        FaultError: It cannot be read as such.
    """
    try:
        text = path.read_text(encoding="utf-8")
        raw: Any = tomllib.loads(text) if path.suffix.lower() == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise FaultError(f"The script {path} cannot be read: {error}") from error
    steps = raw.get("step") if isinstance(raw, dict) else raw
    if not isinstance(steps, list) or not all(isinstance(one, dict) for one in steps):
        raise FaultError(f"The script {path} needs a list of steps, in TOML one [[step]] for each")
    return [_as_told(one) for one in steps]


def _as_told(step: dict[str, Any]) -> dict[str, Any]:
    # TOML has times and dates of its own; over the wire they are text.
    at = step.get("at")
    return step if at is None or isinstance(at, str) else step | {"at": at.isoformat()}


def parse_steps(raw: object) -> list[Step]:
    """
    Return the steps that the control plane was given.

    Raises:
        FaultError: One of them says no time, two, or one that is none.
    """
    if not isinstance(raw, list) or len(raw) > MOST_STEPS:
        raise FaultError(f"A script needs a list of at most {MOST_STEPS} steps")
    return [_parse(number, one) for number, one in enumerate(raw, 1)]


def _parse(number: int, raw: object) -> Step:
    if not isinstance(raw, dict):
        raise FaultError(f"Step {number} of the script is no table, was {str(raw)[:80]}")
    at, after, lasts = raw.get("at"), raw.get("after"), raw.get("for")
    if (at is None) == (after is None):
        raise FaultError(f"Step {number} of the script needs either 'at' or 'after'")
    if at is not None:
        _venue_ms(number, str(at), 0)
    operation = {name: value for name, value in raw.items() if name not in {"at", "after", "for"}}
    if not isinstance(operation.get("op"), str) or operation["op"] == "script":
        raise FaultError(f"Step {number} of the script needs an 'op', and that is no script again")
    return Step(
        operation=operation,
        at=None if at is None else str(at),
        after=None if after is None else _seconds(number, "after", after),
        lasts=None if lasts is None else _seconds(number, "for", lasts),
    )


def _seconds(number: int, name: str, raw: object) -> float:
    if isinstance(raw, bool) or not isinstance(raw, int | float) or not math.isfinite(raw) or raw < 0:
        raise FaultError(f"Step {number} of the script: '{name}' expects seconds, was {str(raw)[:40]!r}")
    return float(raw)


def _venue_ms(number: int, at: str, now_ms: int) -> int:
    clock = _CLOCK_TIME.fullmatch(at)
    if clock is not None:
        hours, minutes, seconds = (int(one or 0) for one in clock.groups())
        due = now_ms - now_ms % _DAY_MS + ((hours * 60 + minutes) * 60 + seconds) * 1000
        return due if due >= now_ms else due + _DAY_MS
    try:
        moment = datetime.fromisoformat(at)
    except ValueError:
        raise FaultError(f"Step {number} of the script: 'at' expects 12:00 or a date with a time, was {at!r}") from None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return int(moment.timestamp() * 1000)


@dataclass(frozen=True, slots=True)
class Ending:
    """An operation that ends what a saved venue goes on with, and in how many seconds of the wall it is due."""

    seconds: float
    operation: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Undo:
    """What ends a step; `kept` is the operation that does it, where what it ends outlives the process."""

    perform: Callable[[], Any]
    kept: dict[str, Any] | None = None


@dataclass(slots=True)
class Script:
    """What is still to be done, and what is to be undone."""

    _by_venue: list[tuple[int, Step]] = field(default_factory=list)
    _by_wall: list[tuple[float, Step]] = field(default_factory=list)
    _undo: list[tuple[float, Undo]] = field(default_factory=list)

    def add(self, steps: list[Step], *, now_ms: int, monotonic: float) -> int:
        """Take in steps but those whose date is past, which a venue that goes on has done; return how many wait now."""
        for number, step in enumerate(steps, 1):
            if step.after is not None:
                self._by_wall.append((monotonic + step.after, step))
            else:
                due_ms = _venue_ms(number, step.at or "", now_ms)
                if due_ms >= now_ms:
                    self._by_venue.append((due_ms, step))
        return len(self)

    def __len__(self) -> int:
        return len(self._by_venue) + len(self._by_wall)

    def begun(self, now_ms: int, monotonic: float) -> list[Step]:
        """Return the steps whose time has come, each once, in order."""
        due = sorted(
            (when - now_ms, place, step) for place, (when, step) in enumerate(self._by_venue) if when <= now_ms
        )
        found = [step for _, _, step in due]
        found += [step for when, step in sorted(self._by_wall, key=lambda one: one[0]) if when <= monotonic]
        self._by_venue = [one for one in self._by_venue if one[0] > now_ms]
        self._by_wall = [one for one in self._by_wall if one[0] > monotonic]
        return found

    def undo_later(self, monotonic: float, undo: Undo) -> None:
        """Remember what ends a step, and when; of two steps that do the same, the one that lasts longer ends it."""
        if undo.kept is not None:
            same = [when for when, one in self._undo if one.kept == undo.kept]
            self._undo = [one for one in self._undo if one[1].kept != undo.kept]
            monotonic = max([monotonic, *same])
        self._undo.append((monotonic, undo))

    def ended(self, monotonic: float) -> list[Undo]:
        """Return what is to be undone now, each once."""
        found = [undo for when, undo in self._undo if when <= monotonic]
        self._undo = [one for one in self._undo if one[0] > monotonic]
        return found

    def endings(self, monotonic: float) -> list[Ending]:
        """Return the ends that a venue which is saved now still has to bring about; while it is down, nothing lasts."""
        return [Ending(max(0.0, when - monotonic), undo.kept) for when, undo in self._undo if undo.kept is not None]

    def clear(self) -> None:
        """Plan nothing more."""
        self._by_venue, self._by_wall, self._undo = [], [], []
