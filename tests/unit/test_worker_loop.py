"""The worker's loop when a part of it fails: what is open is still left in time."""

from __future__ import annotations

import asyncio
import threading
from decimal import Decimal

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from inference.domain.decision import TradingState
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.feed.batches import CandleBatch
from inference.journal.writer import JournalWriter
from inference.models.registry import BundleCache
from inference.supervision.model_watch import ModelWatch
from inference.worker import Worker, WorkerPlan
from tests.worker_support import FakeClock, FakeGateway, make_executor
from tests.worker_values import T0, make_approved, make_instrument

BTC, ETH = "BTC/USDT:USDT", "ETH/USDT:USDT"
STEP = Timeframe.M5.milliseconds


class QuotingGateway(FakeGateway):
    """The venue in memory, with quotes as the worker asks for them."""

    async def quotes(self) -> dict[str, Quote]:
        """Return a quote at the mark."""
        return {
            symbol: Quote(symbol=symbol, bid=mark - 1, ask=mark + 1, event_time_ms=self.clock.now_ms())
            for symbol, mark in self.marks.items()
        }


def candles(close_ms: int, count: int = 1) -> CandleBlock:
    times = close_ms - STEP * np.arange(count, 0, -1)
    close = 50_000 + 10 * np.sin(np.arange(count) / 3)
    return CandleBlock.from_rows(
        [[int(at), c, c + 5, c - 5, c, 1.0 + n % 7] for n, (at, c) in enumerate(zip(times, close, strict=True))]
    )


@pytest.fixture
def stage(tmp_path):
    """Return a worker that follows two symbols, with the clock and gateway behind it."""
    clock = FakeClock()
    gateway = QuotingGateway(clock, marks={BTC: Decimal(50_000), ETH: Decimal(50_000)})
    venue = VenueClock(accelerated=False)
    venue.add(TimeSample(sent=clock.seconds, received=clock.seconds, venue_ms=T0))
    with JournalWriter.open(tmp_path / "journal.jsonl") as journal:
        executor = make_executor(gateway, journal)
        models = ModelWatch(
            cache=BundleCache(tmp_path / "bundles"),
            fingerprint=fingerprint(),
            timeframe="5m",
            on_event=lambda *_: None,
            monotonic=clock.monotonic,
        )
        worker = Worker(
            WorkerPlan(
                venue="sandbox",
                mode="sandbox",
                symbols=(BTC, ETH),
                timeframe=Timeframe.M5,
                policy=Policy(max_holding_candles=1),
                status_file=tmp_path / "status.json",
            ),
            features=LiveFeatures((BTC, ETH)),
            gateway=gateway,
            executor=executor,
            models=models,
            journal=journal,
            clock=venue,
            instruments={symbol: make_instrument(symbol) for symbol in (BTC, ETH)},
            last_mark=(None, 0),
            monotonic=clock.monotonic,
        )
        yield worker, clock, gateway


async def process(worker, batch, *, until=lambda: False):
    """Run the loop over one batch."""
    queue = asyncio.Queue()
    queue.put_nowait(batch)
    running = asyncio.create_task(worker.run(queue))
    async with asyncio.timeout(100):
        while not until():  # noqa: ASYNC110 - what is waited for sets no event
            await asyncio.sleep(0.01)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_a_position_is_left_at_its_time_though_the_decision_fails(stage, monkeypatch):
    """A decision that fails each time halts entries, and does not keep what is open beyond its time barrier."""
    worker, clock, gateway = stage
    await clock.drive(worker.executor.start())
    await clock.drive(worker.executor.enter(make_approved(), candle_close_ms=T0))
    clock.seconds += 600

    def broken():
        raise ValueError("a defect of ours")

    monkeypatch.setattr(worker._features, "latest", broken)
    batch = CandleBatch(close_time_ms=T0 + 2 * STEP, blocks={}, late=())

    await process(worker, batch, until=lambda: worker.executor.closed)

    assert worker.standing.trading_state is TradingState.HALTED
    assert worker.executor.closed[0].reason is ExitReason.TIME_BARRIER
    assert gateway.held[BTC] == 0


async def test_an_impossible_candle_costs_its_own_symbol_only(stage):
    """One candle that no market could have made leaves the other symbols' features in step and trading not halted."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    close_ms = T0 + STEP
    impossible = CandleBlock.from_rows([[close_ms - STEP, 1.0, 0.5, 2.0, 1.0, 1.0]])
    batch = CandleBatch(close_time_ms=close_ms, blocks={BTC: impossible, ETH: candles(close_ms)}, late=())

    await process(worker, batch, until=lambda: worker.counters.batches == 1 or worker.standing.reason)

    assert worker.standing.trading_state is TradingState.ACTIVE
    assert worker._features.last_open_time_ms(ETH) == close_ms - STEP
    assert worker._features.last_open_time_ms(BTC) is None


async def test_stopping_waits_for_features_under_way(stage, monkeypatch):
    """States are saved after a stop: until then the thread that advances them must have ended."""
    worker, clock, _ = stage
    await clock.drive(worker.executor.start())
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    advance = worker._features.advance

    def slow(symbol, block):
        begun.set()
        go_on.wait(100)
        try:
            return advance(symbol, block)
        finally:
            ended.set()

    monkeypatch.setattr(worker._features, "advance", slow)
    batch = CandleBatch(close_time_ms=T0 + STEP, blocks={ETH: candles(T0 + STEP)}, late=())
    await process(worker, batch, until=begun.is_set)
    asyncio.get_running_loop().call_later(0.2, go_on.set)

    await worker.stop()

    assert ended.is_set()
