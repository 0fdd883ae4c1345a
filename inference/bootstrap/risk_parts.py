"""The parts of risk put together: what hears execution, what watches for emergencies, and what the status shows."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from pathlib import Path

from feature_store.clock import utc_now
from inference.bootstrap.past import Past
from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.supervision.account_marks import account_of
from inference.supervision.emergency_latch import Latch
from inference.supervision.emergency_watch import EmergencyParts, EmergencyWatch
from inference.supervision.risk_watch import Closes, RiskWatch
from inference.supervision.status import RiskStatus, StopStatus
from inference.worker import Worker


def make_risk(
    past: Past,
    *,
    policy: Callable[[], Policy],
    timeframe_ms: int,
    closes: Callable[[], Closes],
    note: Callable[[str, Mapping[str, str]], None],
    monotonic: Callable[[], float],
) -> RiskWatch:
    """Return what counts and correlates, its breaker as the journal left it."""
    breaker = past.breaker(policy())

    return RiskWatch(
        policy=policy, timeframe_ms=timeframe_ms, closes=closes, note=note, monotonic=monotonic, breaker=breaker
    )


def make_emergency(
    worker: Worker,
    risk: RiskWatch,
    past: Past,
    *,
    home: Path,
    equity: Callable[[], Awaitable[Decimal]],
    quotes: Callable[[], Awaitable[Mapping[str, Quote]]],
    traded: Callable[[str], Decimal | None],
    health: Callable[[], HealthLevel | None],
    monotonic: Callable[[], float],
) -> EmergencyWatch:
    """Return the emergency stop of a worker, latched as its home and its journal say; decisions are told of it."""
    executor, standing = worker.executor, worker.standing
    watch = EmergencyWatch(
        Latch(home),
        past.emergency,
        EmergencyParts(
            executor=executor,
            standing=standing,
            policy=lambda: worker.plan.policy,
            equity=equity,
            marks=worker.answers.seen,
            rebase=worker.answers.rebase,
            quotes=quotes,
            traded=traded,
            health=health,
            errors=risk.errors,
            forget_errors=risk.forget_errors,
            next_close_ms=lambda: worker.next_close_ms,
            record=lambda event: worker.note(event.event_type, event.detail),
            now_ms=lambda: worker.now_ms,
            monotonic=monotonic,
            wall=lambda: utc_now().isoformat(timespec="milliseconds"),
        ),
    )
    risk.emergency = lambda: watch.reason
    risk.withheld = lambda: watch.withheld
    watch.begin()

    return watch


def risk_status(worker: Worker, watch: EmergencyWatch | None) -> RiskStatus | None:
    """Return what the status shows of risk; None for a worker that has no such parts."""
    risk = worker.risk
    if risk is None or watch is None:
        return None
    account = None if worker.account is None else account_of(worker.account)
    book = worker.executor.book
    positions = book.positions()
    weekly = None if account is None else account.weekly_drawdown
    pnl = {} if account is None else {"daily_pnl": f"{account.equity - account.day_start_equity:f}"}
    if account is not None and isinstance(account.week_start_equity, Decimal):
        pnl["weekly_pnl"] = f"{account.equity - account.week_start_equity:f}"
    breaker, record = risk.breaker, watch.record

    return RiskStatus(
        emergency_brake_active=bool(watch.reason),
        stops=tuple(
            StopStatus(
                key=one.key,
                evaluator=one.evaluator.value,
                reason=one.reason,
                at=one.at,
                by=one.by,
                done=one.key in record.confirmed,
            )
            for one in record.standing.values()
        ),
        missing=watch.withheld,
        breaker=breaker.state.value,
        breaker_reason=breaker.reason,
        breaker_until_ms=breaker.until_ms,
        daily_drawdown=None if account is None else round(float(account.daily_drawdown), 6),
        weekly_drawdown=None if weekly is None else round(float(weekly), 6),
        max_drawdown=None if account is None else round(float(account.peak_drawdown), 6),
        open_positions=len(positions),
        total_exposure=f"{sum((one.notional for one in positions.values()), Decimal(0)):.2f}",
        heat=f"{sum(book.heat().values(), Decimal(0)):.2f}",
        clusters=len(set(risk.co_movement.clusters.values())),
        orders_refused_in_row=risk.errors().in_row,
        **pnl,
    )
