from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys

import numpy as np
import pytest
from aiohttp import web

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError, CorruptFileError, QuantumError
from feature_store.kinds.definition import (
    AGGREGATE_TRADES,
    BOOK,
    FILTERS,
    FUNDING,
    INDEX,
    MARK,
    OPEN_INTEREST,
    Kind,
    Subject,
    kind_named,
)
from feature_store.kinds.store import KindStore
from feature_store.sources.kind_ingest import ingest_filters, ingest_kind
from feature_store.venue import retry
from feature_store.venue.errors import VenueDownError
from tests.feature_support import REPOSITORY
from tests.kind_support import BTC_PERP
from tests.kind_venue_double import BEGIN, FUNDED, NOW, PATHS, TRADES, kind_venue

BTC_5M = Subject("sandbox", "BTC/USDT:USDT", Timeframe.M5)
PAGED = [FUNDING, MARK, INDEX, OPEN_INTEREST, AGGREGATE_TRADES]
ROWS = {FUNDING: FUNDED, MARK: 2_500, INDEX: 2_500, OPEN_INTEREST: 2_501, AGGREGATE_TRADES: TRADES}
START = NOW - (FUNDED + 1) * 8 * 3_600_000


@pytest.fixture(autouse=True)
def _impatient(monkeypatch):
    """Ask again at once: how long a venue is left alone is not what these tests are about."""
    monkeypatch.setattr(retry, "FIRST_WAIT_SECONDS", 0.001)


def subject(kind: Kind) -> Subject:
    return BTC_5M if kind.has_timeframe else BTC_PERP


def start_of(kind: Kind) -> int:
    return {FUNDING: START, AGGREGATE_TRADES: NOW - 31 * 3_600_000}.get(kind, BEGIN)


async def fetched(exchange, store: KindStore, kind: Kind, until_ms: int = NOW):
    return await ingest_kind(exchange, store, kind, subject(kind), start_of(kind), until_ms)


def breaking(path: str, answers: int):
    """Let a venue answer so many pages, and then fail."""
    left = [answers]

    def misbehave(asked, _query, answer):
        if asked != path:
            return answer
        left[0] -= 1
        return answer if left[0] >= 0 else web.Response(status=502)

    return misbehave


@pytest.mark.parametrize("kind", PAGED, ids=str)
async def test_a_fetch_that_breaks_at_any_page_goes_on_there(tmp_path, kind):
    """However many pages came before the venue failed, the next run asks for the rest and for nothing twice."""
    async with kind_venue() as (venue, exchange):
        whole = KindStore(tmp_path / "whole")
        done = await fetched(exchange, whole, kind)
        assert len(whole.read(kind, subject(kind))) == ROWS[kind] == done.appended
        pages = len(venue.pages(kind.name))
        for answers in range(1, done.pages):
            store = KindStore(tmp_path / str(answers))
            venue.misbehave = breaking(PATHS[kind.name], answers)
            with pytest.raises(VenueDownError):
                await fetched(exchange, store, kind)
            kept = store.read(kind, subject(kind))
            assert kept.equals(whole.read(kind, subject(kind)).take(slice(0, len(kept))))
            venue.misbehave = lambda _path, _query, answer: answer
            venue.asked.clear()
            await fetched(exchange, store, kind)
            assert store.read(kind, subject(kind)).equals(whole.read(kind, subject(kind)))
            # Trades are found again by time, of which a page may end within a moment.
            assert len(venue.pages(kind.name)) <= pages - answers + (kind is AGGREGATE_TRADES)


@pytest.mark.parametrize("kind", PAGED, ids=str)
async def test_a_second_run_brings_what_is_new_and_nothing_else(tmp_path, kind):
    """Once everything is there, a run asks one page at most; later it brings just what came since."""
    async with kind_venue() as (venue, exchange):
        store = KindStore(tmp_path)
        earlier_ms = NOW - 9 * 3_600_000
        first = await fetched(exchange, store, kind, earlier_ms)
        venue.asked.clear()
        assert (await fetched(exchange, store, kind, earlier_ms)).appended == 0
        assert len(venue.pages(kind.name)) <= 2
        assert all(time < earlier_ms for time in store.read(kind, subject(kind)).time_ms.tolist())
        second = await fetched(exchange, store, kind)
        assert first.appended + second.appended == ROWS[kind] == len(store.read(kind, subject(kind)))
        assert store.coverage(kind, subject(kind)).corrections == 0


@pytest.mark.parametrize("kind", PAGED, ids=str)
async def test_a_fetch_tells_how_far_it_is(tmp_path, kind):
    """Shares rise to the whole, and rows add up; a later run begins where the earlier one ended."""
    async with kind_venue() as (_, exchange):
        store, told, later = KindStore(tmp_path), [], []
        how = (exchange, store, kind, subject(kind), start_of(kind))
        done = await ingest_kind(*how, NOW - 9 * 3_600_000, progress=lambda rows, share: told.append((rows, share)))
        await ingest_kind(*how, NOW, progress=lambda rows, share: later.append((rows, share)))
    shares = [share for _, share in told]
    assert told[0] == (0, 0.0)
    assert shares == sorted(shares)
    assert 0.9 < shares[-1] <= 1.0
    assert sum(rows for rows, _ in told) == done.fetched > 0
    assert later[0][0] == 0
    assert later[0][1] > 0.5


KILLED = """
import asyncio, sys, pathlib
from feature_store.kinds.definition import kind_named
from feature_store.kinds.store import KindStore
from feature_store.sources.kind_ingest import ingest_kind
from feature_store.venue.factory import create_exchange
from tests.fault.test_kinds_ingest import start_of, subject
from tests.kind_venue_double import NOW

async def main():
    kind, exchange = kind_named(sys.argv[2]), create_exchange("sandbox", url=sys.argv[3], pro=False)
    store = KindStore(pathlib.Path(sys.argv[1]))
    try:
        await ingest_kind(exchange, store, kind, subject(kind), start_of(kind), NOW)
    finally:
        await exchange.close()

asyncio.run(main())
"""


KILLS = 2


def killing(running: list[int], path: str, *, at_page: int):
    """Let a venue kill the process that asks it, when it asks for a page."""
    pages = [0]

    def misbehave(asked, _query, answer):
        pages[0] += asked == path
        if asked == path and pages[0] == at_page:
            os.kill(running[0], signal.SIGKILL)
        return answer

    return misbehave


@pytest.mark.parametrize("name", ["funding", "open-interest", "aggregate-trades"])
async def test_a_killed_fetch_goes_on_at_its_last_page(tmp_path, name):
    """Kill -9 while each of the first pages is under way: in the end every row is there once, and no page is torn."""
    kind = kind_named(name)
    async with kind_venue() as (venue, exchange):
        whole = KindStore(tmp_path / "whole")
        await fetched(exchange, whole, kind)
        pages, store = len(venue.pages(name)), KindStore(tmp_path / "killed")
        venue.asked.clear()
        for _ in range(KILLS):
            running = []
            venue.misbehave = killing(running, PATHS[name], at_page=2)
            process = await asyncio.create_subprocess_exec(
                sys.executable, "-c", KILLED, str(tmp_path / "killed"), name, venue.url,
                cwd=REPOSITORY, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
            )  # fmt: skip
            running.append(process.pid)
            async with asyncio.timeout(100):
                assert await process.wait() == -signal.SIGKILL
            # What is there is whole: the beginning of what there is to fetch.
            kept = store.read(kind, subject(kind))
            assert kept.equals(whole.read(kind, subject(kind)).take(slice(0, len(kept))))
        venue.misbehave = lambda _path, _query, answer: answer
        await fetched(exchange, store, kind)
        assert store.read(kind, subject(kind)).equals(whole.read(kind, subject(kind)))
        assert store.coverage(kind, subject(kind)).corrections == 0
        # Each kill costs the page that was under way; trades are found again by time.
        assert len(venue.pages(name)) <= pages + KILLS * (2 if kind is AGGREGATE_TRADES else 1)


async def test_two_fetches_at_once_store_each_row_once(tmp_path):
    """Two runs of the same kind and symbol, page against page, end with every row once and without corrections."""
    async with kind_venue() as (_, exchange):
        for kind in PAGED:
            store = KindStore(tmp_path)
            done = await asyncio.gather(*[fetched(exchange, store, kind) for _ in range(2)])
            assert sum(one.appended for one in done) == ROWS[kind] == len(store.read(kind, subject(kind)))
            assert store.coverage(kind, subject(kind)).corrections == 0


def changed(rows, **columns):
    return [{**row, **columns} for row in rows]


HOSTILE = [
    pytest.param(FUNDING, lambda rows: changed(rows, fundingTime=NOW + 90_000_000), "future", id="funding-future"),
    pytest.param(FUNDING, lambda rows: changed(rows, fundingTime=NOW * 1000), "future", id="funding-microseconds"),
    pytest.param(FUNDING, lambda rows: changed(rows, fundingRate="12.5"), "at most 1", id="funding-in-percent"),
    pytest.param(FUNDING, lambda rows: changed(rows, fundingRate=None), "unusable", id="funding-without-rate"),
    pytest.param(FUNDING, lambda rows: rows + changed(rows[:1], fundingRate="0.5"), "must say the same", id="twice"),
    pytest.param(MARK, lambda rows: [[row[0], *row[1:3], "-5", *row[4:]] for row in rows], "above 0", id="negative"),
    pytest.param(MARK, lambda rows: [[row[0] + 1, *row[1:]] for row in rows], "multiples of", id="mark-off-grid"),
    pytest.param(INDEX, lambda rows: [[row[0], "1", "2", "3", "1", "0"] for row in rows], "low <= open", id="torn"),
    pytest.param(INDEX, lambda rows: [[row[0], "x"] for row in rows], "unusable", id="index-text"),
    pytest.param(
        OPEN_INTEREST, lambda rows: changed(rows, sumOpenInterest="-1"), "open_interest must be", id="interest-negative"
    ),
    pytest.param(
        OPEN_INTEREST, lambda rows: changed(rows, timestamp=rows[0]["timestamp"] + 7), "multiples of", id="grid"
    ),
    pytest.param(AGGREGATE_TRADES, lambda rows: changed(rows, q="0"), "quantity must be above 0", id="nothing"),
    pytest.param(AGGREGATE_TRADES, lambda rows: changed(rows, a=5), "number|same", id="one-number"),
    pytest.param(BOOK, lambda book: {**book, "bids": [["200", "1"]]}, "crossed book", id="book-crossed"),
    pytest.param(BOOK, lambda book: {**book, "asks": [["-1", "1"]]}, "crossed|above 0", id="book-negative"),
    pytest.param(BOOK, lambda book: {**book, "T": NOW + 10**7, "E": NOW + 10**7}, "future", id="book-future"),
    pytest.param(BOOK, lambda _: {"bids": None}, "unusable", id="book-nothing"),
]


@pytest.mark.parametrize(("kind", "spoil", "expected"), HOSTILE)
async def test_a_hostile_reply_is_refused_and_the_lake_unchanged(tmp_path, kind, spoil, expected):
    """A reply that no honest venue sends is asked for again, then refused with its reason; nothing of it is stored."""
    store = KindStore(tmp_path)
    async with kind_venue() as (venue, exchange):
        await exchange.load_markets()
        path = PATHS[kind.name]
        venue.misbehave = lambda asked, _query, answer: spoil(answer) if asked == path else answer
        with pytest.raises(QuantumError, match=expected):
            await fetched(exchange, store, kind)
        assert len(venue.pages(kind.name)) > 1
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("kind", PAGED, ids=str)
@pytest.mark.parametrize(
    "spoil",
    [
        pytest.param(lambda rows: rows and seconds(rows), id="seconds"),
        pytest.param(lambda rows: rows and other_symbol(rows), id="another-symbol"),
        pytest.param(lambda rows: rows and timeless(rows), id="without-times"),
        pytest.param(lambda _: web.Response(text="<html>busy</html>"), id="html"),
        pytest.param(lambda _: web.Response(text='[{"symbol": "BTCU'), id="half-a-document"),
        pytest.param(lambda _: {"code": -1, "data": []}, id="another-form"),
    ],
)
async def test_replies_of_another_form_store_nothing(tmp_path, kind, spoil):
    """Seconds for milliseconds, another symbol's rows, and what is no answer at all leave no row behind."""
    store = KindStore(tmp_path)
    async with kind_venue() as (venue, exchange):
        await exchange.load_markets()
        path = PATHS[kind.name]
        venue.misbehave = lambda asked, _query, answer: spoil(answer) if asked == path else answer
        with contextlib.suppress(QuantumError):
            await ingest_kind(exchange, store, kind, subject(kind), NOW - 7_200_000, NOW)
    assert list(tmp_path.rglob("*.parquet")) == []


def seconds(rows):
    """Return rows with times a thousand times too small, in whatever field they have them."""
    if isinstance(rows[0], list):
        return [[row[0] // 1000, *row[1:]] for row in rows]
    names = ("fundingTime", "timestamp", "T")
    return [{name: value // 1000 if name in names else value for name, value in row.items()} for row in rows]


def timeless(rows):
    """Return rows without times."""
    if isinstance(rows[0], list):
        return [[None, *row[1:]] for row in rows]
    return changed(rows, **dict.fromkeys(("fundingTime", "timestamp", "T")))


def other_symbol(rows):
    """Return rows that name another instrument; candles and trades name none."""
    if isinstance(rows[0], list) or "symbol" not in rows[0]:
        return []
    return changed(rows, symbol="ETHUSDT")


async def test_a_venue_that_repeats_a_page_is_not_followed_for_ever(tmp_path):
    """Trades below the number that was asked for are refused, so that a page in a circle ends."""
    store = KindStore(tmp_path)
    async with kind_venue() as (venue, exchange):
        await exchange.load_markets()
        first = venue.honest(PATHS["aggregate-trades"], {"limit": "1000", "startTime": str(NOW - 31 * 3_600_000)})
        venue.misbehave = lambda path, _query, answer: first if path == PATHS["aggregate-trades"] else answer
        with pytest.raises(QuantumError, match="a trade with a number below 1000"):
            await fetched(exchange, store, AGGREGATE_TRADES)
    assert len(store.read(AGGREGATE_TRADES, BTC_PERP)) == 1_000


async def test_filters_follow_an_instrument_until_it_leaves(tmp_path):
    """A finer tick, a halt and a delisting are rows of their own, each known from when it was seen."""
    store = KindStore(tmp_path)
    async with kind_venue() as (venue, exchange):
        await exchange.load_markets()
        for hours, tick, status in ((0, "0.01", "TRADING"), (1, "0.01", "TRADING"), (2, "0.001", "BREAK")):
            venue.now_ms = NOW + hours * 3_600_000
            venue.instruments[0]["filters"][0]["tickSize"] = tick
            venue.instruments[0]["status"] = status
            await ingest_filters(exchange, store, [BTC_PERP])
        venue.now_ms, venue.instruments = NOW + 3 * 3_600_000, venue.instruments[1:]
        for _ in range(2):
            await ingest_filters(exchange, store, [BTC_PERP])
    rows = store.read(FILTERS, BTC_PERP)
    assert rows["status"].tolist() == ["TRADING", "BREAK", "NOT_LISTED"]
    np.testing.assert_allclose(rows["price_tick"], [0.01, 0.001, 0.001])
    assert ((rows.time_ms - NOW) // 3_600_000).tolist() == [0, 2, 3]
    assert store.read(FILTERS, BTC_PERP, as_of_ms=NOW + 3_600_000)["status"].tolist() == ["TRADING"]
    assert len(store.read(FILTERS, BTC_PERP, as_of_ms=NOW - 1)) == 0


async def test_repair_sets_a_damaged_file_aside_and_asks_again(tmp_path):
    """A damaged file stops its kind with the remedy; the remedy keeps the damaged bytes and brings every row back."""
    store = KindStore(tmp_path)
    async with kind_venue() as (_, exchange):
        await fetched(exchange, store, MARK)
        whole = store.read(MARK, BTC_5M)
        path = next(tmp_path.rglob("*.parquet"))
        path.write_bytes(path.read_bytes()[:-100])
        with pytest.raises(CorruptFileError, match="qtctl ingest --repair --kinds"):
            store.read(MARK, BTC_5M)
        await ingest_kind(exchange, store, MARK, BTC_5M, BEGIN, NOW, repair=True)
        assert store.read(MARK, BTC_5M).equals(whole)
    assert len(list(tmp_path.rglob("*.corrupt-*"))) == 1


async def test_repair_asks_again_where_a_venue_had_answered_nothing(tmp_path):
    """What a venue lacked, time after time, is believed to be absent until repair asks for it once more."""
    store = KindStore(tmp_path)
    async with kind_venue() as (venue, exchange):
        await exchange.load_markets()
        # Its newest rows it has: those are looked at before its silence is believed.
        venue.misbehave = lambda path, query, answer: [] if path == PATHS["index"] and "startTime" in query else answer
        assert (await fetched(exchange, store, INDEX)).appended == 0
        venue.misbehave = lambda _path, _query, answer: answer
        # Only the last hour is still open.
        assert (await fetched(exchange, store, INDEX)).appended == 11
        done = await ingest_kind(exchange, store, INDEX, BTC_5M, BEGIN, NOW, repair=True)
        assert done.appended == ROWS[INDEX] - 11


async def test_only_what_a_venue_gives_is_asked_for(tmp_path):
    """Spot has no funding, and open interest is not counted each minute: refused before anything is asked."""
    store = KindStore(tmp_path)
    async with kind_venue() as (venue, exchange):
        await exchange.load_markets()
        exchange.markets["BTC/USDT:USDT"]["swap"] = False
        with pytest.raises(BadInputError, match="funding of BTC/USDT:USDT is not fetched from venue sandbox"):
            await fetched(exchange, store, FUNDING)
        exchange.markets["BTC/USDT:USDT"]["swap"] = True
        each_minute = Subject("sandbox", "BTC/USDT:USDT", Timeframe.M1)
        with pytest.raises(BadInputError, match="use 5m or longer"):
            await ingest_kind(exchange, store, OPEN_INTEREST, each_minute, BEGIN, NOW)
        with pytest.raises(BadInputError, match="has no symbol 'NOPE/USDT:USDT'"):
            await ingest_kind(exchange, store, FUNDING, Subject("sandbox", "NOPE/USDT:USDT"), BEGIN, NOW)
        assert venue.pages("funding") == venue.pages("open-interest") == []


TIMES = {FUNDING: "fundingTime", OPEN_INTEREST: "timestamp", AGGREGATE_TRADES: "T"}


def in_seconds(kind: Kind):
    """Let a venue tell the times of a kind in seconds."""

    def misbehave(path, _query, answer):
        if path != PATHS[kind.name]:
            return answer
        if kind not in TIMES:
            return [[row[0] // 1000, *row[1:]] for row in answer]
        return [{**row, TIMES[kind]: row[TIMES[kind]] // 1000} for row in answer]

    return misbehave


@pytest.mark.parametrize("kind", PAGED, ids=str)
async def test_times_in_seconds_are_not_taken_for_silence(tmp_path, kind):
    """Rows with times in seconds, which ccxt drops, are an error; nothing is stored, and the next run fetches all."""
    async with kind_venue() as (venue, exchange):
        store, venue.misbehave = KindStore(tmp_path), in_seconds(kind)
        with pytest.raises(QuantumError, match=r"looks like seconds|asked for rows since"):
            await fetched(exchange, store, kind)
        assert len(store.read(kind, subject(kind))) == 0
        venue.misbehave = lambda _path, _query, answer: answer
        await fetched(exchange, store, kind)
        assert len(store.read(kind, subject(kind))) == ROWS[kind]


@pytest.mark.parametrize("kind", [FUNDING, MARK, OPEN_INTEREST], ids=str)
async def test_an_answer_without_any_row_is_not_taken_for_silence(tmp_path, kind):
    """Of a perpetual that has long been listed, "nothing at all" is no answer."""
    async with kind_venue() as (venue, exchange):
        store = KindStore(tmp_path)
        venue.misbehave = lambda path, _query, answer: [] if path == PATHS[kind.name] else answer
        with pytest.raises(QuantumError, match="not even the newest could be read"):
            await fetched(exchange, store, kind)
        assert len(store.read(kind, subject(kind))) == 0
