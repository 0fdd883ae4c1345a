"""What runs while a worker starts: people are heard, and a start that is cut short leaves nothing behind."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest

from feature_store.candle import Timeframe
from feature_store.features.live import LiveFeatures
from inference.bootstrap.lifetime import Services
from inference.bootstrap.past import ACCOUNT_BEGUN, Past
from inference.bootstrap.wiring import _Run
from inference.domain.events import AccountMarked, Noted
from inference.execution.book import Book
from inference.journal.codec import event_of
from tests.unit.test_paper_gateway import _Market, gateway_on, held_with_stop
from tests.worker_support import MemoryJournal
from tests.worker_values import T0

BTC = "BTC/USDT:USDT"


class _Starting:
    """The parts of a worker whose start does not end by itself, and how often each was begun and ended."""

    def __init__(self, folder) -> None:
        self.heeded = 0
        self.reading = asyncio.Event()
        self.ended: list[str] = []
        self.reconciled = asyncio.Event()
        run = self.run = _Run.__new__(_Run)
        run._settings = SimpleNamespace(
            venue="binanceusdm",
            market="binanceusdm",
            stored_states=folder / "a",
            own_states=folder / "b",
            timeframe=Timeframe.M5,
            mlflow_url="x",
        )
        run._order = SimpleNamespace(bundle=None)
        run._status = SimpleNamespace(say=lambda *_: None)
        run._features = LiveFeatures((BTC,))
        run._market = SimpleNamespace(past=self)
        run._models = self
        run._stream = SimpleNamespace(connected=self.connected)
        run._executor = SimpleNamespace(start=self.reconciled.wait)
        run._emergency = self
        run._services = Services(lambda _, work: work)
        run._now_ms = lambda: 1_000 * 300_000

    async def fetch_ohlcv(self, *_args, **_named):
        self.reading.set()
        await self.until_cancelled("features")

    async def load_last_good(self) -> None:
        await self.until_cancelled("model")

    async def until_cancelled(self, what: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            # Whoever only cancels and does not wait is overtaken here.
            await asyncio.sleep(0)
            self.ended.append(what)

    async def connected(self, *, within: float) -> bool:
        await asyncio.sleep(within)
        return False

    async def heed(self) -> None:
        while True:
            self.heeded += 1
            await asyncio.sleep(0.01)


async def ended(task: asyncio.Task) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_what_people_ask_for_is_heeded_for_as_long_as_a_start_lasts(tmp_path):
    """A start that never ends, as behind an exit that is refused, hears of a flattening, and nobody does afterwards."""
    parts = _Starting(tmp_path)
    starting = asyncio.create_task(parts.run._start_up((BTC,)))
    await asyncio.sleep(0.2)
    heard = parts.heeded
    await ended(starting)
    after = parts.heeded
    await asyncio.sleep(0.1)

    assert heard > 1
    assert parts.heeded == after


@pytest.mark.parametrize("seconds", [0.0, 0.2])
async def test_a_start_that_is_cut_short_leaves_nothing_running(tmp_path, seconds):
    """Stopped in its first seconds, neither features nor the model are worked on once states are saved."""
    parts = _Starting(tmp_path)
    starting = asyncio.create_task(parts.run._come_to_the_present((BTC,)))
    async with asyncio.timeout(30):
        await parts.reading.wait()
    await asyncio.sleep(seconds)
    await ended(starting)

    assert sorted(parts.ended) == ["features", "model"]
    assert len(asyncio.all_tasks()) == 1


async def test_a_new_paper_account_has_no_marks_of_the_old_one(tmp_path):
    """Only where the file was moved away: the journal has it, and nothing has fallen from the old account's peak."""
    market, journal = _Market(), MemoryJournal()
    past = Past(Book())
    peak = Decimal(1_000_000)
    mark = AccountMarked(equity=peak, day_start_equity=peak, peak_equity=peak, week_start_equity=peak)
    await held_with_stop(market, tmp_path)
    run = _Run.__new__(_Run)
    run._settings = SimpleNamespace(paper_file=tmp_path / "paper.json")
    run._journal, run._now_ms = journal, lambda: T0
    past.mark = mark
    run._gateway = gateway_on(market, tmp_path)
    run._heed_new_account(past)
    kept = past.mark
    (tmp_path / "paper.json").rename(tmp_path / "away.json")
    run._gateway = gateway_on(market, tmp_path)
    run._heed_new_account(past)

    assert kept == mark
    assert past.mark is None
    assert [event_of(one) for one in journal.entries] == [
        Noted(event_type=ACCOUNT_BEGUN, detail={"file": str(tmp_path / "paper.json")})
    ]
