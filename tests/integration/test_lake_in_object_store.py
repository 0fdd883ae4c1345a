from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from feature_store.candle import CandleBlock, Timeframe
from feature_store.commands import lake as app
from feature_store.features.engine import FeatureEngine
from feature_store.lake import CandleLake
from feature_store.silences import ASKED_APART_MS
from feature_store.sources.asking import silences
from feature_store.sources.deriving import is_derived, keep_derived
from feature_store.sources.ingest import ingest_series
from feature_store.storage import storage_of
from feature_store.store import FeatureStore
from feature_store.terminal import run
from flows.frames import stored_series
from flows.settings import FlowSettings
from tests.feature_support import BTC, ETH, STEP, T0, market, same, without
from tests.feature_venue_double import venue_double
from tests.object_store import KEYS, object_store

CANDLES = 1_500
BLOCK = market(CANDLES)
NOW = T0 + CANDLES * STEP + 60_000


@pytest.fixture
def settings(tmp_path, monkeypatch):
    """Flow settings whose lake is in an object store."""
    with object_store() as server:
        for name, value in {**KEYS, "QT_LAKE": server.address("candles"), "QUANTUM_HOME": str(tmp_path)}.items():
            monkeypatch.setenv(name, value)
        yield FlowSettings.of()


async def test_ingest_features_and_frames_work_on_an_object_store(settings):
    """One setting moves the candles: they are fetched once, features are made, frames cut, and no file is local."""
    lake, store = settings.candle_lake(), FeatureStore(settings.features)
    async with venue_double({"BTCUSDT": BLOCK, "ETHUSDT": without(market(CANDLES, seed=2), slice(700, 750))}, NOW) as (
        double,
        exchange,
    ):
        done = await ingest_series(exchange, lake, [BTC, ETH], T0)
        assert {one: result.error for one, result in done.items()} == {BTC: None, ETH: None}
        asked = len(double.asked("/fapi/v1/klines"))
        await ingest_series(exchange, settings.candle_lake(), [BTC, ETH], T0)
        assert len(double.asked("/fapi/v1/klines")) == asked
    assert lake.read(BTC).equals(BLOCK)
    assert stored_series(lake, settings) == [BTC, ETH]
    store.materialize(lake, [BTC, ETH])
    assert [store.verify(lake, one) for one in (BTC, ETH)] == [0, 0]
    frame = store.training_frame(lake, [BTC], T0 + 500 * STEP, NOW, 12)[BTC]
    assert same(frame.features, FeatureEngine(Timeframe.M5).advance(BLOCK)[500:])
    known = store.features_as_of(lake, [BTC], T0 + 900 * STEP + STEP + 1_000)[BTC]
    assert known.open_time_ms == T0 + 900 * STEP
    assert not list(settings.lake.rglob("*.parquet"))


async def test_what_is_known_beside_the_candles_is_there_for_every_machine(settings, tmp_path):
    """Another machine of the same lake sees what was asked for, which gaps are the venue's, and what is derived."""
    here, there = settings.candle_lake(), CandleLake(tmp_path / "elsewhere", settings.candle_lake().place)
    gap = without(BLOCK, slice(700, 705))
    async with venue_double({"BTCUSDT": gap}, NOW) as (double, exchange):
        await ingest_series(exchange, here, [BTC], T0)
        double.now_ms += ASKED_APART_MS
        await ingest_series(exchange, there, [BTC], T0)
    # The venue's clock moved on and its candles did not: their end is the second silence.
    silence, end = silences(here, BTC)
    assert silence.asked_at_ms == (NOW, NOW + ASKED_APART_MS)
    assert end.asked_at_ms == (NOW + ASKED_APART_MS,)
    minutes = replace(BTC, symbol="X/USDT:USDT", timeframe=Timeframe.M1)
    times = T0 + np.arange(20) * 60_000
    here.append(minutes, CandleBlock(times - times[0] % 300_000, np.ones((20, 5))))
    await keep_derived(here, minutes, [Timeframe.M5])
    assert len(there.read(replace(minutes, timeframe=Timeframe.M5))) >= 3
    assert is_derived(there, replace(minutes, timeframe=Timeframe.M5))
    assert await keep_derived(there, minutes, [Timeframe.M5]) == {replace(minutes, timeframe=Timeframe.M5): 0}


def test_the_lake_is_looked_at_and_put_in_order_there(settings, capsys):
    """`qtctl lake` lists, checks, compacts, repairs and clears candles in an object store as it does in a folder."""

    def told(*arguments):
        status = run(app, [*arguments, "--json"])
        return status, json.loads(capsys.readouterr().out)

    lake = settings.candle_lake()
    lake.append(BTC, market(9_000))
    lake.append(ETH, BLOCK)
    status, shown = told("ls")
    assert (status, [(one["symbol"], one["files"], one["rows"]) for one in shown]) == (
        0,
        [(BTC.symbol, 2, 9_000), (ETH.symbol, 1, CANDLES)],
    )
    assert told("check") == (0, {"series": 2, "beside": 0, "whole": True, "findings": []})
    assert told("compact")[1]["months"] == 0
    assert told("compact", "--all")[1]["months"] == 3
    path = lake.paths(BTC)[1]
    storage_of(path).exchange(path, lambda _: lambda sink: sink.write(b"damaged"))
    status, shown = told("check")
    assert (status, [one["path"] for one in shown["findings"]]) == (1, [str(path)])
    status, (repaired,) = told("repair")
    assert status == 0
    assert ".corrupt-unreadable-" in repaired["set_aside"][0]["path"]
    assert told("check")[1]["whole"]
    lake.append(BTC, market(9_000))
    assert [one["symbol"] for one in told("retain", "--keep-days", "1")[1]] == [BTC.symbol, ETH.symbol]
    assert [place.stem for place in lake.paths(BTC)] == ["2023-12"]
    assert run(app, ["ls"]) == 0
    assert BTC.symbol in capsys.readouterr().out


def test_a_store_that_is_not_there_is_told_by_every_command(tmp_path, monkeypatch, capsys):
    """Each command ends with 1 and one sentence; none falls back to a folder."""
    for name, value in {**KEYS, "QUANTUM_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("QT_LAKE", "s3://bucket/lake?endpoint_override=http://127.0.0.1:1")
    for command in (["ls"], ["check"], ["compact"], ["repair"], ["retain", "--keep-days", "3"]):
        assert run(app, command) == 1
        assert "does not answer" in capsys.readouterr().err
    assert not (tmp_path / "lake").exists()
