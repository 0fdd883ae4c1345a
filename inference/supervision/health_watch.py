"""The worker's health as it goes: measured at every look, and told when its level changes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import psutil

from inference.domain.decision import TradingState
from inference.domain.health import HealthLevel
from inference.domain.policy import Policy
from inference.execution.executor import Executor
from inference.journal.writer import JournalWriter
from inference.risk.errors import ErrorCounts
from inference.supervision.emergency_watch import OBJECTION
from inference.supervision.health_evaluator import (
    OF_THE_STOP,
    Health,
    HealthInputs,
    bounds_of,
    evaluate_health,
    severity,
)
from inference.supervision.standing import Standing
from inference.supervision.status import HealthStatus

LEVEL_CHANGED = "health.level_changed"
_JOURNAL = "journal"
# Objections that another input tells of, and sooner.
_TOLD_ELSEWHERE = frozenset({OBJECTION, _JOURNAL, "reconcile", "lease"})
_MACHINE_SECONDS = 1.0
# A level that comes and goes is told once: what is grave at once, what is worse soon, what is better once it lasts.
_WORSE_SECONDS, _BETTER_SECONDS = 5.0, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthParts:
    """What the watch reads of a worker; each callable answers at once, with None where it does not know."""

    standing: Standing
    executor: Executor
    journal: JournalWriter
    policy: Callable[[], Policy]
    timeframe_seconds: float
    lease_held: Callable[[], bool | None]
    candle_overdue_seconds: Callable[[], float | None]
    account_age_seconds: Callable[[], float | None]
    circuits_open: Callable[[], int | None]
    errors: Callable[[], ErrorCounts | None]
    loop_lag_seconds: Callable[[], float | None]
    bus_late: Callable[[], bool | None]
    free: Callable[[], tuple[float | None, float | None]]
    note: Callable[[str, Mapping[str, str]], None]
    monotonic: Callable[[], float]


class HealthWatch:
    """Looks when asked: the emergency stop does so several times a second."""

    def __init__(self, parts: HealthParts) -> None:
        self._parts = parts
        self._health: Health | None = None
        self._told: HealthLevel | None = None
        self._told_at = 0.0
        self._other_since: float | None = None
        self._durable_seq = -1
        self._waiting_since = 0.0
        self._free: tuple[float | None, float | None] = (None, None)
        self._free_at: float | None = None

    def look(self) -> HealthLevel:
        """Judge health anew, tell a level that changed, and return what counts for the emergency stop."""
        parts, now = self._parts, self._parts.monotonic()
        bounds = bounds_of(parts.policy(), parts.timeframe_seconds)
        self._health = health = evaluate_health(self._inputs(now), bounds)
        self._tell(health, now)
        return health.level_without(OF_THE_STOP)

    @property
    def status(self) -> HealthStatus | None:
        """What the status shows: the level of the last look, and why; None before the first."""
        if self._health is None:
            return None
        since = self._parts.monotonic() - self._told_at if self._told is not None else 0.0
        return HealthStatus(level=self._health.level.value, reasons=self._health.reasons, seconds=round(since, 1))

    def _inputs(self, now: float) -> HealthInputs:
        parts = self._parts
        if self._free_at is None or now - self._free_at >= _MACHINE_SECONDS:
            self._free, self._free_at = parts.free(), now
        disk, memory = self._free
        objections = parts.standing.objections
        failed = work_failed(parts.standing, parts.executor)
        return HealthInputs(
            journal_failed=_JOURNAL in objections or parts.journal.is_broken,
            unsynced_seconds=self._unsynced_for(now),
            work_failed=failed,
            lease_held=parts.lease_held(),
            reconciled=parts.executor.is_reconciled,
            objections=tuple(
                reason
                for name, (state, reason) in sorted(objections.items())
                if name not in _TOLD_ELSEWHERE and not (failed and state is TradingState.HALTED)
            ),
            candle_overdue_seconds=parts.candle_overdue_seconds(),
            account_age_seconds=parts.account_age_seconds(),
            circuits_open=parts.circuits_open(),
            errors=parts.errors(),
            loop_lag_seconds=parts.loop_lag_seconds(),
            bus_late=parts.bus_late(),
            disk_free_bytes=disk,
            memory_free_bytes=memory,
        )

    def _unsynced_for(self, now: float) -> float:
        journal = self._parts.journal
        durable = journal.seq - journal.unsynced
        if journal.unsynced == 0 or durable != self._durable_seq:
            self._durable_seq, self._waiting_since = durable, now
        return now - self._waiting_since

    def _tell(self, health: Health, now: float) -> None:
        level, told = health.level, self._told
        if level is told:
            self._other_since = None
            return
        if self._other_since is None:
            self._other_since = now
        is_worse = told is None or severity(level) > severity(told)
        wait = _WORSE_SECONDS if is_worse else _BETTER_SECONDS
        if is_worse and severity(level) >= severity(HealthLevel.CRITICAL):
            wait = 0.0
        if now - self._other_since < wait:
            return
        self._told, self._told_at, self._other_since = level, now, None
        detail = {"level": level.value, "reasons": "; ".join(health.reasons)[:500]}
        self._parts.note(LEVEL_CHANGED, detail if told is None else detail | {"before": told.value})


def work_failed(standing: Standing, executor: Executor) -> str:
    """
    Return which work failed until the next start, empty where none did.

    The emergency stop is no illness: otherwise it would set itself off again after each reset. What asks a person to
    look at the account is minor: it holds entries back by itself.
    """
    if executor.failure is not None:
        return f"execution failed: {executor.failure}"
    if executor.unexplained:
        return ""
    halted = (
        reason
        for name, (state, reason) in sorted(standing.objections.items())
        if state is TradingState.HALTED and name not in (OBJECTION, _JOURNAL)
    )
    return "; ".join(halted)


def free_of(*folders: Path) -> tuple[float | None, float | None]:
    """
    Return how many bytes are free on the fullest disk of some folders and of the machine's memory.

    None for what cannot be read: of one disk that cannot, nothing is known of how full the fullest is.
    """
    disk: float | None
    memory: float | None
    try:
        disk = float(min(shutil.disk_usage(folder).free for folder in folders))
    except OSError:
        disk = None
    try:
        memory = float(psutil.virtual_memory().available)
    except (OSError, psutil.Error):
        memory = None
    return disk, memory
