"""The worker's state as the status file shows it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import AsyncExitStack
from decimal import Decimal

import psutil
from msgspec import UNSET, structs

from feature_store.clock import utc_now
from inference.domain.decision import TradingState
from inference.domain.fallback import Fallback
from inference.execution.executor import Executor
from inference.feed.market_data import MarketData
from inference.settings import Settings, ShadowPlace
from inference.supervision.member_counts import MemberCounts
from inference.supervision.metrics import MetricsPage
from inference.supervision.model_supervisor import ModelSupervisor
from inference.supervision.quality_evidence import LIMIT
from inference.supervision.status import (
    BiasStatus,
    BusStatus,
    HealthStatus,
    HoldStatus,
    MemberStatus,
    ModelStatus,
    PolicyStatus,
    PositionStatus,
    QualityStatus,
    RiskStatus,
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
        self._latest: Status | None = None
        self._metrics: str | None = None

    def serve(self, stack: AsyncExitStack) -> None:
        """
        Serve the newest status to Prometheus where QT_METRICS_PORT asks for it.

        Where nothing can listen there, that is logged, and the worker goes on: who watches must not keep it from work.
        """
        port, address = self._settings.metrics_port, self._settings.metrics_address
        if port is None:
            return
        try:
            page = MetricsPage(address, port, lambda: self._latest)
        except OSError as error:
            _log.warning("metrics_not_served", address=address, port=port, error=str(error))
            return
        stack.callback(page.close)
        self._metrics = f"http://{address}:{page.port}/metrics"
        _log.info("metrics_served", url=self._metrics)

    def say(self, state: str, reason: str, *, risk: RiskStatus | None = None) -> None:
        """Write the status of a worker that has no parts yet, or none any more; `risk` where it guards what is open."""
        status = bare_status(self._settings, state=state, reason=reason, updated_at=_now("milliseconds"))
        self._write(structs.replace(status, risk=risk))

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
        bus: BusStatus | None = None,
        risk: RiskStatus | None = None,
        health: HealthStatus | None = None,
        order_latency_ms: Mapping[str, float | None] | None = None,
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
            bus=bus,
            risk=risk,
            health=health,
            order_latency_ms=order_latency_ms,
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
        self._latest = structs.replace(status, metrics=self._metrics)
        try:
            write_status(self._settings.status_file, self._latest)
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
    bus: BusStatus | None = None,
    risk: RiskStatus | None = None,
    health: HealthStatus | None = None,
    order_latency_ms: Mapping[str, float | None] | None = None,
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
        decision_latency_ms=worker.latencies.figures(),
        order_latency_ms=order_latency_ms or {},
        cold_start_s=cold_start_s,
        rss_mb=round(psutil.Process().memory_info().rss / 2**20, 1),
        journal_entries=journal_entries,
        transport=transport or {},
        feed=market.figures(),
        shadow=_shadow(settings, worker),
        bias=bias_status(worker.supervisor),
        quality=quality_status(worker.supervisor, worker.fallback.done),
        policy=policy_status(worker),
        holds=() if stopped else hold_statuses(worker.executor),
        members=member_status(worker.members),
        bus=bus,
        risk=risk,
        health=health,
    )


def hold_statuses(executor: Executor) -> tuple[HoldStatus, ...]:
    """Return what the venue said that holds entries back."""
    return tuple(
        HoldStatus(what=hold.what, because=hold.because, seconds_left=round(left, 1))
        for hold, left in executor.entries_held.items()
    )


def policy_status(worker: Worker) -> PolicyStatus:
    """Return which policy is in force, and what is wrong with its store."""
    version, fault = worker.policies.version, worker.policies.fault
    _, fingerprint = worker.policies.stamp
    return PolicyStatus(
        version=None if version is None else version.number,
        fingerprint=worker.plan.policy.fingerprint if fingerprint is UNSET else fingerprint,
        author="" if version is None else version.author,
        reason="" if version is None else version.reason,
        fault=None if fault is None else fault.fault.value,
        found="" if fault is None else str(fault)[:300],
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


def quality_status(supervisor: ModelSupervisor, done: Fallback = Fallback.NONE) -> QualityStatus | None:
    """Return how good the model's opinions were and what is done about it, or None before any has matured."""
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
        fallback=done.value,
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
            candles=one.candles,
            latency_ms=one.latencies.figures(),
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
