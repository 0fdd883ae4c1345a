"""A candle that the stream did not bring is read once the venue says that it has closed, whatever we reckon."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.venue.errors import RetryableError
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.feed.batches import BatchAssembler
from inference.feed.candle_feed import CandleFeed

STEP = 60_000
SYMBOL = "BTC/USDT:USDT"
START_MS = 1_767_866_400_000


class Venue:
    """A venue without a stream; the newest candle it serves may be one that has not closed."""

    def __init__(self, now_ms: int) -> None:
        self.has: dict[str, bool] = {}
        self.clients: dict[str, object] = {}
        self.now_ms = now_ms
        self.read_at: list[int] = []
        self.asked = 0
        self.fails = False

    async def time(self) -> int:
        """Return the time, which moves half a minute with each question."""
        self.asked += 1
        if self.fails:
            raise RetryableError("The venue's clock was not readable")
        self.now_ms += STEP // 2
        return self.now_ms

    async def fetch_ohlcv(self, _symbol, _timeframe, since, limit, /):
        """Return candles from `since` on, the one that is still open among them."""
        self.read_at.append(self.now_ms)
        opens = np.arange(since, self.now_ms + 1, STEP)
        return [[int(at), 1.0, 1.0, 1.0, 1.0, 1.0] for at in opens][:limit]


def feed_at(venue: Venue, *, ahead_ms: int) -> CandleFeed:
    """Return a feed whose clock runs ahead of its venue by so much."""
    loop = asyncio.get_running_loop()
    clock = VenueClock(accelerated=True)
    for ago in (1, 0):
        at = loop.time() - ago
        clock.add(TimeSample(sent=at, received=at, venue_ms=venue.now_ms + ahead_ms - 1000 * ago))
    assembler = BatchAssembler(last_open_ms={SYMBOL: START_MS - STEP}, timeframe=Timeframe.M1)
    return CandleFeed(
        venue, assembler=assembler, timeframe=Timeframe.M1, clock=clock, monotonic=loop.time, ask_time=venue.time
    )


async def first_batch(venue: Venue, *, ahead_ms: int) -> CandleBlock:
    """Return the first candles of such a feed."""
    feed = feed_at(venue, ahead_ms=ahead_ms)
    running = asyncio.create_task(feed.run())
    try:
        async with asyncio.timeout(30):
            return (await feed.batches.get()).blocks[SYMBOL]
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@pytest.mark.parametrize("behind_ms", [0, STEP // 2, 2 * STEP])
async def test_open_candle_is_not_taken_for_closed_by_a_clock_that_runs_ahead(behind_ms):
    """However far ahead our clock is, the candle is read after its close by the venue's clock, and not before."""
    close = START_MS + STEP
    venue = Venue(close - behind_ms - STEP // 2)

    block = await first_batch(venue, ahead_ms=behind_ms + STEP // 2 - 200)

    assert block.open_time_ms.tolist() == [START_MS]
    assert venue.read_at[0] >= close
    assert venue.asked >= 1 + 2 * behind_ms // STEP


async def test_venue_that_does_not_tell_its_time_is_read_all_the_same():
    """A failing question is no reason to go without candles: our own reckoning stands in."""
    venue = Venue(START_MS + STEP)
    venue.fails = True

    block = await first_batch(venue, ahead_ms=-200)

    assert block.open_time_ms.tolist() == [START_MS]
    assert venue.asked >= 1


@pytest.mark.parametrize("turns", range(5))
async def test_a_stop_that_comes_with_the_news_is_heard(turns):
    """Whichever turn of the loop it falls into: what waits for the stream ends, and with it the worker."""
    feed = feed_at(Venue(START_MS), ahead_ms=0)
    waiting = asyncio.create_task(feed._wait_for_stream(lambda: [SYMBOL], 5.0))
    await asyncio.sleep(0.01)

    feed._news.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.wait({waiting}, timeout=1.0)

    assert waiting.cancelled()
