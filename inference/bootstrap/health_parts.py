"""The health of a worker put together: where each input of the evaluator comes from."""

from __future__ import annotations

from pathlib import Path

from feature_store.clock import monotonic
from inference.bootstrap.account_lease import AccountLease
from inference.bootstrap.event_bus import Events
from inference.exchange.transport import Transport
from inference.journal.writer import JournalWriter
from inference.supervision.emergency_watch import EmergencyWatch
from inference.supervision.health_watch import HealthParts, HealthWatch, free_of
from inference.supervision.loop_lag import LoopLag
from inference.supervision.risk_watch import RiskWatch
from inference.worker import Worker


def make_health(
    worker: Worker,
    risk: RiskWatch,
    emergency: EmergencyWatch,
    *,
    home: Path,
    journal: JournalWriter,
    lease: AccountLease,
    events: Events,
    transport: Transport,
    lag: LoopLag,
) -> HealthWatch:
    """Return the watch over a worker's health; nothing is looked at yet."""
    return HealthWatch(
        HealthParts(
            standing=worker.standing,
            executor=worker.executor,
            journal=journal,
            policy=lambda: worker.plan.policy,
            timeframe_seconds=worker.plan.timeframe.milliseconds / 1000,
            lease_held=lambda: lease.is_held,
            candle_overdue_seconds=lambda: emergency.feed_overdue_seconds,
            account_age_seconds=lambda: emergency.account_age_seconds,
            circuits_open=lambda: int(transport.figures()["circuits_open"]),
            errors=risk.errors,
            loop_lag_seconds=lambda: lag.seconds,
            bus_late=lambda: events.is_late,
            free=lambda: free_of(home, journal.path.parent),
            note=worker.note,
            monotonic=monotonic,
        )
    )
