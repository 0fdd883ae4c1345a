"""What execution keeps in memory does not grow with the number of trades: objects are counted, not bytes or seconds."""

from __future__ import annotations

import gc
import random
import types
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from types import SimpleNamespace

import numpy as np
import pytest

from feature_store.candle import Timeframe
from feature_store.venue.factory import create_exchange
from inference.domain.events import Event
from inference.domain.order import Fill, Side
from inference.domain.policy import Policy
from inference.domain.trade import ExitReason
from inference.exchange.candle_connections import ManyAtOnce
from inference.exchange.user_stream import UserStream
from inference.exchange.venue_clock import TimeSample, VenueClock
from inference.execution.book import Book
from inference.execution.heard import HeardJournal
from inference.feed.candle_stream import CandleStream
from inference.supervision.risk_watch import RiskWatch
from tests.worker_support import FakeClock, FakeGateway, make_executor
from tests.worker_values import T0, make_approved

BTC, NAME = "BTC/USDT:USDT", "BTCUSDT"
FATES = ("", "", "drop", "exec_then_drop", "late", "hang", "partial", "overload")
KEPT, ROUNDS = 10, 100
# Far enough apart that a day of entries is as many trades as are made between two counts.
PAUSE_S = 1_000.0
# An entry more or less within the last day, and what stands for it.
SLACK = 6
_CODE = (type, types.ModuleType, types.CodeType, types.FrameType, types.BuiltinFunctionType)


class UnkeptJournal:
    """A journal on a disk that nobody reads."""

    def record(self, event: Event, *, timestamp_ms: int, trace_id: str = "", durable: bool = False) -> object:
        """Take it and keep nothing."""
        return None


class Scene:
    """An executor that trades one symbol at a venue that fails in every way, and the risk watch that hears of it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.gateway = FakeGateway(self.clock, marks={BTC: Decimal(50_000)})
        policy = Policy()
        self.risk = RiskWatch(
            policy=lambda: policy,
            timeframe_ms=300_000,
            closes=lambda: {BTC: (np.zeros(0, np.int64), np.zeros(0))},
            note=lambda kind, detail: None,
            monotonic=self.clock.monotonic,
        )
        journal = HeardJournal(UnkeptJournal(), self.risk.hear)
        self.executor = make_executor(self.gateway, journal, book=Book(closed_kept=KEPT))
        self._rng = random.Random(7)

    async def trade(self, number: int, *, is_calm: bool = False) -> None:
        """Open and close one position, while sendings and questions fail or not; then let all late answers come."""
        clock, gateway, executor = self.clock, self.gateway, self.executor
        gateway.faults = [] if is_calm else self._rng.choices(FATES, k=6)
        gateway.query_faults = [] if is_calm else self._rng.choices(("", "", "down", "stale"), k=6)
        gateway.hold_stream = not is_calm and self._rng.random() < 0.3
        approved = make_approved(trace_id=f"trace-{number}")
        await clock.drive(executor.enter(approved, candle_close_ms=clock.now_ms()))
        if is_calm or self._rng.random() < 0.5:
            gateway.move(BTC, Decimal(49_500))
        else:
            await clock.drive(executor.request_exit(BTC, ExitReason.TIME_BARRIER))
        gateway.deliver()
        gateway.hold_stream = False
        while any(executor.book.active()) or not await clock.drive(executor.reconcile()):
            await clock.drive(executor.settle(BTC))
            await clock.drive(clock.sleep(1.0))
        gateway.move(BTC, Decimal(50_000))
        await clock.drive(clock.sleep(PAUSE_S), limit_seconds=2 * PAUSE_S)
        self.risk.errors()
        # The venue's own memory is not ours to bound.
        gateway.trades.clear()
        gateway.ended.clear()
        gateway.submitted.clear()

    def objects(self) -> Counter[str]:
        """Count by type what executor and risk watch keep, less the venue, its clock and the newest results."""
        return counted((self.executor, self.risk), leaving=(self.clock, self.gateway, self.executor.closed))


def counted(roots: Iterable[object], *, leaving: Iterable[object]) -> Counter[str]:
    """Count by type all objects that can be reached from `roots`."""
    seen = {id(one) for one in leaving}
    found: Counter[str] = Counter()
    waiting = list(roots)
    while waiting:
        one = waiting.pop()
        if id(one) in seen or isinstance(one, _CODE):
            continue
        seen.add(id(one))
        found[f"{type(one).__module__}.{type(one).__qualname__}"] += 1
        waiting += _held(one)
    return found


def _held(one: object) -> list[object]:
    # A function leads to all that its module knows; what it keeps by itself is in its closure.
    if isinstance(one, types.FunctionType):
        return list(one.__closure__ or ())
    # The collector passes over keys that are text.
    return [*gc.get_referents(one), *(one if isinstance(one, dict) else ())]


async def test_nothing_grows_with_the_number_of_trades():
    """Of hundreds of trades, with answers that came late or never, no more objects are left than of the first ones."""
    scene = Scene()
    await scene.clock.drive(scene.executor.start())

    counts = []
    for number in range(3 * ROUNDS):
        # What the book keeps is alike each time it is counted.
        await scene.trade(number, is_calm=number % ROUNDS >= ROUNDS - KEPT)
        if (number + 1) % ROUNDS == 0:
            counts.append(scene.objects())

    grown = counts[-1] - counts[0]
    assert sum(grown.values()) <= SLACK, grown.most_common(10)
    assert scene.executor.book.closed_count == 3 * ROUNDS
    assert len(scene.executor.closed) <= 100


@pytest.mark.parametrize("candles", [200, 1_000])
async def test_of_the_candles_that_are_followed_only_the_newest_stay_in_the_client(candles):
    """However many have come, ccxt holds as many as it was told to, and remembers the times of none that was read."""
    exchange = create_exchange("sandbox", url="http://127.0.0.1:1")
    clock = VenueClock(accelerated=False)
    clock.add(TimeSample(sent=0.0, received=0.0, venue_ms=T0))
    # Without a list of markets ccxt takes the venue's name for the symbol.
    newest = {NAME: T0}
    stream = CandleStream(
        exchange,
        (NAME,),
        number=0,
        connection=ManyAtOnce(exchange, (NAME,), "5m", number=0),
        assembler=SimpleNamespace(
            last_open_ms=newest.get, offer=lambda symbol, one: newest.update({symbol: one.open_time_ms})
        ),
        timeframe=Timeframe.M5,
        clock=clock,
        monotonic=lambda: 0.0,
    )
    client = SimpleNamespace(url="ws://127.0.0.1:1/stream/0", resolve=lambda *_: None)
    for number in range(candles):
        told = {"t": T0 + number * 300_000, "s": NAME, "i": "5m", "o": "1", "h": "1", "l": "1", "c": "1", "v": "2"}
        exchange.handle_ohlcv(client, {"e": "kline", "s": NAME, "k": told})
        stream._read_caches()
    (cache,) = (series["5m"] for series in exchange.ohlcvs.values())
    await exchange.close()

    assert stream.candles == candles - 2
    assert len(cache.hashmap) == len(cache) <= 64
    assert len(cache._size_tracker) <= 1


async def test_of_executions_that_the_stream_told_only_the_newest_are_remembered():
    """Each is passed on once while it may be told again; what is told twice is told within moments."""
    passed: list[Fill] = []
    exchange = create_exchange("sandbox", url="http://127.0.0.1:1")
    stream = UserStream(
        exchange, on_report=lambda _: None, on_fill=passed.append, on_gap=lambda _: None, monotonic=lambda: 0.0
    )
    for number in range(10_000):
        for _ in range(2):
            stream._pass_fill(execution(number))
    await exchange.close()

    assert len(passed) == 10_000
    assert len(stream._seen_fills) <= 4_096


def execution(number: int) -> Fill:
    """Return an execution of its own."""
    return Fill(
        fill_id=str(number), client_order_id="one", venue_order_id="1", symbol=BTC, side=Side.BUY, quantity=Decimal(1),
        price=Decimal(50_000), fee=Decimal(0), is_maker=False, event_time_ms=T0,
    )  # fmt: skip
