"""The worker's state as the status file shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping

import psutil

from inference.domain.decision import TradingState
from inference.execution.executor import Executor
from inference.feed.candle_feed import CandleFeed
from inference.settings import Settings
from inference.supervision.status import ModelStatus, PositionStatus, SignalStatus, Status
from inference.worker import Worker

_SIGNALS_SHOWN = 50


def bare_status(settings: Settings, *, state: str, reason: str, updated_at: str) -> Status:
    """Return the status of a worker that has no parts yet, or none any more."""
    return Status(
        state=state,
        reason=reason,
        trading_state=TradingState.HALTED.value,
        pid=os.getpid(),
        mode=settings.mode.value,
        venue=settings.venue,
        updated_at=updated_at,
    )


def live_status(
    settings: Settings,
    worker: Worker,
    feed: CandleFeed,
    *,
    model: ModelStatus | None,
    journal_entries: int,
    clock_rate: float,
    cold_start_s: float | None,
    updated_at: str,
    stopped: bool = False,
) -> Status:
    """Return the status of a worker that runs."""
    state, reason = ("stopped", "stopped on request") if stopped else _state(worker)
    counters = worker.counters
    book = worker.executor.book
    return Status(
        state=state,
        reason=reason,
        trading_state=worker.standing.trading_state.value,
        pid=os.getpid(),
        mode=settings.mode.value,
        venue=settings.venue,
        updated_at=updated_at,
        venue_time_ms=worker.now_ms,
        clock_rate=round(clock_rate, 3),
        model=model,
        symbols=len(worker.plan.symbols),
        equity=None if worker.account is None else str(worker.account.equity),
        positions=_positions(worker.executor),
        last_signals=_signals(worker),
        refusals=dict(counters.refusals),
        orders=_orders(worker.executor, counters.orders),
        closed_trades=book.closed_count,
        realized_pnl=str(book.realized_pnl),
        fees=str(book.fees),
        candles_processed=counters.candles,
        batches_processed=counters.batches,
        decision_latency_ms={"p50": worker.latencies.percentile(0.5), "p99": worker.latencies.percentile(0.99)},
        cold_start_s=cold_start_s,
        rss_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
        journal_entries=journal_entries,
        feed={
            "streamed": feed.candles_streamed,
            "by_rest": feed.candles_by_rest,
            "reconnects": feed.reconnects,
            "silence_seconds": round(feed.silence_seconds, 2),
        },
    )


def _state(worker: Worker) -> tuple[str, str]:
    standing = worker.standing
    if standing.trading_state is TradingState.HALTED:
        return "halted", standing.reason
    if worker.model is None:
        return "idle", worker.models.reason
    name = f"model {worker.model.version} ({worker.model.label})"
    if standing.trading_state is TradingState.REDUCING:
        return "trading", f"{name}; no new entries: {standing.reason}"
    return "trading", name


def _positions(executor: Executor) -> tuple[PositionStatus, ...]:
    return tuple(
        PositionStatus(
            symbol=one.symbol,
            direction=one.direction.value,
            quantity=str(one.quantity),
            entry_price=f"{one.entry_price:.8f}",
            notional=f"{one.notional:.2f}",
            entry_time_ms=one.entry_time_ms,
            trade_id=one.trade_id,
        )
        for one in executor.book.positions().values()
    )


def _signals(worker: Worker) -> tuple[SignalStatus, ...]:
    newest = sorted(worker.counters.last_signals.values(), key=lambda one: -one[0].confidence)
    return tuple(
        SignalStatus(
            symbol=signal.symbol,
            direction=signal.direction.value,
            confidence=round(signal.confidence, 4),
            expected_return=round(signal.expected_return, 6),
            consensus=signal.consensus,
            outcome=outcome,
            candle_close_ms=signal.feature_time_ms,
        )
        for signal, outcome in newest[:_SIGNALS_SHOWN]
    )


def _orders(executor: Executor, counted: Mapping[str, int]) -> dict[str, int]:
    statuses = dict(counted)
    for trade in executor.book.active():
        for order in trade.orders.values():
            key = order.status.value.lower()
            statuses[key] = statuses.get(key, 0) + 1
    return statuses
