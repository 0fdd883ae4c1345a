"""A real worker at the real sandbox: what its decisions read is what the lake gives, until the lake is changed."""

from __future__ import annotations

import asyncio
import signal

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.extensions.settings import ViewSettings
from feature_store.lake import CandleLake
from feature_store.skew import Cause
from feature_store.sources.ingest import ingest_series
from feature_store.store import FeatureStore
from feature_store.venue.async_time import venue_time_ms
from feature_store.venue.factory import create_exchange
from flows.settings import FlowSettings
from flows.skewing import audit_skew, used_rows
from tests.extension_support import PLAIN_NUMPY, written
from tests.integration.test_worker_process import worker
from tests.sandbox_support import running_sandbox
from tests.worker_bundle import make_bundle

SYMBOLS = ("BTC/USDT:USDT", "ETH/USDT:USDT", "SOL/USDT:USDT")
STEP = Timeframe.M5.milliseconds
HISTORY = 700
"""More candles than a worker without a state would ask for."""


async def _ingest(lake: CandleLake, url: str) -> list[Series]:
    """Bring the lake to the exchange's present."""
    exchange = create_exchange("sandbox", url=url)
    try:
        now_ms = await venue_time_ms(exchange)
        await exchange.load_markets()
        listed = [symbol for symbol in SYMBOLS if symbol in exchange.markets] or list(exchange.markets)[:3]
        series = [Series("sandbox", symbol, Timeframe.M5) for symbol in listed]
        await ingest_series(exchange, lake, series, now_ms - HISTORY * STEP, now_ms)
    finally:
        await exchange.close()
    return series


async def test_added_inputs_read_what_the_lake_gives(tmp_path, monkeypatch):
    """A worker journals what it reads of features of one's own and of BTC, and the lake's candles explain all of it."""
    home = tmp_path / "home"
    chosen = {
        "QT_EXTENSIONS": str(written(tmp_path, PLAIN_NUMPY)),
        "QT_INCLUDE_SYMBOLS": "BTC/USDT:USDT",
        "QT_INCLUDE_INPUTS": "log_return_6,rsi",
    }
    for name, value in chosen.items():
        monkeypatch.setenv(name, value)
    view = ViewSettings.of().view()
    bundle = make_bundle(tmp_path / "bundle", view=view)
    lake = CandleLake(home / "lake")
    async with running_sandbox(symbols=3, speed=150, seed=8, state=tmp_path / "s") as sandbox:
        series = await _ingest(lake, sandbox.url)
        async with worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle), **chosen) as running:
            await running.until(lambda one: one["batches_processed"] >= 3)
            await running.end(signal.SIGTERM)
        await _ingest(lake, sandbox.url)

    settings = FlowSettings.of(home=home, venue="sandbox")
    report = await asyncio.to_thread(audit_skew, settings, 24)
    used = used_rows(settings.journal, 24)

    assert report.rows >= 3 * len(series)
    assert all(one is not None and one.names == view.extra_names for each in used.values() for one in each.added)
    # It read fewer candles than the lake holds, and at this speed a candle may come late: nothing else may be.
    assert {one.cause for one in report.differences} <= {Cause.OTHER_START, Cause.LATE, Cause.GAP}


async def test_decisions_read_what_the_lake_gives(tmp_path):
    """Through a restart no row differs; a correction and a hole made afterwards are found and named, and only they."""
    home = tmp_path / "home"
    lake = CandleLake(home / "lake")
    bundle = make_bundle(tmp_path / "bundle")
    async with running_sandbox(symbols=3, speed=150, seed=8, state=tmp_path / "s") as sandbox:
        series = await _ingest(lake, sandbox.url)
        FeatureStore(home / "features").materialize(lake, series)
        for how in (signal.SIGTERM, signal.SIGKILL):
            async with worker(home, "--venue-url", sandbox.url, "--bundle", str(bundle)) as running:
                await running.until(lambda one: one["batches_processed"] >= 3)
                await running.end(how)
        await _ingest(lake, sandbox.url)

    settings = FlowSettings.of(home=home, venue="sandbox")
    clean = await asyncio.to_thread(audit_skew, settings, 24)
    first, second = series[0], series[1]
    newest = lake.read(first)[-3:-2]
    corrected = CandleBlock(newest.open_time_ms, newest.values * np.array([1.0, 1.0, 1.0, 1.0, 1.5]))
    lake.append(first, corrected)
    hole = lake.read(second)
    for path in lake.paths(second):
        path.unlink()
    lake.append(second, CandleBlock(np.delete(hole.open_time_ms, -3), np.delete(hole.values, -3, axis=0)))
    changed = await asyncio.to_thread(audit_skew, settings, 24)

    assert clean.differences == ()
    assert clean.series == len(series)
    assert clean.rows >= 2 * 3 * len(series)
    # What comes of the hole in later rows no recomputation gives again.
    assert {(one.series, one.cause) for one in changed.differences} <= {
        (first, Cause.CORRECTED),
        (second, Cause.MISSING),
        (second, Cause.UNEXPLAINED),
    }
    assert {one.cause for one in changed.differences} >= {Cause.CORRECTED, Cause.MISSING}
    assert all("the lake holds" in one.detail for one in changed.unexplained)
