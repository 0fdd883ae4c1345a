"""What Prometheus reads of the worker: names as the specification has them, and numbers of the status."""

from __future__ import annotations

import socket
from urllib.request import urlopen

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families

from inference.supervision.metrics import MetricsPage, StatusCollector
from inference.supervision.status import (
    HealthStatus,
    MemberStatus,
    ModelStatus,
    PositionStatus,
    RiskStatus,
    SignalStatus,
    Status,
)


def status(**fields) -> Status:
    plain = {
        "state": "trading",
        "reason": "model 3",
        "trading_state": "ACTIVE",
        "pid": 7,
        "mode": "sandbox",
        "venue": "sandbox",
        "updated_at": "2026-01-01T00:00:00+00:00",
    }
    return Status(**(plain | fields))


def scraped(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def page_of(one: Status | None) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(StatusCollector(lambda: one))
    return scraped(generate_latest(registry).decode())


def test_health_is_one_of_its_five_levels():
    """Each level is a line of its own, and the one that holds is 1."""
    found = page_of(status(health=HealthStatus(level="DEGRADED", reasons=("disk: 900 MB free",))))

    levels = {labels[0][1]: value for (name, labels), value in found.items() if name == "qt_health_level"}
    assert levels == {"OPTIMAL": 0, "HEALTHY": 0, "DEGRADED": 1, "CRITICAL": 0, "EMERGENCY": 0}


@pytest.mark.parametrize("active", [False, True])
def test_the_emergency_brake_is_a_number(active):
    """0 or 1 without a label that says the same; the breaker is one of its three states."""
    found = page_of(status(risk=RiskStatus(emergency_brake_active=active, breaker="HALF_OPEN")))

    assert found["qt_emergency_brake", ()] == float(active)
    states = {labels[0][1]: value for (name, labels), value in found.items() if name == "qt_breaker_state"}
    assert states == {"CLOSED": 0, "OPEN": 0, "HALF_OPEN": 1}


def test_drawdowns_are_told_by_their_period():
    """In percent, as exposure is; one that is not known is left out rather than none."""
    risk = RiskStatus(emergency_brake_active=False, daily_drawdown=0.0123, max_drawdown=0.2)
    found = page_of(status(risk=risk))

    assert found["qt_drawdown_pct", (("period", "daily"),)] == pytest.approx(1.23)
    assert found["qt_drawdown_pct", (("period", "peak"),)] == pytest.approx(20)
    assert ("qt_drawdown_pct", (("period", "weekly"),)) not in found
    assert ("qt_emergency_brake", ()) not in page_of(status())


def test_members_are_counted_by_name():
    """Predictions and latency carry the label `model`, latencies in seconds."""
    member = MemberStatus(
        predictions=40,
        not_finite=2,
        voted=30,
        agreed=20,
        seconds=0.5,
        candles=10,
        latency_ms={"p50": 40.0, "p99": None},
    )
    found = page_of(status(members={"xgboost": member}))

    labels = (("model", "xgboost"),)
    assert found["qt_model_predictions_total", labels] == 40
    assert found["qt_model_not_finite_total", labels] == 2
    assert found["qt_model_agreed_total", labels] == 20
    assert (found["qt_model_latency_seconds_sum", labels], found["qt_model_latency_seconds_count", labels]) == (0.5, 10)
    assert found["qt_model_latency_seconds", (("model", "xgboost"), ("quantile", "0.5"))] == 0.04
    assert ("qt_model_latency_seconds", (("model", "xgboost"), ("quantile", "0.99"))) not in found


def test_what_trades_is_told():
    """Positions, exposure, signals, refusals and the model that trades, as the status file has them."""
    position = PositionStatus(
        symbol="BTC/USDT:USDT",
        direction="LONG",
        quantity="1",
        entry_price="50",
        notional="50.00",
        entry_time_ms=0,
        trade_id="t",
    )
    signals = tuple(
        SignalStatus(
            symbol=f"S{n}",
            direction="LONG",
            confidence=value,
            expected_return=0.1,
            consensus=3,
            outcome="approved",
            candle_close_ms=0,
        )
        for n, value in enumerate((0.6, 0.8))
    )
    found = page_of(
        status(
            equity="200",
            positions=(position,),
            last_signals=signals,
            refusals={"COOLDOWN": 4},
            rss_mb=2.0,
            model=ModelStatus(version="3", digest="d", gated=True, source="registry", loaded_at="x"),
            realized_pnl="-1.50",
            trading_state="HALTED",
        )
    )

    assert found["qt_positions_count", (("status", "open"),)] == 1
    assert found["qt_exposure_pct", ()] == 25
    assert found["qt_signal_confidence", (("direction", "LONG"),)] == pytest.approx(0.7)
    assert found["qt_refusals_total", (("code", "COOLDOWN"),)] == 4
    assert found["qt_pnl", (("what", "realized"),)] == -1.5
    assert found["qt_memory_usage_bytes", ()] == 2 * 2**20
    assert found["qt_trading_state", (("state", "HALTED"),)] == 1
    assert found["qt_trading_state", (("state", "ACTIVE"),)] == 0
    assert found["qt_model_info", (("digest", "d"), ("gated", "true"), ("version", "3"))] == 1


def test_nothing_is_told_before_there_is_something():
    """Before the first status a scrape is empty, and one without an account has no equity."""
    assert page_of(None) == {}
    assert ("qt_equity", ()) not in page_of(status())


@given(st.dictionaries(st.text(min_size=1), st.integers(min_value=0, max_value=10**9), max_size=4), st.text())
def test_any_name_is_a_label(counts, name):
    """Codes and names that hold quotes, line ends or anything else are read back as they were."""
    member = MemberStatus(predictions=1, not_finite=0, voted=1, agreed=1, seconds=0.0)
    found = page_of(status(refusals=counts, members={name: member}))

    assert {key[1][0][1]: value for key, value in found.items() if key[0] == "qt_refusals_total"} == counts
    assert found["qt_model_predictions_total", (("model", name),)] == 1


def test_page_is_served_until_it_is_closed():
    """Over HTTP a scrape reads the newest status; a port that is taken is an error, one that was closed is free."""
    shown = [status(closed_trades=1)]
    page = MetricsPage("127.0.0.1", 0, lambda: shown[-1])
    try:
        address = f"http://127.0.0.1:{page.port}/metrics"
        with urlopen(address, timeout=10) as answer:
            first = scraped(answer.read().decode())
        shown.append(status(closed_trades=2))
        with urlopen(address, timeout=10) as answer:
            second = scraped(answer.read().decode())
        with pytest.raises(OSError, match="in use"):
            MetricsPage("127.0.0.1", page.port, lambda: None)
    finally:
        page.close()

    assert (first["qt_trades_closed_total", ()], second["qt_trades_closed_total", ()]) == (1, 2)
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", page.port)) != 0
