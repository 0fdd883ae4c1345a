"""A worker that follows two symbols, with the clock and the venue behind it in memory."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from pathlib import Path

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from feature_store.features.definition import fingerprint
from feature_store.features.live import LiveFeatures
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.journal.writer import JournalWriter
from inference.models.registry import BundleCache
from inference.supervision.model_watch import ModelWatch
from inference.worker import Worker, WorkerPlan
from tests.worker_support import FakeClock, FakeGateway, make_executor
from tests.worker_values import T0, make_instrument

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
    """Return so many candles, the last of which closes at a moment."""
    times = close_ms - STEP * np.arange(count, 0, -1)
    close = 50_000 + 10 * np.sin(np.arange(count) / 3)
    return CandleBlock.from_rows(
        [[int(at), c, c + 5, c - 5, c, 1.0 + n % 7] for n, (at, c) in enumerate(zip(times, close, strict=True))]
    )


class History:
    """The venue's candles as they are known now, and how often they were asked for."""

    def __init__(self) -> None:
        self.blocks: dict[str, CandleBlock] = {}
        self.asked: list[str] = []

    async def read(self, symbol: str) -> CandleBlock:
        """Return the candles of a symbol."""
        self.asked.append(symbol)
        return self.blocks[symbol]


@contextmanager
def staged(tmp_path: Path, venue_history: History) -> Iterator[tuple[Worker, FakeClock, QuotingGateway]]:
    """Return a worker, its clock and its gateway, until its journal is closed."""
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
            equity=gateway.equity,
            quotes=gateway.quotes,
            executor=executor,
            models=models,
            journal=journal,
            clock=venue,
            instruments={symbol: make_instrument(symbol) for symbol in (BTC, ETH)},
            last_mark=(None, 0),
            history=venue_history.read,
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
