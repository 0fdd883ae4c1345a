"""The worker's status as Prometheus reads it: names, labels and units, and a page that serves them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import fmean

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, SummaryMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from inference.domain.health import HealthLevel
from inference.domain.risk import BreakerState
from inference.supervision.status import RiskStatus, Status

_QUANTILES = {"p50": "0.5", "p99": "0.99"}
_STATES = ("starting", "idle", "trading", "halted", "stopped")
_BREAKER_STATES = tuple(one.value for one in BreakerState)
_TRADING_STATES = ("ACTIVE", "REDUCING", "HALTED")


class StatusCollector(Collector):
    """What a scrape reads: the newest status that the worker has said of itself, or nothing before the first."""

    def __init__(self, latest: Callable[[], Status | None]) -> None:
        self._latest = latest

    def collect(self) -> Iterator[Metric]:
        """Return the metrics of the newest status."""
        status = self._latest()
        return iter(()) if status is None else metrics_of(status)


class MetricsPage:
    """
    Serves `/metrics` from a thread of its own until it is closed; a scrape never waits for the worker.

    Raises:
        OSError: Nothing can listen at that address and port.
    """

    def __init__(self, address: str, port: int, latest: Callable[[], Status | None]) -> None:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(StatusCollector(latest))
        self._server, self._thread = start_http_server(port, address, registry)

    @property
    def port(self) -> int:
        """The port that is listened at, which the system chose where 0 was asked for."""
        return int(self._server.server_port)

    def close(self) -> None:
        """Stop to serve."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def metrics_of(status: Status) -> Iterator[Metric]:
    """
    Return a status as metric families.

    Counters count since the worker's start; money is quote currency, times are seconds, sizes bytes. A latency's
    quantiles are of its newest answers, its sum and count of all since the start.
    """
    yield _one_of("qt_worker_state", "What the worker does.", "state", status.state, _STATES)
    yield _one_of("qt_trading_state", "What it may do.", "state", status.trading_state, _TRADING_STATES)
    if status.health is not None:
        levels = tuple(one.value for one in HealthLevel)
        yield _one_of("qt_health_level", "How well it is.", "level", status.health.level, levels)
    if status.risk is not None:
        yield from _risk(status.risk)
    yield from _models(status)
    yield from _trading(status)
    if status.rss_mb is not None:
        yield GaugeMetricFamily("qt_memory_usage_bytes", "Resident memory of the worker.", status.rss_mb * 2**20)
    yield CounterMetricFamily("qt_journal_entries", "Entries of the journal.", status.journal_entries)
    for name, figures in (("feed", status.feed), ("transport", status.transport)):
        family = GaugeMetricFamily(f"qt_{name}", f"Figures of the status file's `{name}`.", labels=["figure"])
        for figure, value in sorted(figures.items()):
            family.add_metric([figure], value)
        yield family


def _risk(risk: RiskStatus) -> Iterator[Metric]:
    active = float(risk.emergency_brake_active)
    yield GaugeMetricFamily("qt_emergency_brake", "1 while the emergency stop is latched, else 0.", active)
    yield _one_of("qt_breaker_state", "The trading circuit breaker.", "state", risk.breaker, _BREAKER_STATES)
    drawdown = GaugeMetricFamily("qt_drawdown_pct", "Loss since a mark, in percent of it.", labels=["period"])
    falls = (("daily", risk.daily_drawdown), ("weekly", risk.weekly_drawdown), ("peak", risk.max_drawdown))
    for period, fall in falls:
        # What is not known is no line: a zero would be a drawdown.
        if fall is not None:
            drawdown.add_metric([period], 100 * fall)
    yield drawdown


def _models(status: Status) -> Iterator[Metric]:
    predictions = CounterMetricFamily("qt_model_predictions", "Finite answers of a member.", labels=["model"])
    not_finite = CounterMetricFamily("qt_model_not_finite", "Answers that are no number.", labels=["model"])
    agreed = CounterMetricFamily("qt_model_agreed", "Answers on the ensemble's side.", labels=["model"])
    latency = SummaryMetricFamily("qt_model_latency_seconds", "Time for one candle's answers.", labels=["model"])
    for name, one in sorted(status.members.items()):
        predictions.add_metric([name], one.predictions)
        not_finite.add_metric([name], one.not_finite)
        agreed.add_metric([name], one.agreed)
        latency.add_metric([name], count_value=one.candles, sum_value=one.seconds)
        for key, milliseconds in one.latency_ms.items():
            if milliseconds is not None:
                latency.add_sample(latency.name, {"model": name, "quantile": _QUANTILES[key]}, milliseconds / 1000)
    yield from (predictions, not_finite, agreed, latency)
    confidence = GaugeMetricFamily("qt_signal_confidence", "Mean of the newest signals.", labels=["direction"])
    for direction in sorted({one.direction for one in status.last_signals}):
        values = [one.confidence for one in status.last_signals if one.direction == direction]
        confidence.add_metric([direction], fmean(values))
    yield confidence
    if status.model is not None:
        info = GaugeMetricFamily("qt_model_info", "The model that trades.", labels=["version", "digest", "gated"])
        info.add_metric([status.model.version, status.model.digest, str(status.model.gated).lower()], 1)
        yield info


def _trading(status: Status) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "qt_candles", "Closed candles taken through the decision chain.", status.candles_processed
    )
    yield _labelled("qt_refusals", "Entries that were refused.", "code", status.refusals.items())
    yield _labelled("qt_orders", "Orders by what became of them.", "state", status.orders.items())
    yield CounterMetricFamily("qt_trades_closed", "Trades that have ended.", status.closed_trades)
    positions = GaugeMetricFamily("qt_positions_count", "Positions that are open.", labels=["status"])
    positions.add_metric(["open"], len(status.positions))
    yield positions
    money = GaugeMetricFamily("qt_pnl", "Result of closed trades, fees paid, funding received.", labels=["what"])
    for what, text in (("realized", status.realized_pnl), ("fees", status.fees), ("funding", status.funding)):
        money.add_metric([what], float(text))
    yield money
    if status.equity is not None:
        equity = float(status.equity)
        yield GaugeMetricFamily("qt_equity", "Equity of the account.", equity)
        if equity > 0:
            notional = sum(float(one.notional) for one in status.positions)
            yield GaugeMetricFamily(
                "qt_exposure_pct", "Notional of open positions, in percent of equity.", 100 * notional / equity
            )
    yield _quantiles("qt_decision_latency_seconds", "From a candle to decisions.", status.decision_latency_ms)
    yield _quantiles("qt_order_latency_seconds", "From sending an order to the venue's yes.", status.order_latency_ms)


def _quantiles(name: str, documentation: str, latency_ms: Mapping[str, float | None]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=["quantile"])
    for key, milliseconds in latency_ms.items():
        if milliseconds is not None:
            family.add_metric([_QUANTILES[key]], milliseconds / 1000)
    return family


def _labelled(name: str, documentation: str, label: str, counts: Iterable[tuple[str, int]]) -> Metric:
    family = CounterMetricFamily(name, documentation, labels=[label])
    for key, count in sorted(counts):
        family.add_metric([key], count)
    return family


def _one_of(name: str, documentation: str, label: str, found: str, known: tuple[str, ...]) -> Metric:
    family = GaugeMetricFamily(name, documentation, labels=[label])
    for one in sorted({found, *known}):
        family.add_metric([one], 1.0 if one == found else 0.0)
    return family
