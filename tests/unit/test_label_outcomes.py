"""How stored candles' trades would have ended, on the command line and in numbers."""

from __future__ import annotations

import json

import numpy as np
import pytest

from feature_store.errors import BadInputError
from feature_store.features.definition import INDEX
from feature_store.features.engine import FeatureEngine
from feature_store.kinds.definition import FILTERS, FUNDING, Subject
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from feature_store.lake import CandleLake
from feature_store.store import FeatureStore
from feature_store.upkeep import retain
from flows.feature_commands import labels
from flows.outcomes import outcomes
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from tests.feature_support import BTC, ETH, STEP, T0, market
from tests.label_support import driven_by_hand


def test_shares_and_means_are_those_of_trades_driven_by_hand(tmp_path):
    """Of a stored series, shares of barriers, holding times and net means equal one worker-like trade per candle."""
    block, policy = market(400, seed=21, tick=1e-8), Policy()
    lake = CandleLake(tmp_path)
    lake.append(BTC, block)
    atr = FeatureEngine(BTC.timeframe).advance(block)[:, INDEX["atr_14"]]
    first = 150
    found = outcomes(
        lake,
        FeatureStore(tmp_path / "features"),
        [BTC],
        start_ms=int(block.open_time_ms[first]),
        policy=policy,
        half_spread=0.0001,
    )
    for one, direction in zip(found, (Direction.LONG, Direction.SHORT), strict=True):
        slow = driven_by_hand(
            block[first:], atr[first:], policy, direction=direction, half_spread=0.0001, tick="0.000000000001"
        )
        slow = [trade for trade in slow if trade is not None]
        sign = 1 if direction is Direction.LONG else -1
        gross = np.array([sign * np.log(trade.exit_price / trade.entry) for trade in slow])
        cost = 2 * (0.0005 + 0.0002 + 0.0001)

        assert one.trades == len(slow)
        shares = (one.stopped, one.reached_target, one.timed_out)
        assert shares == pytest.approx([np.mean([trade.touched == kind for trade in slow]) for kind in (1, 2, 3)])
        assert sum(shares) == pytest.approx(1)
        assert one.candles_held == pytest.approx(np.mean([trade.held for trade in slow]))
        assert one.gross_bps == pytest.approx(1e4 * gross.mean(), rel=1e-6, abs=1e-6)
        assert one.net_bps == pytest.approx(1e4 * (gross + np.log1p(-cost)).mean(), rel=1e-6, abs=1e-6)
        assert 1 / 12 < one.uniqueness < 1


def test_stops_are_placed_by_what_retention_removed_too(tmp_path):
    """Once the oldest months are gone, every outcome is what it was: the range remembers the removed candles."""
    block = market(9_000, seed=23, start_ms=T0 + 10 * 86_400_000)
    lake, store = CandleLake(tmp_path), FeatureStore(tmp_path / "features")
    lake.append(BTC, block)
    first = lake.read_rows(BTC).block.open_time_ms
    start_ms = int(np.datetime64("2023-12-01", "ms").astype(np.int64))
    assert first[0] < start_ms < first[-1]
    choice = {"start_ms": start_ms, "policy": Policy(), "half_spread": 0.0001}
    before = outcomes(lake, store, [BTC], **choice)

    assert retain(lake, store, [BTC], keep_days=1)[0].months == ("2023-11",)
    assert lake.first_open_time_ms(BTC) == start_ms
    assert outcomes(lake, store, [BTC], **choice) == before
    assert outcomes(lake, FeatureStore(tmp_path / "elsewhere"), [BTC], **choice) != before


def test_stored_funding_is_paid_by_longs(tmp_path):
    """With a rate stored at every hour, longs keep less and shorts more, by about what was paid while held."""
    block = market(400, seed=22)
    lake = CandleLake(tmp_path)
    lake.append(BTC, block)
    start_ms = int(block.open_time_ms[0])
    before = outcomes(
        lake, FeatureStore(tmp_path / "features"), [BTC], start_ms=start_ms, policy=Policy(), half_spread=0.0
    )
    hours = np.arange(start_ms - start_ms % 3_600_000, int(block.open_time_ms[-1]), 3_600_000)
    records = Records.of(FUNDING, hours, funding_rate=np.full(len(hours), 1e-3))
    KindStore(lake.root).append(Subject.of(FUNDING, BTC), records, arrived_ms=int(block.open_time_ms[-1]) + STEP)
    long, short = outcomes(
        lake, FeatureStore(tmp_path / "features"), [BTC], start_ms=start_ms, policy=Policy(), half_spread=0.0
    )

    assert long.funding_settlements == len(hours)
    assert long.net_bps < before[0].net_bps - 1
    assert short.net_bps > before[1].net_bps + 1
    assert long.horizon_net_bps == pytest.approx(before[0].horizon_net_bps - 10, abs=0.5)
    assert (long.stopped, long.gross_bps) == (before[0].stopped, before[0].gross_bps)


def test_barriers_lie_on_the_stored_tick(tmp_path):
    """Where filters are stored, stops and targets are rounded to the newest tick among them, as the worker's are."""
    block, policy = market(300, seed=24, tick=1e-8), Policy()
    lake = CandleLake(tmp_path)
    lake.append(BTC, block)
    first, tick = 150, 0.5
    choice = {"start_ms": int(block.open_time_ms[first]), "policy": policy, "half_spread": 0.0001}
    bare, _ = outcomes(lake, FeatureStore(tmp_path / "features"), [BTC], **choice)
    told = {column.name: [np.nan, np.nan] for column in FILTERS.columns}
    told |= {"price_tick": [0.1, tick], "status": ["TRADING"] * 2, "listed_ms": [0, 0]}
    times = [int(block.open_time_ms[0]), int(block.open_time_ms[9])]
    records = Records.of(FILTERS, times, **told)
    KindStore(lake.root).append(Subject.of(FILTERS, BTC), records, arrived_ms=int(block.open_time_ms[-1]))
    long, _ = outcomes(lake, FeatureStore(tmp_path / "features"), [BTC], **choice)

    atr = FeatureEngine(BTC.timeframe).advance(block)[:, INDEX["atr_14"]]
    slow = driven_by_hand(
        block[first:], atr[first:], policy, direction=Direction.LONG, half_spread=0.0001, tick=str(tick)
    )
    slow = [trade for trade in slow if trade is not None]
    gross = [np.log(trade.exit_price / trade.entry) for trade in slow]
    assert long.trades == len(slow)
    assert long.gross_bps == pytest.approx(1e4 * np.mean(gross), rel=1e-6)
    assert long.gross_bps != pytest.approx(bare.gross_bps, rel=1e-3)


def test_the_command_takes_the_rules_of_the_worker(tmp_path, monkeypatch, capsys):
    """`--policy` reads the file that the worker reads: trades end by its holding time; a wrong rule is bad usage."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    CandleLake(tmp_path / "lake").append(BTC, market(300, seed=1))
    rules, wrong = tmp_path / "policy.toml", tmp_path / "wrong.toml"
    rules.write_text("max_holding_candles = 2\nstop_atr_multiple = 50\ntarget_atr_multiple = 60\n")
    wrong.write_text("max_hold = 2\n")

    assert labels(["--policy", str(rules), "--json"], exit_on_error=False, result_action="return_value") == 0
    told = json.loads(capsys.readouterr().out)
    assert [(one["timed_out"], one["candles_held"]) for one in told] == [(1.0, 2.0)] * 2
    with pytest.raises(BadInputError, match="unknown rules"):
        labels(["--policy", str(wrong)], exit_on_error=False, result_action="return_value")


def test_the_command_tells_a_table_or_json(tmp_path, monkeypatch, capsys):
    """One line for each series and side; a series too short to know anything has nulls in JSON, never NaN."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    for name in ("QT_VENUE", "QT_SYMBOLS", "QT_DAYS", "QT_TIMEFRAME"):
        monkeypatch.delenv(name, raising=False)
    lake = CandleLake(tmp_path / "lake")
    lake.append(BTC, market(300, seed=1))
    lake.append(ETH, market(10, seed=2))

    assert labels([], exit_on_error=False, result_action="return_value") == 0
    table = capsys.readouterr().out
    assert labels(["--json"], exit_on_error=False, result_action="return_value") == 0
    told = json.loads(capsys.readouterr().out, parse_constant=pytest.fail)

    assert table.count("long") == table.count("short") == 2
    assert "nan" not in table
    assert [one["symbol"] for one in told] == [BTC.symbol, BTC.symbol, ETH.symbol, ETH.symbol]
    assert told[0]["trades"] > 200
    assert told[2]["trades"] == 0
    assert told[2]["net_bps"] is None


@pytest.mark.parametrize("half_spread", ["-1", "5000"])
def test_impossible_spreads_are_refused(tmp_path, monkeypatch, half_spread):
    """A negative spread, or one of half the price, is a mistake in the unit."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    CandleLake(tmp_path / "lake").append(BTC, market(50, seed=1))

    with pytest.raises(BadInputError, match="half_spread"):
        labels(["--half-spread-bps", half_spread], exit_on_error=False, result_action="return_value")
