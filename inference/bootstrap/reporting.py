"""The worker's state as the status file shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from decimal import Decimal

import psutil

from feature_store.clock import utc_now
from inference.domain.decision import TradingState
from inference.execution.executor import Executor
from inference.feed.market_data import MarketData
from inference.settings import Settings, ShadowPlace
from inference.supervision.member_counts import MemberCounts
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.quality_evidence import LIMIT
from inference.supervision.status import (
    BiasStatus,
    HoldStatus,
    MemberStatus,
    ModelStatus,
    PositionStatus,
    QualityStatus,
    ShadowStatus,
    SignalStatus,
    Status,
    write_status,
)
from inference.telemetry.logs import logger
from inference.worker import Worker

_log = logger("bootstrap")

_SIGNALS_SHOWN = 50


class StatusFile:
    """Writes what the worker does now for whoever watches; a full disk keeps it from nothing else."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._model_seen: tuple[str, ModelStatus] | None = None

    def say(self, state: str, reason: str) -> None:
        """Write the status of a worker that has no parts yet, or none any more."""
        self._write(bare_status(self._settings, state=state, reason=reason, updated_at=_now("milliseconds")))

    def show(
        self,
        worker: Worker,
        market: MarketData,
        *,
        journal_entries: int,
        clock_rate: float,
        cold_start_s: float | None,
        stopped: bool,
        transport: Mapping[str, float],
        funding: Decimal,
    ) -> None:
        """Write the status of a worker that runs."""
        status = live_status(
            self._settings,
            worker,
            market,
            model=self._model(worker),
            journal_entries=journal_entries,
            clock_rate=clock_rate,
            cold_start_s=cold_start_s,
            updated_at=_now("milliseconds"),
            stopped=stopped,
            transport=transport,
            funding=funding,
        )
        self._write(status)

    def _model(self, worker: Worker) -> ModelStatus | None:
        model = worker.model
        if model is None:
            return None
        key = model.bundle.digest + model.version
        if self._model_seen is None or self._model_seen[0] != key:
            shown = ModelStatus(
                version=model.version,
                digest=model.bundle.digest,
                gated=model.gated,
                source=model.source,
                loaded_at=_now("seconds"),
            )
            self._model_seen = (key, shown)
        return self._model_seen[1]

    def _write(self, status: Status) -> None:
        try:
            write_status(self._settings.status_file, status)
        except OSError as error:
            _log.warning("status_not_written", error=str(error))


def _now(timespec: str) -> str:
    return utc_now().isoformat(timespec=timespec)


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
    market: MarketData,
    *,
    model: ModelStatus | None,
    journal_entries: int,
    clock_rate: float,
    cold_start_s: float | None,
    updated_at: str,
    stopped: bool = False,
    transport: Mapping[str, float] | None = None,
    funding: Decimal = Decimal(0),
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
        refusals=dict(counters.refusals + worker.executor.door.denied),
        orders=_orders(worker.executor, counters.orders),
        closed_trades=book.closed_count,
        realized_pnl=str(book.realized_pnl),
        fees=str(book.fees),
        funding=f"{funding:f}",
        candles_processed=counters.candles,
        batches_processed=counters.batches,
        decision_latency_ms={"p50": worker.latencies.percentile(0.5), "p99": worker.latencies.percentile(0.99)},
        cold_start_s=cold_start_s,
        rss_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
        journal_entries=journal_entries,
        transport=transport or {},
        feed=market.figures(),
        shadow=_shadow(settings, worker),
        bias=bias_status(worker.supervisor),
        quality=quality_status(worker.supervisor),
        holds=() if stopped else hold_statuses(worker.executor),
        members=member_status(worker.members),
    )


def hold_statuses(executor: Executor) -> tuple[HoldStatus, ...]:
    """Return what the venue said that holds entries back."""
    return tuple(
        HoldStatus(what=hold.what, because=hold.because, seconds_left=round(left, 1))
        for hold, left in executor.entries_held.items()
    )


def bias_status(supervisor: ModelSupervisor) -> BiasStatus:
    """Return what the supervisor sees of the signals' sides."""
    rules, bias = supervisor.rules, supervisor.bias
    if bias is None:
        return BiasStatus(mode=rules.mode.value, window=rules.window)
    return BiasStatus(
        mode=rules.mode.value,
        window=rules.window,
        found=bias.is_bias,
        side=bias.side.value,
        share=round(bias.share, 4),
        usual=round(bias.usual, 4),
        limit=round(bias.limit, 4),
        candles=bias.candles,
    )


def quality_status(supervisor: ModelSupervisor) -> QualityStatus | None:
    """Return how good the model's opinions were, or None before any has matured."""
    found, shown = supervisor.quality, supervisor.evidence
    if found is None or shown is None:
        return None
    return QualityStatus(
        right=round(found.right, 4),
        stated=round(found.stated, 4),
        brier=round(found.brier, 4),
        candles=found.candles,
        outcomes=shown.outcomes,
        evidence=round(shown.evidence, 3),
        limit=LIMIT,
        poor_by=None if shown.poor_by is None else shown.poor_by.value,
    )


def member_status(members: MemberCounts) -> dict[str, MemberStatus]:
    """Return what each member answered since the start, by its name."""
    return {
        name: MemberStatus(
            predictions=one.predictions,
            not_finite=one.not_finite,
            voted=one.voted,
            agreed=one.agreed,
            seconds=round(one.seconds, 6),
            latency_ms={"p50": one.latencies.percentile(0.5), "p99": one.latencies.percentile(0.99)},
        )
        for name, one in members.by_name.items()
    }


def _shadow(settings: Settings, worker: Worker) -> ShadowStatus | None:
    if worker.shadow is not None:
        return worker.shadow.status
    place = settings.shadow_place
    reason = "QT_SHADOW=off" if place is ShadowPlace.OFF else "scored by `qtctl worker --shadow`, if that runs"
    if place is ShadowPlace.INSIDE:
        reason = "there is no registry to follow: QT_MLFLOW_URL is not set, or a bundle was named"
    return ShadowStatus(place=place.value, state="waiting", reason=reason)


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
