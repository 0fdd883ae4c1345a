"""The feed asks again for what it handed out: a candle that comes late, or is corrected, is told with a batch."""

from __future__ import annotations

import asyncio

import numpy as np

from feature_store.candle import CandleBlock, Timeframe
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.feed.batches import BatchAssembler
from inference.feed.candle_feed import CandleFeed
from inference.feed.recent import RecentCandles, read_recent, write_recent
from tests.feature_support import BTC, STEP, market, same

BLOCK = market(300, seed=4)
START_MS = int(BLOCK.open_time_ms[100])
RATE = 3_000
"""Candles of five minutes close each tenth of a second."""


class Venue:
    """A venue without a stream that knows of each candle from a moment of its own, and may correct it."""

    def __init__(self) -> None:
        self.has: dict[str, bool] = {}
        self.clients: dict[str, object] = {}
        self.absent: set[int] = set()
        self.values = BLOCK.values.copy()
        self.asked = 0

    async def fetch_ohlcv(self, _symbol, _timeframe, since, limit, /):
        """Return candles from `since` on, but for those that are absent still."""
        self.asked += 1
        rows = [
            [time, *values]
            for time, values in zip(BLOCK.open_time_ms.tolist(), self.values.tolist(), strict=True)
            if time >= since and time not in self.absent
        ]
        return rows[:limit]


class Wall:
    """Our clock, which moves as the event loop's does."""

    def __call__(self) -> float:
        """Return seconds."""
        return asyncio.get_running_loop().time()


async def changes(venue: Venue, change) -> list[str]:
    """Follow a market, change the past once candles have been handed out, and return what is told of it."""
    wall, clock = Wall(), VenueClock(accelerated=True)
    begun = wall()
    for ago in (1, 0):
        at = begun - ago
        clock.add(TimeSample(sent=at, received=at, venue_ms=START_MS - ago * 1_000 * RATE))
    assembler = BatchAssembler(last_open_ms={BTC.symbol: START_MS - STEP}, timeframe=Timeframe.M5)

    async def venue_time() -> int:
        return clock.now_ms(wall())

    feed = CandleFeed(
        venue, assembler=assembler, timeframe=Timeframe.M5, clock=clock, monotonic=wall, ask_time=venue_time
    )
    running = asyncio.create_task(feed.run())
    told: list[str] = []
    handed_out = 0
    try:
        async with asyncio.timeout(60):
            while not told:
                batch = await feed.batches.get()
                handed_out += sum(map(len, batch.blocks.values()))
                told += batch.changed.values()
                if handed_out >= 4 and change is not None:
                    change, _ = None, change()
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
    return told


async def test_a_candle_that_the_venue_has_late_is_told():
    """A hole is asked for again, and what has come there by then is news."""
    venue = Venue()
    venue.absent = {START_MS + STEP}

    assert await changes(venue, venue.absent.clear) == [_moment(START_MS + STEP) + " came late"]


async def test_a_candle_that_the_venue_corrects_is_told():
    """Each series is looked at again in its turn."""
    venue = Venue()

    def correct() -> None:
        venue.values[101, 4] *= 2

    assert await changes(venue, correct) == [_moment(START_MS + STEP) + " was corrected"]


def _moment(time_ms: int) -> str:
    return f"the candle of {str(np.datetime64(time_ms, 'ms')).replace('T', ' ')[:16]}"


def test_recent_candles_come_back_as_they_were(tmp_path):
    """What was remembered of several symbols, with holes, is the same after a restart; of none there is nothing."""
    recent = RecentCandles(Timeframe.M5)
    write_recent(tmp_path / "none.npz", recent)
    whole = market(1_200, seed=1)
    kept = np.delete(np.arange(1_200), [900, 901])
    recent.add("A", CandleBlock(whole.open_time_ms[kept], whole.values[kept]))
    recent.add("B", whole[:7])
    write_recent(tmp_path / "recent.npz", recent)

    found = read_recent(tmp_path / "recent.npz")

    assert read_recent(tmp_path / "none.npz") == read_recent(tmp_path / "absent.npz") == {}
    assert set(found) == {"A", "B"}
    assert all(same(found[one].values, recent.block(one).values) for one in found)
    assert len(found["A"]) == 499
    assert recent.holes("A") == tuple(whole.open_time_ms[900:902].tolist())
