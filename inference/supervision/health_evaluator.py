"""How well the worker is, judged from what can be measured: five levels, each with its reasons."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from enum import StrEnum

from inference.domain.health import HealthLevel
from inference.domain.policy import Policy
from inference.risk.emergency import ACCOUNT_SECONDS
from inference.risk.errors import ErrorCounts

_NEVER = math.inf
_ORDER = tuple(HealthLevel)
_MIB, _GIB = 2**20, 2**30


class Part(StrEnum):
    """What is looked at."""

    JOURNAL = "journal"
    SYNC = "journal's disk"
    WORK = "work"
    LEASE = "lease"
    RECONCILE = "reconcile"
    OBJECTIONS = "objections"
    CANDLES = "candles"
    ACCOUNT = "account"
    CIRCUITS = "circuits"
    ERRORS = "execution errors"
    LOOP = "event loop"
    BUS = "event bus"
    DISK = "disk"
    MEMORY = "memory"


OF_THE_STOP = frozenset({Part.CANDLES, Part.ACCOUNT, Part.ERRORS})
"""Parts that the emergency stop has evaluators of its own for: one cause latches one stop, not two."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthInputs:
    """
    What can be measured of a worker. None is an input that is missing; ages are wall-clock seconds.

    `work_failed` and `objections` are reasons in words, empty where there is none. `unsynced_seconds` says for how
    long an entry of the journal has waited for the disk, `candle_overdue_seconds` for how long one that has closed
    has not come; 0 where none does.
    """

    journal_failed: bool | None
    unsynced_seconds: float | None
    work_failed: str | None
    lease_held: bool | None
    reconciled: bool | None
    objections: tuple[str, ...] | None
    candle_overdue_seconds: float | None
    account_age_seconds: float | None
    circuits_open: int | None
    errors: ErrorCounts | None
    loop_lag_seconds: float | None
    bus_late: bool | None
    disk_free_bytes: float | None
    memory_free_bytes: float | None


@dataclass(frozen=True, slots=True)
class Bounds:
    """What is still nothing, what is only noticed, and what is minor trouble; what lies beyond all is major."""

    noticed: float
    minor: float
    major: float

    def level(self, amount: float) -> HealthLevel:
        """Return the level of an amount of which more is worse."""
        if amount > self.major:
            return HealthLevel.CRITICAL
        if amount > self.minor:
            return HealthLevel.DEGRADED
        return HealthLevel.HEALTHY if amount > self.noticed else HealthLevel.OPTIMAL

    @property
    def worst(self) -> HealthLevel:
        """The level that no amount exceeds."""
        return self.level(_NEVER)


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthBounds:
    """
    The bounds of every amount; those of disk and memory are what has to be free, as negative amounts.

    The account's age, circuits and a disk that is late are minor at most: they hold entries back by themselves, and
    end by themselves. Less free than the last bound, and the next entry of the journal may be the one that fails.
    """

    unsynced_seconds: Bounds
    candle_overdue_seconds: Bounds
    account_age_seconds: Bounds = Bounds(45, ACCOUNT_SECONDS, _NEVER)
    circuits_open: Bounds = Bounds(0, 0, _NEVER)
    errors_in_row: Bounds
    error_share: Bounds
    loop_lag_seconds: Bounds = Bounds(0.25, 2, 15)
    disk_free_bytes: Bounds = Bounds(-5 * _GIB, -1 * _GIB, -64 * _MIB)
    memory_free_bytes: Bounds = Bounds(-1 * _GIB, -256 * _MIB, -64 * _MIB)


def bounds_of(policy: Policy, timeframe_seconds: float) -> HealthBounds:
    """Return the bounds under a policy: what sets off the emergency stop is major, and half of it is minor."""
    feed, share = float(policy.emergency_feed_seconds), float(policy.emergency_error_share)
    in_row = float(policy.emergency_errors)
    # Each decided candle ends with a sync; notes between two candles may wait for the next.
    late = timeframe_seconds + 60
    return HealthBounds(
        unsynced_seconds=Bounds(late, late, _NEVER),
        candle_overdue_seconds=Bounds(min(10, feed), min(60, feed), feed),
        errors_in_row=Bounds(0, in_row / 2, in_row),
        error_share=Bounds(0, share / 2, share),
    )


@dataclass(frozen=True, slots=True)
class HealthFinding:
    """What one part shows: its level, and why in words."""

    part: Part
    level: HealthLevel
    reason: str


@dataclass(frozen=True, slots=True)
class Health:
    """What was found of the parts that are not at their best, the worst first."""

    findings: tuple[HealthFinding, ...]

    @property
    def level(self) -> HealthLevel:
        """The level of the worst part; optimal where nothing was found."""
        return self.level_without(())

    @property
    def reasons(self) -> tuple[str, ...]:
        """Every finding in words."""
        return tuple(f"{one.part.value}: {one.reason}" for one in self.findings)

    def level_without(self, parts: Collection[Part]) -> HealthLevel:
        """Return the level of the worst of the other parts."""
        levels = (one.level for one in self.findings if one.part not in parts)
        return max(levels, key=severity, default=HealthLevel.OPTIMAL)


def severity(level: HealthLevel) -> int:
    """Return how bad a level is: more is worse."""
    return _ORDER.index(level)


def evaluate_health(inputs: HealthInputs, bounds: HealthBounds) -> Health:
    """
    Judge every part by itself.

    A missing input, or one that is no number, is as bad as that part can ever be: never better than an old one.
    """
    in_row, share = (None, None) if inputs.errors is None else (inputs.errors.in_row, inputs.errors.share)
    objections = None if inputs.objections is None else "; ".join(inputs.objections)
    unwritten = _words("it cannot be written", inputs.journal_failed, of=True)
    unheld = _words("it was not renewed in time", inputs.lease_held, of=False)
    apart = _words("journal and venue do not agree yet", inputs.reconciled, of=False)
    late = _words("it does not take what is journaled", inputs.bus_late, of=True)
    found = (
        _said(Part.JOURNAL, unwritten, HealthLevel.EMERGENCY),
        _said(Part.WORK, inputs.work_failed, HealthLevel.CRITICAL),
        _said(Part.LEASE, unheld, HealthLevel.DEGRADED),
        _said(Part.RECONCILE, apart, HealthLevel.DEGRADED),
        _said(Part.OBJECTIONS, objections, HealthLevel.DEGRADED),
        _said(Part.BUS, late, HealthLevel.DEGRADED),
        _measured(Part.SYNC, inputs.unsynced_seconds, bounds.unsynced_seconds, "an entry waited {:.0f} s for it"),
        _measured(Part.CANDLES, inputs.candle_overdue_seconds, bounds.candle_overdue_seconds, "overdue for {:.0f} s"),
        _measured(Part.ACCOUNT, inputs.account_age_seconds, bounds.account_age_seconds, "last heard {:.0f} s ago"),
        _measured(Part.CIRCUITS, inputs.circuits_open, bounds.circuits_open, "{:.0f} endpoints fail"),
        _measured(Part.ERRORS, in_row, bounds.errors_in_row, "{:.0f} orders refused in a row"),
        _measured(Part.ERRORS, share, bounds.error_share, "{:.0%} of orders failed"),
        _measured(Part.LOOP, inputs.loop_lag_seconds, bounds.loop_lag_seconds, "{:.1f} s late"),
        _free(Part.DISK, inputs.disk_free_bytes, bounds.disk_free_bytes),
        _free(Part.MEMORY, inputs.memory_free_bytes, bounds.memory_free_bytes),
    )
    worse = [one for one in found if one.level is not HealthLevel.OPTIMAL]
    return Health(tuple(sorted(worse, key=lambda one: -severity(one.level))))


def _words(trouble: str, state: bool | None, *, of: bool) -> str | None:  # noqa: FBT001 - a state, not a switch
    if state is None:
        return None
    return trouble if state is of else ""


def _said(part: Part, trouble: str | None, level: HealthLevel) -> HealthFinding:
    if trouble is None:
        return HealthFinding(part, level, "not known")
    return HealthFinding(part, level if trouble else HealthLevel.OPTIMAL, trouble[:300])


def _measured(part: Part, amount: float | None, bounds: Bounds, words: str) -> HealthFinding:
    if amount is None or math.isnan(amount):
        return HealthFinding(part, bounds.worst, "not known")
    return HealthFinding(part, bounds.level(amount), words.format(amount))


def _free(part: Part, free: float | None, bounds: Bounds) -> HealthFinding:
    amount = None if free is None else -free
    if amount is None or math.isnan(amount):
        return HealthFinding(part, bounds.worst, "not known")
    return HealthFinding(part, bounds.level(amount), f"{-amount / _MIB:.0f} MB free")
