"""How long orders wait for the venue's yes: measured as they are sent, told by the status and to Prometheus."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inference.domain.order import OrderIntent, OrderReport, Purpose
from inference.supervision.latency import Latencies
from tests.unit.test_metrics import page_of, status
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import make_approved

BTC = "BTC/USDT:USDT"


class SlowGateway(FakeGateway):
    """A venue that thinks for a while before it answers an order."""

    async def submit(self, intent: OrderIntent) -> OrderReport:
        """See the port."""
        await self.clock.sleep(0.3)
        return await super().submit(intent)


async def took(*, faults=(), refusals=None) -> list[float]:
    """Return what was measured while a position was opened, and protected."""
    clock, seconds = FakeClock(), []
    gateway = SlowGateway(clock, marks={BTC: Decimal(50_000)})
    gateway.faults, gateway.refusals, gateway.hold_stream = list(faults), refusals or {}, True
    executor = make_executor(gateway, MemoryJournal(), order_took=seconds.append)
    await clock.drive(executor.start())
    await clock.drive(executor.enter(make_approved(), candle_close_ms=clock.now_ms()))
    assert gateway.unprotected() == []
    return seconds


async def test_each_order_that_the_venue_takes_is_measured():
    """Entry, stop and target: from sending to the answer, and no wait of our own."""
    assert await took() == pytest.approx([0.3] * 3)


async def test_what_is_refused_or_not_answered_is_no_order_that_was_placed():
    """A refusal says how fast somebody said no, a lost answer nothing: neither is counted."""
    assert await took(faults=["", "exec_then_drop"]) == pytest.approx([0.3] * 2)
    assert await took(refusals={Purpose.STOP: [-1111]}) == pytest.approx([0.3] * 3)


@given(st.lists(st.floats(0, 100), max_size=50))
def test_figures_are_of_what_was_measured(seconds):
    """Nothing before the first order; then two of the durations, in milliseconds, the second not below the first."""
    latencies = Latencies()
    for one in seconds:
        latencies.add(one)
    told = latencies.figures()

    assert set(told) == {"p50", "p99"}
    if not seconds:
        assert set(told.values()) == {None}
    else:
        assert set(told.values()) <= {one * 1000 for one in seconds}
        assert told["p50"] <= told["p99"]


def test_prometheus_reads_it_in_seconds():
    """By quantile, beside that of decisions; what is not known yet is no line."""
    found = page_of(status(order_latency_ms={"p50": 12.0, "p99": None}, decision_latency_ms={"p50": 3.0, "p99": 9.0}))

    assert found["qt_order_latency_seconds", (("quantile", "0.5"),)] == 0.012
    assert ("qt_order_latency_seconds", (("quantile", "0.99"),)) not in found
    assert found["qt_decision_latency_seconds", (("quantile", "0.99"),)] == 0.009
