"""
Streams that die without a word: how soon that is noticed, and whether a candle is lost or handed out twice.

Nothing decides here: what the feed hands out once is decided on once, which the decisions' own proofs show.
"""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

from feature_store.candle import Timeframe
from feature_store.clock import monotonic
from feature_store.errors import QuantumError
from inference.feed.batches import BatchAssembler
from inference.feed.candle_feed import CandleFeed
from inference.feed.history import closed_candles
from infra.prove.desk import Desk, open_desk
from infra.prove.fault_story import until
from infra.prove.own_venue import OwnVenue, own_venue
from infra.prove.proof import Proof, Size
from infra.prove.stage import Stage

BOUND_S = 10.0
# Seconds of the venue in one of the wall: a candle of a minute lasts as long as that on the last of them.
SPEEDS = {Size.CI: (60.0, 20.0), Size.FULL: (600.0, 60.0, 10.0, 1.0)}
_AT_ONCE = 9
_PATIENCE_S = 20.0
_DEAD_CANDLES, _WELL_CANDLES = 2, 2
_LENGTH = Timeframe.M1
_BTC = "BTC/USDT:USDT"


@dataclass(frozen=True, slots=True)
class Death:
    """
    One way in which streams die, and which.

    `is_survived` marks a frame that need not kill: then what comes after it is as good as a new connection. `stirs`
    lets something happen on the account, as a quiet stream that is frozen loses nothing.
    """

    name: str
    operations: tuple[dict[str, Any], ...]
    market: bool = True
    user: bool = True
    is_survived: bool = False
    stirs: bool = False


def _frame(text: str, to: str) -> tuple[dict[str, Any], ...]:
    return ({"op": "push", "frame": text, "to": to},)


_HANDSHAKE = {"op": "wsfault", "handshake": 429, "times": 3, "secs": 1.0}
DEATHS = (
    Death("frozen, both", ({"op": "freeze_ws"},), stirs=True),
    Death("frozen, market", ({"op": "wsfault", "freeze_market": True},), user=False),
    Death("frozen, account", ({"op": "wsfault", "drop_user": True},), market=False, stirs=True),
    Death("malformed frame, market", _frame('{"e":"kline","k":{', "market"), user=False),
    Death("malformed frame, account", _frame('{"e":"ORDER_TRADE_UPDATE",', "user"), market=False),
    Death("[] frame", _frame("[]", "all"), is_survived=True),
    Death("kline without k", _frame('{"e":"kline","E":1,"s":"BTCUSDT"}', "market"), user=False, is_survived=True),
    Death("black hole", ({"op": "black_hole"},)),
    Death("listen key expired", ({"op": "expire_key"},), market=False),
    Death("listen key lost in silence", ({"op": "expire_key", "silent": True},), market=False),
    Death("closed after 24 h", ({"op": "kill_ws"},)),
    Death("cut off", ({"op": "kill_ws", "hard": True},)),
    Death("handshake 429", (_HANDSHAKE, {"op": "kill_ws"})),
)


@dataclass(slots=True)
class Seen:
    """What one death did."""

    market_s: float | None = None
    user_s: float | None = None
    lost: int = 0
    doubled: int = 0
    candles: int = 0
    wrong: list[str] = field(default_factory=list)


def prove(size: Size) -> Proof:
    """Let each stream die in each way at each speed of the venue's clock; count what the feed handed out meanwhile."""
    began = monotonic()
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)
    with Stage("stream-death") as stage:
        folder = stage.home / "journals"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        cases = [(death, speed) for speed in reversed(SPEEDS[size]) for death in DEATHS]
        found = asyncio.run(_run(cases, folder))
    times = [one for seen in found for one in (seen.market_s, seen.user_s) if one is not None]
    lost, doubled = sum(seen.lost for seen in found), sum(seen.doubled for seen in found)
    wrong = [
        f"{death.name} at {speed:g}x: {text}"
        for (death, speed), seen in zip(cases, found, strict=True)
        for text in seen.wrong
    ]
    worst = max(times, default=0.0)
    return Proof(
        name="stream-death",
        figure=f"{len(DEATHS)} deaths at {len(SPEEDS[size])} speeds of the clock: noticed within {worst:.1f} s of the "
        f"wall, {lost} candles lost, {doubled} doubled, {len(wrong)} not noticed or not well again",
        bar=f"<= {BOUND_S:g} s; 0, 0, 0",
        holds=bool(times) and worst <= BOUND_S and not lost and not doubled and not wrong,
        details=(
            f"{sum(seen.candles for seen in found)} candles in {monotonic() - began:.0f} s; market, account noticed:",
            *(
                f"{death.name:<28} {speed:>4g}x  {_told(seen.market_s)}  {_told(seen.user_s)}"
                for (death, speed), seen in zip(cases, found, strict=True)
            ),
            *wrong[:30],
        ),
    )


def _told(seconds: float | None) -> str:
    return "   -   " if seconds is None else f"{seconds:5.1f} s"


async def _run(cases: list[tuple[Death, float]], folder: Path) -> list[Seen]:
    room = asyncio.Semaphore(_AT_ONCE)

    async def one(number: int, death: Death, speed: float) -> Seen:
        async with room, own_venue(speed=speed) as venue, open_desk(venue.url, folder / f"{number}.jsonl") as desk:
            return await _die(death, venue, desk)

    return list(await asyncio.gather(*(one(number, *case) for number, case in enumerate(cases))))


async def _die(death: Death, venue: OwnVenue, desk: Desk) -> Seen:
    seen, batches = Seen(), []
    symbols = desk.gateway.tradable_symbols()
    start = _LENGTH.last_closed_open_ms(desk.now_ms())
    feed = CandleFeed(
        desk.exchange,
        assembler=BatchAssembler(last_open_ms=dict.fromkeys(symbols, start), timeframe=_LENGTH),
        timeframe=_LENGTH,
        clock=desk.clock,
        monotonic=monotonic,
        ask_time=desk.gateway.sync_clock,
    )

    async def take() -> None:
        while True:
            batches.append(await feed.batches.get())

    tasks = [asyncio.create_task(feed.run()), asyncio.create_task(take())]
    try:
        await _begin(feed, desk, batches, seen)
        # Let each side be heard once, so that what follows is a death and not a birth.
        await asyncio.sleep(1.0)
        await _notice(death, venue, desk, feed, seen)
        await _more(batches, desk, _DEAD_CANDLES)
        await venue.do(op="clear")
        healed = monotonic()
        await _well(death, venue, desk, feed, seen)
        await _more(batches, desk, _WELL_CANDLES)
        seen.wrong += [] if feed.silence_seconds < monotonic() - healed else ["the market's stream came not back"]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    await _count(batches, desk, start, seen)
    return seen


async def _begin(feed: CandleFeed, desk: Desk, batches: list[Any], seen: Seen) -> None:
    stream = desk.stream
    assert stream is not None
    born = await until(lambda: feed.silence_seconds < 0.5 and stream.is_connected, _PATIENCE_S)
    if born is None:
        seen.wrong.append("the streams did not open")
    await _more(batches, desk, 1)


async def _notice(death: Death, venue: OwnVenue, desk: Desk, feed: CandleFeed, seen: Seen) -> None:
    stream = desk.stream
    assert stream is not None
    reopened, redialled = feed.reconnects, stream.reconnects
    for operation in death.operations:
        await venue.do(**operation)
    died = monotonic()
    if death.stirs:
        await venue.do(op="trade", symbol="BTCUSDT", side="BUY", quantity=0.01)

    def market_knows() -> bool:
        survived = death.is_survived and feed.silence_seconds < monotonic() - died - 0.1
        return feed.reconnects > reopened or survived

    def user_knows() -> bool:
        return stream.reconnects > redialled or (death.is_survived and stream.is_connected)

    async def noticed(knows: Callable[[], bool]) -> float | None:
        return await until(knows, _PATIENCE_S)

    both = await asyncio.gather(
        noticed(market_knows) if death.market else asyncio.sleep(0),
        noticed(user_knows) if death.user else asyncio.sleep(0),
    )
    seen.market_s, seen.user_s = both
    if (death.market and both[0] is None) or (death.user and both[1] is None):
        seen.wrong.append(f"not noticed in {_PATIENCE_S:g} s")


async def _well(death: Death, venue: OwnVenue, desk: Desk, feed: CandleFeed, seen: Seen) -> None:
    """Wait until both streams bring what happens, and until what happened unseen is known."""
    stream = desk.stream
    assert stream is not None
    healed = monotonic()

    def is_back() -> bool:
        return feed.silence_seconds < min(0.6, monotonic() - healed) and stream.is_connected

    if await until(is_back, 2 * _PATIENCE_S) is None:
        seen.wrong.append("a stream did not come back")
    await venue.do(op="liquidation", symbol="BTCUSDT") if death.stirs and _is_open(venue) else None
    with suppress(QuantumError):
        await desk.executor.reconcile()
    flat = await until(lambda: not _is_open(venue) and not any(desk.executor.book.active()), _PATIENCE_S)
    if flat is None:
        seen.wrong.append("what another hand opened was not found and closed")


def _is_open(venue: OwnVenue) -> bool:
    return bool(venue.sandbox.venue.exchange.state.open_positions())


async def _more(batches: list[Any], desk: Desk, count: int) -> None:
    """Wait for so many more closes, by the venue's clock."""
    wanted = len(batches) + count
    seconds = count * desk.clock.wall_seconds(_LENGTH.milliseconds)
    await until(lambda: len(batches) >= wanted, 2 * seconds + _PATIENCE_S)


async def _count(batches: list[Any], desk: Desk, start: int, seen: Seen) -> None:
    """Hold what was handed out against the venue's history: each candle once, none missing, each as it is there."""
    for symbol in desk.gateway.tradable_symbols():
        blocks = [batch.blocks[symbol] for batch in batches if symbol in batch.blocks]
        times = Counter(time for block in blocks for time in block.open_time_ms.tolist())
        last = max(times, default=start)
        history = await closed_candles(
            desk.exchange, symbol, _LENGTH, after_ms=start, closed_by_ms=last + _LENGTH.milliseconds
        )
        seen.candles += times.total()
        seen.doubled += times.total() - len(times)
        seen.lost += len(set(history.open_time_ms.tolist()) - times.keys())
        handed = {candle.open_time_ms: candle for block in blocks for candle in block.candles()}
        if any(handed.get(one.open_time_ms) not in (None, one) for one in history.candles()):
            seen.wrong.append(f"a candle of {symbol} is another at the venue")
    closes = Counter(batch.close_time_ms for batch in batches)
    seen.doubled += closes.total() - len(closes)
    if Decimal(len(closes)) < _DEAD_CANDLES + _WELL_CANDLES:
        seen.wrong.append(f"only {len(closes)} closes were handed out")
