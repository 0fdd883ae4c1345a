from __future__ import annotations

import asyncio
from dataclasses import replace

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.derived import derive
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.partitions import Rows
from feature_store.sources.deriving import is_derived, keep_derived, parse_derived, refuse_derived
from feature_store.sources.importing import Part, Selection, import_candles
from feature_store.sources.recorded import read_file
from tests.feature_support import ETH, T0, market, recorded

MINUTES = Series("sandbox", "BTC/USDT:USDT", Timeframe.M1)
FIVE, DAY = replace(MINUTES, timeframe=Timeframe.M5), replace(MINUTES, timeframe=Timeframe.D1)
MINUTE = 60_000
LONGER = (Timeframe.M5, Timeframe.M15, Timeframe.H1, Timeframe.H4, Timeframe.D1)


def minutes(count: int, start_ms: int = T0, seed: int = 3) -> CandleBlock:
    """Seeded minutes, one in fifty absent."""
    generator = np.random.default_rng(seed)
    times = start_ms + np.flatnonzero(generator.random(count) > 0.02) * MINUTE
    close = np.round(100 * np.exp(generator.normal(0, 1e-3, len(times)).cumsum()), 2)
    opened = np.append(close[:1], close[:-1])
    high, low = np.maximum(opened, close) + 0.01, np.minimum(opened, close) - 0.01
    return CandleBlock(times, np.column_stack([opened, high, low, close, generator.integers(1, 99, len(times)) / 4]))


def whole(lake: CandleLake, timeframe: Timeframe) -> CandleBlock:
    """What all stored minutes add up to."""
    return derive(lake.read_rows(MINUTES), timeframe).latest().block


async def test_chunked_arrival_ends_where_the_whole_does(tmp_path):
    """Minutes in pieces, over a month's end, give the candles of all minutes at once, and none of them twice."""
    lake, block = CandleLake(tmp_path), minutes(30_000, T0 - 86_400_000 * 14)
    for begin in range(0, len(block), 4_321):
        lake.append(MINUTES, block[begin : begin + 4_321])
        await keep_derived(lake, MINUTES, LONGER)
    for timeframe in LONGER:
        target = replace(MINUTES, timeframe=timeframe)
        rows = lake.read_rows(target)
        assert rows.latest().block.equals(whole(lake, timeframe)), timeframe
        assert len(rows) == len(rows.latest())
    assert await keep_derived(lake, MINUTES, LONGER) == dict.fromkeys(
        [replace(MINUTES, timeframe=timeframe) for timeframe in LONGER], 0
    )


async def test_a_corrected_minute_corrects_every_longer_candle(tmp_path):
    """A correction is a new revision of each candle around it, and the past is told as it was."""
    lake, block = CandleLake(tmp_path), minutes(3_000)
    lake.append(MINUTES, block)
    await keep_derived(lake, MINUTES, LONGER)
    before = lake.read(DAY)
    at_ms = int(block.open_time_ms[-1]) + 10 * MINUTE
    restated = CandleBlock(block.open_time_ms[700:701], block.values[700:701] + np.array([0, 9, 0, 0, 5]))
    lake.append(MINUTES, restated, available_at_ms=at_ms)
    added = await keep_derived(lake, MINUTES, LONGER)
    assert set(added.values()) == {1}
    rows = lake.read_rows(DAY)
    assert rows.revision.max() == 1
    assert rows.available_at_ms[rows.revision == 1].tolist() == [at_ms]
    assert lake.read(DAY, as_of_ms=at_ms - 1).equals(before)
    assert lake.read(FIVE).equals(whole(lake, Timeframe.M5))


async def test_a_crash_between_minutes_and_candles_is_made_good(tmp_path, monkeypatch):
    """A run that died after it had stored some candles is completed by the next, without a second copy."""
    lake = CandleLake(tmp_path)
    lake.append(MINUTES, minutes(3_000))
    append = lake.append
    monkeypatch.setattr(lake, "append", lambda *_, **__: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        await keep_derived(lake, MINUTES, [Timeframe.M5])
    assert is_derived(lake, FIVE)
    monkeypatch.setattr(lake, "append", append)
    await keep_derived(lake, MINUTES, [Timeframe.M5])
    assert lake.read(FIVE).equals(whole(lake, Timeframe.M5))


async def test_two_runs_at_once_double_nothing(tmp_path):
    """Two derivations at the same time leave each candle once."""
    lake = CandleLake(tmp_path)
    lake.append(MINUTES, minutes(3_000))
    await asyncio.gather(*[keep_derived(CandleLake(tmp_path), MINUTES, LONGER) for _ in range(3)])
    rows = lake.read_rows(FIVE)
    assert len(rows) == len(whole(lake, Timeframe.M5))


async def test_minutes_filled_in_later_are_derived_later(tmp_path):
    """Older minutes that are fetched later make the older candles, the one at the seam too."""
    lake, block = CandleLake(tmp_path), minutes(3_000)
    lake.append(MINUTES, block[1_002:])
    await keep_derived(lake, MINUTES, [Timeframe.M5])
    lake.append(MINUTES, block[:1_002])
    await keep_derived(lake, MINUTES, [Timeframe.M5])
    assert lake.read(FIVE).equals(whole(lake, Timeframe.M5))
    assert lake.read_rows(FIVE).revision.max() == 0


async def test_derived_and_fetched_are_not_mixed(tmp_path):
    """Neither is stored into a series of the other kind; both refusals name the way out."""
    lake = CandleLake(tmp_path)
    lake.append(MINUTES, minutes(100))
    await keep_derived(lake, MINUTES, [Timeframe.M5])
    with pytest.raises(BadInputError, match="--derive 5m"):
        refuse_derived(lake, FIVE)
    refuse_derived(lake, MINUTES)
    hours = replace(MINUTES, timeframe=Timeframe.H1)
    lake.append(hours, CandleBlock(np.array([T0 - T0 % 3_600_000]), np.array([[1.0, 2.0, 1.0, 2.0, 1.0]])))
    with pytest.raises(BadInputError, match="leave 1h out of --derive"):
        await keep_derived(lake, MINUTES, [Timeframe.H1])
    with pytest.raises(BadInputError, match="--timeframe 1m"):
        await keep_derived(lake, FIVE, [Timeframe.H1])


async def test_files_are_not_imported_into_a_derived_series(tmp_path):
    """A file of candles that would land in a derived series is refused as a whole; the others are imported."""
    lake = CandleLake(tmp_path)
    lake.append(MINUTES, minutes(100))
    await keep_derived(lake, MINUTES, [Timeframe.M5])
    before = lake.read_rows(FIVE)
    blocks = {"five": (FIVE, market(10)), "other": (ETH, market(10))}
    done = import_candles(lake, Shelf(blocks), Selection(), now_ms=T0 + 10**9)
    assert done.appended == 10
    assert [refused.part for refused in done.refused] == ["five"]
    assert "derived from 1m" in done.refused[0].reason
    assert len(lake.read_rows(FIVE)) == len(before)


class Shelf:
    """A source of candles whose files are in memory."""

    origin = layout = "shelf"

    def __init__(self, blocks) -> None:
        self.blocks = blocks

    def parts(self, selection):
        """One file for each block."""
        return [Part(name, "") for name in self.blocks]

    def read(self, part):
        """What the file holds."""
        return [self.blocks[part.name]]

    def missing(self, parts):
        """Nothing else was looked for."""
        return []


@pytest.mark.parametrize("text", ["1m", "5m,2m", "5 m"])
def test_what_cannot_be_derived_is_refused(text):
    """Only timeframes longer than a minute, and only ours."""
    with pytest.raises(BadInputError):
        parse_derived(text)


def test_a_list_of_timeframes():
    """Names may repeat and have spaces around them."""
    assert parse_derived(" 5m, 1h,5m ,") == (Timeframe.M5, Timeframe.H1)


@pytest.mark.needs_market_data
def test_recorded_minutes_add_up_to_recorded_candles():
    """
    Where both were recorded, derived 5m candles have the recorded prices to the bit, and no other open times.

    Volumes agree to rounding; a recording that was taken before its last candle had closed may differ in that one.
    """
    five = {}
    for series, block in recordings("5m"):
        five.setdefault((series.venue, series.symbol), []).append(block)
    compared = 0
    for series, block in recordings("1m"):
        rows = Rows(block, block.open_time_ms + MINUTE, np.zeros(len(block), np.int32))
        ours = derive(rows, Timeframe.M5).block
        first, last = int(ours.open_time_ms[0]), int(ours.open_time_ms[-1])
        for other in five.get((series.venue, series.symbol), []):
            theirs = other.since(first).until(last + 1)
            if len(theirs) == 0:
                continue
            both = ours.since(int(theirs.open_time_ms[0])).until(int(theirs.open_time_ms[-1]) + 1)
            assert np.array_equal(both.open_time_ms, theirs.open_time_ms)
            assert np.array_equal(both.values[:, :4], theirs.values[:, :4])
            apart = ~np.isclose(both.values[:, 4], theirs.values[:, 4], rtol=1e-9, atol=0)
            assert apart.sum() <= 1
            compared += len(theirs)
    assert compared > 50_000


def recordings(timeframe: str):
    """All recorded candles of one timeframe."""
    for path in sorted(recorded(".").glob(f"*_{timeframe}_*.parquet")):
        yield from read_file(path)
