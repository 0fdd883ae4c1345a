"""What becomes of gaps and of restated candles over several runs, against a venue that speaks Binance's protocol."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace

import numpy as np
import pytest

from feature_store.absences import Span
from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.lake import BACKFILL_DELAY_MS, CandleLake
from feature_store.silences import ASKED_APART_MS, BELIEVED_AFTER
from feature_store.sources.asking import believed, silences
from feature_store.sources.evidence import judged_with_evidence
from feature_store.sources.ingest import REVERIFIED, ingest_series, note_foreign
from feature_store.sources.listings import Listed, listing_in, listing_of, note_listing
from feature_store.sources.notes import note_place
from infra.prove.ingest import refetched
from infra.prove.recording_proxy import RecordingProxy
from tests.feature_support import BTC, ETH, STEP, T0, market, python, without
from tests.feature_venue_double import venue_double
from tests.sandbox_support import running_sandbox

HOURS = ASKED_APART_MS // STEP
BEGUN = 300
BLOCK = market(BEGUN + 12 * HOURS)
GAPS = {BTC: without(BLOCK, np.r_[50:60, 70:71, 120:140])}
SPANS = tuple(Span(T0 + begin * STEP, T0 + end * STEP) for begin, end in ((50, 60), (70, 71), (120, 140)))


async def run(double, exchange, lake, *, series=(BTC,), hours: int = 1, **how) -> list[int]:
    """Let time pass, ingest, and return which candles pages were asked for from."""
    double.now_ms += hours * ASKED_APART_MS
    before = len(double.asked("/fapi/v1/klines"))
    done = await ingest_series(exchange, lake, list(series), T0, **how)
    assert all(one.error is None for one in done.values())
    asked = [one["startTime"] for one in double.asked("/fapi/v1/klines")[before:] if "startTime" in one]
    return [(int(start) - T0) // STEP for start in asked]


def now(candles: int) -> int:
    """The venue's time with so many closed candles."""
    return T0 + candles * STEP + 1_000


async def test_a_gap_is_asked_for_again_until_the_venue_is_believed(tmp_path):
    """Later runs ask for a gap, near ones in one page, until it is believed; then only --repair does, for all."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": GAPS[BTC]}, now(BEGUN)) as (double, exchange):
        pages = [await run(double, exchange, lake, hours=hours) for hours in (0, 1, 1, 1)]
        assert pages[0] == [0]
        tails = [BEGUN - REVERIFIED + run * HOURS for run in range(3)]
        assert pages[1:] == [[tails[0], 50], [tails[1], 50], [tails[2]]]
        assert believed(lake, BTC) == SPANS
        assert {one.asked_at_ms for one in silences(lake, BTC)} == {
            tuple(now(BEGUN) + hour * ASKED_APART_MS for hour in range(BELIEVED_AFTER))
        }
        note = json.loads(note_place(lake, BTC, "silences").read_bytes())
        assert (note["version"], note["answer"]) == (1, "no candle")
        assert await run(double, exchange, lake, repair=True) == [0]


async def test_runs_shortly_after_each_other_do_not_ask_again(tmp_path):
    """Two answers within the same hour are one answer."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": GAPS[BTC]}, now(BEGUN)) as (double, exchange):
        await run(double, exchange, lake, hours=0)
        double.now_ms += STEP
        assert await run(double, exchange, lake, hours=0) == [BEGUN - REVERIFIED]
        assert {len(one.asked_at_ms) for one in silences(lake, BTC)} == {1}


async def test_a_gap_that_the_venue_fills_late_is_known_late(tmp_path):
    """Candles that come hours after their time are stored as known from then on, and the silence is forgotten."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": GAPS[BTC]}, now(BEGUN)) as (double, exchange):
        await run(double, exchange, lake, hours=0)
        double.candles["BTCUSDT"] = without(BLOCK, np.r_[55:60, 120:140])
        await run(double, exchange, lake)
        rows = lake.read_rows(BTC, T0 + 50 * STEP, T0 + 80 * STEP)
        late = np.r_[0:5, 15]
        assert (rows.available_at_ms[late] == double.now_ms).all()
        assert (np.delete(rows.available_at_ms, late) < now(90)).all()
        assert lake.read(BTC, T0 + 50 * STEP, T0 + 55 * STEP, as_of_ms=double.now_ms - 1).equals(CandleBlock.empty())
        assert [(one.start_ms - T0) // STEP for one in silences(lake, BTC)] == [55, 120]


async def test_a_restated_candle_is_a_revision(tmp_path):
    """What the venue changes among its newest candles is stored beside the old; what was known then stays readable."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, now(BEGUN)) as (double, exchange):
        await run(double, exchange, lake, hours=0)
        before = lake.read(BTC)
        restated = CandleBlock(BLOCK.open_time_ms, BLOCK.values.copy())
        restated.values[BEGUN - REVERIFIED : BEGUN, 4] += 1
        restated.values[BEGUN - REVERIFIED - 1, 4] += 1
        double.candles["BTCUSDT"] = restated
        await run(double, exchange, lake)
        rows = lake.read_rows(BTC)
        assert rows.revision.sum() == REVERIFIED
        assert (rows.available_at_ms[rows.revision == 1] == double.now_ms).all()
        assert lake.read(BTC, as_of_ms=double.now_ms - 1).until(now(BEGUN) - STEP).equals(before)
        corrected = lake.read(BTC, now(BEGUN - REVERIFIED) - 1_000)
        assert corrected.equals(restated.since(now(BEGUN - REVERIFIED) - 1_000).until(now(BEGUN + HOURS) - STEP))


async def test_repair_finds_what_was_restated_long_ago(tmp_path):
    """A correction of an old candle is no part of an ordinary run; --repair stores it as a revision of that moment."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK}, now(BEGUN)) as (double, exchange):
        await run(double, exchange, lake, hours=0)
        restated = CandleBlock(BLOCK.open_time_ms, BLOCK.values.copy())
        restated.values[100, 4] += 1
        double.candles["BTCUSDT"] = restated
        await run(double, exchange, lake)
        assert lake.read_rows(BTC).revision.sum() == 0
        await run(double, exchange, lake, repair=True)
        rows = lake.read_rows(BTC, T0 + 100 * STEP, T0 + 101 * STEP)
        assert rows.revision.tolist() == [0, 1]
        assert rows.available_at_ms[1] == double.now_ms
        assert len(lake.read_rows(BTC)) == BEGUN + 2 * HOURS + 1


async def test_repair_knows_what_was_never_asked_for_since_its_close(tmp_path):
    """Of a hole that an import left, candles could be known at their close; of what was asked for, from now on."""
    lake = CandleLake(tmp_path)
    imported = without(BLOCK[:BEGUN], np.r_[50:60])
    note_foreign(lake, BTC, imported)
    lake.append(BTC, imported)
    async with venue_double({"BTCUSDT": BLOCK}, now(BEGUN)) as (double, exchange):
        await run(double, exchange, lake, repair=True)
        rows = lake.read_rows(BTC, T0 + 50 * STEP, T0 + 60 * STEP)
        assert (rows.available_at_ms == rows.block.open_time_ms + STEP + BACKFILL_DELAY_MS).all()
        assert len(lake.read_rows(BTC)) == BEGUN + HOURS


async def test_the_ends_of_a_series_are_confirmed_like_gaps(tmp_path):
    """What is absent before the first and after the last candle is asked for thrice too; then it is the venue's own."""
    lake = CandleLake(tmp_path)
    block = BLOCK[100:200]
    async with venue_double({"BTCUSDT": block}, now(BEGUN)) as (double, exchange):
        for hours in range(BELIEVED_AFTER):
            assert believed(lake, BTC) in (None, ())
            await run(double, exchange, lake, hours=min(hours, 1))
        assert believed(lake, BTC) == (Span(T0, T0 + 100 * STEP), Span(T0 + 200 * STEP, T0 + BEGUN * STEP))
        assert 0 not in await run(double, exchange, lake)
        for _ in range(2 * BELIEVED_AFTER):
            await run(double, exchange, lake)
        noted = silences(lake, BTC)
        assert len([one for one in noted if one.is_believed]) == 2, "Lasting silence fills the note"
        assert len(noted) == 2 + BELIEVED_AFTER - 1


async def test_what_a_venue_says_of_a_listing_is_noted(tmp_path):
    """When it began, whether it trades, and of how many, beside the candles; before it began there is no gap."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": BLOCK[100:], "ETHUSDT": BLOCK}, now(BEGUN)) as (double, exchange):
        await exchange.load_markets()
        exchange.markets[BTC.symbol] |= {"created": T0 + 100 * STEP}
        exchange.markets[ETH.symbol] |= {"active": False}
        await run(double, exchange, lake, series=(BTC, ETH), hours=0)
    assert listing_of(lake, BTC) == Listed(T0 + 100 * STEP, is_over=False, venue_lists=1)
    assert listing_of(lake, ETH) == Listed(None, is_over=True, venue_lists=1)
    assert silences(lake, BTC) == ()
    note_listing(lake, BTC, listing_in({}, BTC.symbol))
    assert listing_of(lake, BTC) == Listed(T0 + 100 * STEP, is_over=True, venue_lists=1)


def test_an_outage_is_judged_by_the_whole_venue(tmp_path):
    """Who asks about two of three gets the answer of all three, and too few of those listed prove nothing."""
    lake, third = CandleLake(tmp_path), Series("sandbox", "CCC/USDT:USDT", Timeframe.M5)
    other = Series("binance", "AAA/USDT", Timeframe.M5)
    for one in (BTC, ETH):
        lake.append(one, without(BLOCK, np.r_[50:60, 100:105]))
    lake.append(other, BLOCK)
    assert outage_candles(lake) == 15
    lake.append(third, without(BLOCK, np.r_[53:60]))
    assert outage_candles(lake) == 7
    alone = judged_with_evidence(lake, lake.read_many([BTC]))
    assert list(alone) == [BTC]
    assert (alone[BTC].outage, alone[BTC].unexplained) == (7, 8)

    note_listing(lake, BTC, Listed(venue_lists=6))
    assert outage_candles(lake) == 7
    note_listing(lake, BTC, Listed(venue_lists=7))
    assert outage_candles(lake) == 0


@pytest.mark.parametrize(
    "damage", [b"", b"{", b'{"version":2,"silences":[]}', b'{"version":1,"silences":[[1]]}', b"[]"]
)
async def test_a_damaged_note_costs_asking_again(tmp_path, damage):
    """A note that cannot be read is as good as none: the gaps are asked for again."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": GAPS[BTC]}, now(BEGUN)) as (double, exchange):
        for hours in (0, 1, 1):
            await run(double, exchange, lake, hours=hours)
        note_place(lake, BTC, "silences").write_bytes(damage)
        assert silences(lake, BTC) is None
        assert 50 in await run(double, exchange, lake)


async def test_a_later_start_forgets_no_answer(tmp_path):
    """A run that begins inside a silence, or after it, leaves what is known of it as it is."""
    lake = CandleLake(tmp_path)
    async with venue_double({"BTCUSDT": GAPS[BTC]}, now(BEGUN)) as (double, exchange):
        for hours in (0, 1, 1):
            await run(double, exchange, lake, hours=hours)
        for start in (55, 65, 130, 200):
            double.now_ms += ASKED_APART_MS
            await ingest_series(exchange, lake, [BTC], T0 + start * STEP)
            assert believed(lake, BTC) == SPANS
        assert 50 not in await run(double, exchange, lake)


async def test_two_runs_at_once_ask_once(tmp_path):
    """Two ingests of the same series at the same time fetch no page twice, and leave each candle once."""
    async with venue_double({"BTCUSDT": BLOCK, "ETHUSDT": BLOCK}, now(BEGUN)) as (double, exchange):
        lakes = [CandleLake(tmp_path) for _ in range(3)]
        done = await asyncio.gather(*[ingest_series(exchange, lake, [BTC, ETH], T0) for lake in lakes])
        assert len(double.asked("/fapi/v1/klines")) == 2
        assert sum(one.appended for runs in done for one in runs.values()) == 2 * BEGUN
        assert len(lakes[0].read_rows(BTC)) == BEGUN


async def test_an_outage_is_one_once_the_venue_confirmed_it(tmp_path):
    """What all series lack is unexplained until the venue was asked often enough; a shorter timeframe can refute it."""
    lake, both = CandleLake(tmp_path), {"BTCUSDT": GAPS[BTC], "ETHUSDT": without(BLOCK, np.r_[55:65, 120:140])}
    async with venue_double(both, now(BEGUN)) as (double, exchange):
        for hours in range(BELIEVED_AFTER):
            outages = outage_candles(lake)
            assert outages == 0
            await run(double, exchange, lake, series=(BTC, ETH), hours=min(hours, 1))
        assert outage_candles(lake) == 25
        minute = replace(ETH, timeframe=Timeframe.M1)
        lake.append(minute, CandleBlock(np.array([T0 + 56 * STEP + 60_000]), np.array([[1.0, 1.0, 1.0, 1.0, 1.0]])))
        assert outage_candles(lake) == 24


def outage_candles(lake) -> int:
    """How many candles of BTC are told to be absent for an outage."""
    found = judged_with_evidence(lake, lake.read_many([BTC, ETH]))
    return found[BTC].outage


CLIENT = """
import asyncio, sys
from pathlib import Path
from feature_store.candle import Series, Timeframe
from feature_store.lake import CandleLake
from feature_store.sources.ingest import ingest_series
from feature_store.venue.factory import create_exchange

async def main(url, root, days):
    exchange = create_exchange("sandbox", url=url, pro=False)
    try:
        now_ms = await exchange.fetch_time()
        await exchange.load_markets()
        series = [Series("sandbox", symbol, Timeframe.M5) for symbol in sorted(exchange.markets)]
        done = await ingest_series(exchange, CandleLake(Path(root)), series, now_ms - int(days) * 86_400_000, now_ms)
        print(sum(one.appended for one in done.values()), [one.error for one in done.values() if one.error])
    finally:
        await exchange.close()

asyncio.run(main(*sys.argv[1:]))
"""


async def test_two_processes_ask_for_no_page_twice(tmp_path):
    """Two ingests of the same series in processes of their own share the work: each page once, each candle once."""
    async with running_sandbox(symbols=4, seed=3, speed=1) as sandbox:
        with RecordingProxy(sandbox.url) as proxy:
            told = await asyncio.gather(
                *[asyncio.to_thread(python, CLIENT, proxy.url, str(tmp_path), "15") for _ in range(3)]
            )
    lake = CandleLake(tmp_path)
    stored = [lake.read_rows(one) for one in lake.series()]
    assert len(stored) == 4
    assert all(line.strip().endswith("[]") for line in told)
    assert sum(int(line.split()[0]) for line in told) == sum(len(rows) for rows in stored)
    assert all(rows.revision.max() == 0 for rows in stored)
    found = refetched(proxy.pages, verified_again=REVERIFIED)
    assert (found.interrupted, found.needless) == (0, ())
