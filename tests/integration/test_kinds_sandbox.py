from __future__ import annotations

import numpy as np
import pytest

from feature_store.candle import Timeframe
from feature_store.kinds.definition import (
    AGGREGATE_TRADES,
    BOOK,
    FILTERS,
    FUNDING,
    INDEX,
    MARK,
    OPEN_INTEREST,
    Subject,
)
from feature_store.kinds.store import KindStore
from feature_store.sources.kind_ingest import ingest_kind
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.factory import create_exchange
from tests.kind_support import HOUR
from tests.sandbox_support import running_sandbox

DAY = 24 * HOUR
SOL = Subject("sandbox", "SOL/USDT:USDT")
SOL_5M = Subject("sandbox", "SOL/USDT:USDT", Timeframe.M5)


async def test_every_kind_comes_whole_from_the_sandbox(tmp_path):
    """Through unmodified ccxt each kind is fetched whole, agrees with the others, and a second run brings nothing."""
    store = KindStore(tmp_path / "lake")
    async with running_sandbox(symbols=3, seed=5, history_days=8, speed=1, state=tmp_path / "sandbox") as sandbox:
        exchange = create_exchange("sandbox", url=sandbox.url, pro=False)
        try:
            now_ms = await venue_time_ms(exchange)
            start_ms = (now_ms - 7 * DAY) // 1000 * 1000
            done = {}
            for kind in (FUNDING, MARK, INDEX, OPEN_INTEREST, FILTERS, BOOK):
                subject = SOL_5M if kind.has_timeframe else SOL
                done[kind] = await ingest_kind(exchange, store, kind, subject, start_ms, now_ms)
            trades = await ingest_kind(exchange, store, AGGREGATE_TRADES, SOL, now_ms - 4 * HOUR, now_ms)
            again = [
                await ingest_kind(exchange, store, kind, SOL_5M if kind.has_timeframe else SOL, start_ms, now_ms)
                for kind in (FUNDING, MARK, INDEX, OPEN_INTEREST, FILTERS)
            ]
        finally:
            await exchange.close()

    assert [one.appended for one in again] == [0] * 5
    assert sum(one.pages for one in again[1:4]) == 0
    funding = store.read(FUNDING, SOL)
    assert funding.time_ms.tolist() == list(range(-(-start_ms // (8 * HOUR)) * 8 * HOUR, now_ms, 8 * HOUR))
    candles = range(-(-start_ms // 300_000) * 300_000, now_ms // 300_000 * 300_000, 300_000)
    mark, index = store.read(MARK, SOL_5M), store.read(INDEX, SOL_5M)
    assert mark.time_ms.tolist() == list(candles)
    assert index.columns["close"].tolist() == mark.columns["close"].tolist()
    interest = store.read(OPEN_INTEREST, SOL_5M)
    assert interest.time_ms.tolist() == [*candles, candles[-1] + 300_000]
    # What is open is worth its number times the price at that moment: the close of the candle before.
    worth = interest["open_interest"][1:] * mark["close"]
    np.testing.assert_allclose(interest["open_interest_value"][1:], worth, rtol=1e-9)
    assert done[MARK].pages >= 3
    prints = store.read(AGGREGATE_TRADES, SOL)
    assert np.diff(prints["trade_id"]).tolist() == [1] * (len(prints) - 1)
    assert trades.pages >= 2
    assert len(prints) == pytest.approx(4 * HOUR / 10_000, abs=2)
    assert store.read(FILTERS, SOL)["status"].tolist() == ["TRADING"]
    book = store.read(BOOK, SOL)
    assert len(book) == 40
    assert book["price"][book["is_bid"]].max() < book["price"][~book["is_bid"]].min()
