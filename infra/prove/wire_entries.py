"""
Entries that rest, worked by the worker's executor over HTTP at every price, beside a replay of the same approvals.

The venue stands still at each price until the executor has heard of its fills and looked at what rests, so that the
two meet the same prices; the worker's clock is the venue's word. Opinions are made by chance: what is compared is
execution.
"""

from __future__ import annotations

import asyncio
from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import aiohttp
import numpy as np

from feature_store.clock import monotonic
from feature_store.venue.factory import create_exchange
from flows.replay.market import Opinions, ScoredMarket
from inference.domain.decision import Approved
from inference.domain.policy import EntryStyle, Policy
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.execution.executor import Executor
from inference.execution.submission import ExecutionSettings
from inference.journal.writer import JournalWriter
from infra.prove.desk import API_KEY, API_SECRET
from infra.prove.servers import Servers
from infra.prove.stage import ProofError, Stage
from infra.prove.wire_candles import STEP_MS, WireCandles
from infra.prove.wire_compared import Compared, hold_against
from infra.prove.wire_replay import BALANCE, COSTS, Watched, funding_of, recorded_by, unified, walked
from infra.prove.wire_worker import SEED, SPEED, iso, told
from infra.sandbox.engine.path import STEP_MS as TICK_MS

RESTING = (EntryStyle.LIMIT, EntryStyle.POST_ONLY)
POLICY = Policy(
    confidence_threshold=0.5, cooldown_seconds=0, max_holding_candles=2, stop_atr_multiple=Decimal("0.6"),
    target_atr_multiple=Decimal("0.7"), risk_per_trade=Decimal("0.002"), max_notional=Decimal(1500),
    max_daily_drawdown=Decimal("0.15"), entry_patience_seconds=70,
)  # fmt: skip
_PATIENCE_S = 60.0
# The venue's switch counts while the venue stands still for us, and is a matter of its own.
_COUNTDOWN_S = 3600.0


def options(candles: WireCandles, folder: Path) -> dict[str, object]:
    """Write the candles; return the options of a sandbox that replays them and waits at its clock."""
    candles.write(folder / "candles.parquet")
    return {
        "replay": folder / "candles.parquet", "replay_start": iso(candles.opens_ms), "speed": SPEED, "seed": SEED,
        "lockstep": True, "balance": BALANCE, "taker_fee": COSTS.taker_fee, "maker_fee": COSTS.maker_fee,
        "spread_bps": COSTS.spread_bps, "intrabar": "path",
    }  # fmt: skip


def compare_entries(stage: Stage, candles: WireCandles, style: EntryStyle, *, decisions: int, name: str) -> Compared:
    """Let an executor work the entries of a replay at a venue of its own, and hold the two against each other."""
    folder = stage.home / name
    folder.mkdir()
    with Servers(stage) as servers:
        url = servers.sandbox(**options(candles, folder))
        return asyncio.run(compared(url, candles, style, folder, decisions=decisions))


async def compared(url: str, candles: WireCandles, style: EntryStyle, folder: Path, *, decisions: int) -> Compared:
    """Return what differs between an executor at the sandbox of that address and the replay that it follows."""
    policy = replace(POLICY, entry_style=style)
    market = opined(candles, decisions=decisions)
    walk = walked(market, policy)
    found = Compared(decisions=decisions, opinions=int(market.scored))
    await _work(url, walk, policy, folder / "journal.jsonl", market)
    engine, same = recorded_by(walk, market, policy)
    if not same:
        found.differences.append(f"{style}: the compiled engine makes other trades than the matching engine")
    wire = await asyncio.to_thread(told, url, folder / "journal.jsonl", tuple(candles.blocks))
    hold_against(found, wire, engine, int(market.open_time_ms[-1]))
    return found


def opined(candles: WireCandles, *, decisions: int) -> ScoredMarket:
    """Return the candles from their opening on, with opinions by chance at so many closes."""
    rng = np.random.default_rng(SEED)
    opinions, atr = {}, {}
    for name, block in candles.blocks.items():
        expected = 0.004 * rng.standard_normal(len(block))
        opinions[unified(name)] = Opinions(block.open_time_ms, expected, 0.5 + 0.3 * np.tanh(expected / 0.004))
        atr[unified(name)] = np.convolve(block.values[:, 1] - block.values[:, 2], np.ones(14) / 14)[: len(block)]
    begins_ms = candles.opens_ms + STEP_MS
    until_ms = begins_ms + decisions * STEP_MS
    return ScoredMarket.of(
        {unified(name): block for name, block in candles.blocks.items()},
        atr=atr,
        opinions=opinions,
        timeframe_ms=STEP_MS,
        threshold=0.6,
        model_version="wire",
        funding=funding_of(candles, seed=SEED, from_ms=begins_ms, until_ms=until_ms),
    ).between(begins_ms - STEP_MS, until_ms)


async def _work(url: str, walk: Watched, policy: Policy, journal_path: Path, market: ScoredMarket) -> None:
    clock = VenueClock(accelerated=True)
    exchange = create_exchange("sandbox", url=url, api_key=API_KEY, api_secret=API_SECRET)
    gateway = CcxtGateway(exchange, clock=clock, monotonic=monotonic, leverage=policy.leverage)
    try:
        async with aiohttp.ClientSession() as session:
            venue = _Venue(url, session)
            now_ms = await venue.lead()
            await gateway.connect()
            with JournalWriter.open(journal_path) as journal:
                hand = _Hand(venue, gateway, now_ms)
                executor = Executor(
                    gateway=gateway,
                    journal=journal,
                    book=Book(),
                    now_ms=lambda: hand.now_ms,
                    monotonic=monotonic,
                    sleep=asyncio.sleep,
                    taker_fee=policy.taker_fee,
                    settings=ExecutionSettings(countdown_seconds=_COUNTDOWN_S),
                    entry_style=policy.entry_style,
                    entry_patience_seconds=policy.entry_patience_seconds,
                )
                await executor.start()
                for row in range(1, len(market)):
                    await hand.candle(executor, walk, int(market.open_time_ms[row]))
    finally:
        await gateway.close()


class _Venue:
    """The control plane of a sandbox that stands still at every price."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def lead(self) -> int:
        """Take over its time, and return it."""
        await self._ctl(op="lead", each_tick=True)
        return await self._held_ms()

    async def go_on(self) -> int:
        """Let the next price come, and return its time."""
        await self._ctl(op="go_on")
        return await self._held_ms()

    async def _held_ms(self) -> int:
        ends = monotonic() + _PATIENCE_S
        while monotonic() < ends:
            async with self._session.get(f"{self._url}/sandbox/status") as answer:
                held_ms: int | None = (await answer.json())["held_ms"]
            if held_ms is not None:
                return held_ms
            await asyncio.sleep(0.005)
        raise ProofError(f"The sandbox did not stand still within {_PATIENCE_S:.0f} s")

    async def _ctl(self, **operation: object) -> None:
        async with self._session.post(f"{self._url}/sandbox/ctl", json=operation) as answer:
            answer.raise_for_status()


class _Hand:
    """Leads a venue from price to price, and lets an executor do at each what a worker does."""

    def __init__(self, venue: _Venue, gateway: CcxtGateway, now_ms: int) -> None:
        self.now_ms = now_ms
        self._venue, self._gateway = venue, gateway

    async def candle(self, executor: Executor, walk: Watched, close_ms: int) -> None:
        """Follow the prices up to a close, then do what the replay was asked to do there."""
        while self.now_ms < close_ms:
            before_ms, self.now_ms = self.now_ms, await self._venue.go_on()
            if self.now_ms != before_ms + TICK_MS:
                raise ProofError(f"The sandbox went from {before_ms} to {self.now_ms} and not to the next price")
            await self._gateway.sync_clock()
            await self._look(executor)
        for at_ms, asked in walk.asked:
            if at_ms != close_ms:
                continue
            if isinstance(asked, Approved):
                await executor.enter(asked, candle_close_ms=close_ms)
            else:
                await executor.request_exit(*asked)
        if executor.failure is not None:
            raise ProofError(f"Execution failed: {executor.failure}")

    async def _look(self, executor: Executor) -> None:
        symbols = sorted({trade.symbol for trade in executor.book.active()})
        if symbols:
            await executor.reconcile()
        for symbol in symbols:
            await executor.settle(symbol)
