"""The real worker over HTTP and WebSocket, and a backtest of the same candles, make the same trades."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.candle import CandleBlock
from flows.replay.fast import FastEngine
from flows.replay.market import Opinions, ScoredMarket
from flows.replay.outcome import END_OF_DATA
from flows.replay.word import replay
from inference.domain.events import CandlesDecided
from inference.domain.signal import Direction
from inference.journal.codec import event_of
from inference.journal.reader import read_entries
from inference.policy.policy_file import read_policy
from infra.prove.wire_worker import asleep, kept_out
from tests.sandbox_support import ROOT, SandboxProcess, running_sandbox
from tests.worker_bundle import make_bundle

SYMBOLS = {"BTCUSDT": (30_000.0, 1), "ETHUSDT": (2_000.0, 2), "SOLUSDT": (20.0, 3)}
STEP_MS = 300_000
# Ten o'clock: far from midnight, and from the next boundary of funding.
OPENS_MS = int(datetime(2026, 1, 8, 10, tzinfo=UTC).timestamp()) * 1000
BEFORE, AFTER = 900, 60
DECIDED = 14
POLICY = """
confidence_threshold = 0.5
cooldown_seconds = 0
max_holding_candles = 3
stop_atr_multiple = 0.8
target_atr_multiple = 0.9
risk_per_trade = 0.002
max_notional = 1500
max_daily_drawdown = 0.15
taker_fee = 0.0001
slippage = 0
"""


def recorded(folder: Path) -> dict[str, CandleBlock]:
    """Write candles without gaps between close and open, on ticks, and return them by native name."""
    rng = np.random.default_rng(12)
    count = BEFORE + AFTER
    times = OPENS_MS + STEP_MS * (np.arange(count, dtype=np.int64) - BEFORE)
    blocks, tables = {}, []
    for name, (usual, decimals) in SYMBOLS.items():
        close = np.round(usual * np.exp(np.cumsum(0.002 * rng.standard_normal(count))), decimals)
        opened = np.concatenate([close[:1], close[:-1]])
        wick = np.abs(0.001 * usual * rng.standard_normal((2, count)))
        high = np.round(np.maximum(opened, close) + wick[0], decimals)
        low = np.round(np.minimum(opened, close) - wick[1], decimals)
        volume = np.round(rng.uniform(50, 150, count), 2)
        values = np.stack([opened, high, low, close, volume], axis=1)
        blocks[name] = CandleBlock(times, values)
        columns = dict(zip(("open", "high", "low", "close", "volume"), values.T, strict=True))
        said = {"exchange": ["binance_usdm"] * count, "symbol": [name] * count, "timeframe": ["5m"] * count}
        tables.append(pa.table(said | {"ts": times} | columns))
    pq.write_table(pa.concat_tables(tables), folder / "candles.parquet")
    return blocks


async def traded(home: Path, sandbox: SandboxProcess, bundle: Path) -> None:
    """Run the worker until it has decided some candles, then stop it as a person would; time waits for it."""
    light = ROOT / ".venv-worker" / "bin" / "python"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("QT_")}
    process = await asyncio.create_subprocess_exec(
        str(light if light.exists() else sys.executable), "-m", "inference.cli", "worker",
        "--policy", str(home / "policy.toml"), "--venue-url", sandbox.url, "--bundle", str(bundle),
        cwd=ROOT, stderr=asyncio.subprocess.PIPE,
        env=environment | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "QUANTUM_HOME": str(home)},
    )  # fmt: skip
    try:
        async with asyncio.timeout(420):
            while len(decisions(home)) < DECIDED:
                assert process.returncode is None, (await process.stderr.read()).decode()
                await settled(home, sandbox, process.pid)
                await sandbox.ctl(op="go_on")
                await asyncio.sleep(0.02)
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        await process.wait()


async def settled(home: Path, sandbox: SandboxProcess, worker: int) -> None:
    """
    Return once nobody has anything left to do at this venue time.

    A worker that trades decides each candle that closes. Beyond that, on a machine however slow, it is done when none
    of its threads has run and no request was made, at eight looks one after another.
    """
    looks, requests = 0, -1
    # What it decides first depends on when it was ready.
    begun_by = asyncio.get_running_loop().time() + 6.0
    while looks < 8:
        status = await sandbox.get("/sandbox/status")
        held_ms = status["held_ms"]
        quiet = held_ms is not None and asleep(worker) and status["requests"] == requests
        looks, requests = looks + 1 if quiet else 0, status["requests"]
        if looks and held_ms % STEP_MS == 0:
            newest = max((one.snapshot.candle_close_ms for one in decisions(home)), default=None)
            if asyncio.get_running_loop().time() < begun_by if newest is None else newest < held_ms:
                looks = 0
        await asyncio.sleep(0.05)


def decisions(home: Path) -> list[CandlesDecided]:
    """Return what the journal says was decided, with all that was looked at."""
    journal = home / "journal" / "journal.jsonl"
    entries = read_entries(journal) if journal.exists() else ()
    return [event_of(one) for one in entries if one.type == CandlesDecided.event_type]


def scored(blocks: dict[str, CandleBlock], decided: list[CandlesDecided]) -> ScoredMarket:
    """Return the candles with the very opinions that the worker could act on: those of a worker that was ready."""
    unified = {name: f"{name.removesuffix('USDT')}/USDT:USDT" for name in blocks}
    places = {symbol: name for name, symbol in unified.items()}
    atr = {symbol: np.full(BEFORE + AFTER, np.nan) for symbol in places}
    said: dict[str, list[tuple[int, float, float]]] = {symbol: [] for symbol in places}
    threshold = 0.5
    for one in decided:
        open_ms = one.snapshot.candle_close_ms - STEP_MS
        out = kept_out(one)
        for candidate in one.snapshot.candidates:
            if candidate.signal.symbol in out:
                continue
            signal_, symbol = candidate.signal, candidate.signal.symbol
            rising = signal_.probability if signal_.direction is Direction.LONG else 1 - signal_.probability
            said[symbol].append((open_ms, signal_.expected_return, rising))
            atr[symbol][(open_ms - OPENS_MS) // STEP_MS + BEFORE] = candidate.atr
            threshold = candidate.threshold
    market = ScoredMarket.of(
        {symbol: blocks[name] for symbol, name in places.items()},
        atr=atr,
        opinions={
            symbol: Opinions(
                np.array([row[0] for row in rows], np.int64), np.array([row[1] for row in rows]),
                np.array([row[2] for row in rows]),
            )
            for symbol, rows in said.items()
        },
        timeframe_ms=STEP_MS,
        threshold=threshold,
        model_version="wire",
    )  # fmt: skip
    first, last = decided[0].snapshot.candle_close_ms, decided[-1].snapshot.candle_close_ms
    return market.between(first - STEP_MS, last + STEP_MS)


async def test_wire_word_and_sweep_engine_make_the_same_trades(tmp_path):
    """Entries, exits, prices, quantities and money agree to the last digit, whichever of the three ways is taken."""
    blocks = recorded(tmp_path)
    bundle = make_bundle(tmp_path / "bundle")
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "policy.toml").write_text(POLICY)
    options = {
        "replay": tmp_path / "candles.parquet",
        "replay_start": "2026-01-08T10:00:00Z",
        "speed": 240,
        "intrabar": "path",
    }
    async with running_sandbox(**options, lockstep=True) as sandbox:
        await sandbox.ctl(op="lead")
        await traded(tmp_path / "home", sandbox, bundle)
        audit = await sandbox.get("/sandbox/audit")
    decided = decisions(tmp_path / "home")
    market = scored(blocks, decided)
    policy = read_policy(tmp_path / "home" / "policy.toml")
    word = replay(market, policy, balance=Decimal(10_000))
    last_ms = decided[-1].snapshot.candle_close_ms

    wire = sorted(
        (one["closed_ms"], f"{one['symbol'].removesuffix('USDT')}/USDT:USDT", one["direction"].upper(),
         one["opened_ms"], Decimal(one["quantity"]), one["entry"], one["exit"], Decimal(one["fees"]))
        for one in audit["trades"] if one["closed_ms"] < last_ms
    )  # fmt: skip
    ours = sorted(
        (one.closed_ms, one.symbol, one.direction.value, one.opened_ms, one.quantity, f"{one.entry_price:.10g}",
         f"{one.exit_price:.10g}", one.fees)
        for one in word.trades if one.closed_ms < last_ms and one.reason != END_OF_DATA
    )  # fmt: skip
    assert len(wire) >= 5
    assert ours == wire
    assert FastEngine(market).run(policy, balance=Decimal(10_000)).trades == word.trades
