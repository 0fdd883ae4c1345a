"""What a replayed candle reaches first: as recorded minutes say, or what hurts, or what helps; and what is at stake."""

from __future__ import annotations

from dataclasses import replace
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.sandbox.cli import _intrabar
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.model import AlgoRequest, OrderRequest, OrderType, Side
from infra.sandbox.engine.state import new_state
from infra.sandbox.in_process import InProcess
from infra.sandbox.intrabar import Ambiguity, Intrabar
from infra.sandbox.market.recording import Recorded, Recording
from infra.sandbox.market.replay import ReplayMarket
from infra.sandbox.market.series import DAY_MS, MINUTE_MS, TICK_MS
from infra.sandbox.market.timetable import TimetabledMarket, interrupt
from infra.sandbox.protocol.signing import Credentials
from infra.sandbox.serve import OptionError, Options, build
from infra.sandbox.venue import Venue

FIVE = 5 * MINUTE_MS
START = 20_000 * DAY_MS
SYMBOL = "COINUSDT"
# Opens nearer to its high, so that the path that knows of nobody rises first.
QUIET, WIDE = (100.0, 100.2, 99.9, 100.1), (100.1, 102.0, 97.0, 100.0)
RISES = [(100.1, 102.0, 100.0, 101.0), (101.0, 101.5, 99.0, 99.5), (99.5, 99.6, 97.0, 97.5),
         (97.5, 99.0, 97.2, 98.8), (98.8, 100.2, 98.5, 100.0)]  # fmt: skip
FALLS = [(100.1, 100.2, 98.0, 98.5), (98.5, 99.0, 97.0, 97.5), (97.5, 100.0, 97.4, 99.8),
         (99.8, 102.0, 99.5, 101.0), (101.0, 101.1, 99.9, 100.0)]  # fmt: skip


def recording(rows: list[tuple[float, ...]], length_ms: int, start_ms: int = START) -> Recording:
    """Return candles that follow each other."""
    times = start_ms + length_ms * np.arange(len(rows), dtype=np.int64)
    values = np.array([[*row, 60.0] for row in rows])
    return Recording(length_ms, (Recorded(SYMBOL, "COIN", times, values),), 0)


def market(minutes: list[tuple[float, ...]] | None = None, *, begin_ms: int = START + FIVE) -> ReplayMarket:
    """Return a quiet candle, a wide one, and minutes of the wide one."""
    inside = None if minutes is None else recording(minutes, MINUTE_MS, begin_ms)
    coarse = recording([QUIET, WIDE, QUIET, QUIET], FIVE)
    return ReplayMarket(coarse, start_ms=START + MINUTE_MS, history_days=1, minutes=inside)


def ended(mode: Intrabar, side: Side, minutes: list[tuple[float, ...]] | None = None) -> tuple[str, dict]:
    """Hold a position through the wide candle; return which level ended it, and the report."""
    replayed = market(minutes if mode is Intrabar.DETAIL else None)
    exchange = Exchange(replayed.instruments, new_state(Decimal(10_000)))
    venue = Venue(replayed, exchange, seed=1, ambiguity=Ambiguity(replayed, mode))
    venue.begin(START)
    client = InProcess(venue)
    assert client.go_on() == START + FIVE
    exchange.submit(OrderRequest(SYMBOL, side, OrderType.MARKET, Decimal(10)), now_ms=client.now_ms)
    stop, target = ("98", "101") if side is Side.BUY else ("101", "98")
    for kind, price in ((OrderType.STOP_MARKET, stop), (OrderType.TAKE_PROFIT_MARKET, target)):
        order = AlgoRequest(
            SYMBOL, side.opposite, kind, Decimal(10), trigger_price=Decimal(price), reduce_only=True,
            client_algo_id=kind.value,
        )  # fmt: skip
        exchange.submit_algo(order, now_ms=client.now_ms)
    while exchange.state.open_positions():
        client.go_on()
    assert client.now_ms < START + 2 * FIVE
    return exchange.state.trades[-1].client_order_id.partition("_")[0], venue.ambiguity.report()


@pytest.mark.parametrize("side", [Side.BUY, Side.SELL])
@pytest.mark.parametrize(
    ("mode", "first"), [(Intrabar.ADVERSE, "STOP"), (Intrabar.DETAIL, "STOP"), (Intrabar.OPTIMISTIC, "TAKE")]
)
def test_what_hurts_or_helps_comes_first(mode, side, first):
    """Without minutes the adverse level comes first, by choice the other; the report says how much lay between."""
    found, report = ended(mode, side)

    assert found == first
    assert report == {
        "mode": mode.value, "ambiguous": 1, "told_by_minutes": 0, "chosen": 1, "at_stake": report["at_stake"]
    }  # fmt: skip
    assert Decimal(report["at_stake"]) == 30


def test_the_path_knows_nobody():
    """By default the nearer extreme comes first for whoever holds what; the ambiguity is told all the same."""
    assert [ended(Intrabar.PATH, side)[0] for side in (Side.BUY, Side.SELL)] == ["TAKE", "STOP"]
    assert ended(Intrabar.PATH, Side.BUY)[1]["ambiguous"] == 1


@pytest.mark.parametrize(("minutes", "first"), [(RISES, "TAKE"), (FALLS, "STOP")])
def test_minutes_decide(minutes, first):
    """Where minutes were recorded they say what came first, and nothing is at stake."""
    found, report = ended(Intrabar.DETAIL, Side.BUY, minutes)

    assert found == first
    assert (report["told_by_minutes"], report["chosen"], report["at_stake"]) == (1, 0, "0")


@pytest.mark.parametrize(
    "minutes",
    [
        RISES[:4],
        [],
        [*RISES[:4], (98.8, 100.2, 98.5, 100.1)],
        [(100.1, 102.1, 100.0, 101.0), *RISES[1:]],
        [(100.0, 102.0, 100.0, 101.0), *RISES[1:]],
    ],
    ids=["hole", "none", "other-close", "other-high", "other-open"],
)
def test_minutes_that_are_not_the_candles_own_tell_nothing(minutes):
    """Minutes with a hole, or of another venue, are left out, and what hurts comes first."""
    replayed = market(minutes) if minutes else market()

    assert not replayed.is_detailed(0, START + FIVE)


prices = st.integers(9_000, 11_000)


@given(st.lists(st.tuples(prices, prices, prices, prices), min_size=5, max_size=5))
def test_a_detailed_candle_is_the_recorded_one(rows):
    """Its ticks begin, end and turn where the candle and each of its minutes do."""
    minutes = [(a / 100, max(row) / 100, min(row) / 100, b / 100) for row in rows for a, b in [(row[0], row[3])]]
    wide = (minutes[0][0], max(m[1] for m in minutes), min(m[2] for m in minutes), minutes[-1][3])
    coarse = recording([(100.01, 100.02, 100.01, 100.02), wide], FIVE)
    inside = recording(minutes, MINUTE_MS, START + FIVE)
    replayed = ReplayMarket(coarse, start_ms=START + MINUTE_MS, history_days=1, minutes=inside)
    first = (START + FIVE) % DAY_MS // TICK_MS
    ticks = replayed.ticks(START // DAY_MS).price[first : first + 30, 0].reshape(5, 6)
    unit = 10.0 ** replayed.instruments[0].price_decimals

    assert replayed.is_detailed(0, START + FIVE)
    for minute, played in zip(minutes, ticks, strict=True):
        assert played[0] == round(minute[0] * unit)
        assert played[-1] == round(minute[3] * unit)
        assert (played.max(), played.min()) == (round(minute[1] * unit), round(minute[2] * unit))


@given(st.integers(1, 29), st.booleans())
def test_leaning_keeps_the_candle(step, falls_first):
    """What was played stays, open, high, low and close stay; it is done only before the first extreme."""
    replayed = market()
    first = (START + FIVE) % DAY_MS // TICK_MS
    column = replayed.ticks(START // DAY_MS).price[:, 0]
    before = column.copy()
    leant = replayed.lean(0, START + FIVE + step * TICK_MS, falls_first=falls_first)
    played = column[first : first + 30]

    assert leant == (step <= 10)
    assert (column[: first + step] == before[: first + step]).all()
    assert (column[first + 30 :] == before[first + 30 :]).all()
    as_recorded = before[first : first + 30]
    for corner in (lambda one: one[0], np.max, np.min, lambda one: one[-1]):
        assert corner(played) == corner(as_recorded)
    if leant:
        assert (played.argmin() < played.argmax()) == falls_first
    else:
        assert (column == before).all()


def options(**changes: object) -> Options:
    """Return the options of a venue, but for what is changed."""
    usual = Options(
        host="127.0.0.1", port=0, symbols=(SYMBOL,), symbol_count=1, seed=1, edge=0.0, speed=1.0, start_ms=START,
        history_days=1, balance=Decimal(10_000), taker_fee=Decimal(0), maker_fee=Decimal(0), spread_bps=Decimal(1),
        credentials=Credentials("key", "secret"),
    )  # fmt: skip
    return replace(usual, **changes)


def write(folder: Path, rows: list[tuple[float, ...]], timeframe: str, length_ms: int, start_ms: int) -> None:
    """Write candles as a recording has them."""
    columns = dict(zip(("open", "high", "low", "close"), np.array(rows).T, strict=True))
    said = {"exchange": "binance_usdm", "symbol": SYMBOL, "timeframe": timeframe}
    times = start_ms + length_ms * np.arange(len(rows), dtype=np.int64)
    table = pa.table(
        {name: [value] * len(rows) for name, value in said.items()} | {"ts": times} | columns
        | {"volume": np.full(len(rows), 60.0)}
    )  # fmt: skip
    pq.write_table(table, folder / f"{timeframe}.parquet")


def test_a_bent_candle_stays_bent():
    """Whoever reads old days in between, and whatever halts lie over the market, the prices chosen are the prices."""
    source, state = market(), new_state(Decimal(1_000))
    timetable = TimetabledMarket(source, state)
    interrupt(state, SYMBOL, from_ms=START + 2 * FIVE, to_ms=START + 3 * FIVE)
    day = START // DAY_MS
    before = timetable.ticks(day).price.copy()
    assert source.lean(0, START + FIVE + TICK_MS, falls_first=True)
    timetable.redraw()
    bent = timetable.ticks(day).price.copy()
    for earlier in range(1, 9):
        source.ticks(day - earlier)
    timetable.redraw()

    assert (bent != before).any()
    assert (bent == timetable.ticks(day).price).all()


@pytest.mark.parametrize(("mode", "detailed"), [(Intrabar.DETAIL, True), (Intrabar.PATH, False)])
def test_minutes_beside_a_recording_are_found(tmp_path, mode, detailed):
    """A folder with candles of both lengths gives the inside of the larger ones, where it is asked for."""
    write(tmp_path, [QUIET, WIDE, QUIET, QUIET], "5m", FIVE, START)
    write(tmp_path, RISES, "1m", MINUTE_MS, START + FIVE)
    venue = build(options(replay=tmp_path, replay_start_ms=START + FIVE, intrabar=mode)).venue

    assert isinstance(venue.market.source, ReplayMarket)
    assert venue.market.source.is_detailed(0, START + FIVE) is detailed
    assert venue.ambiguity is not None
    assert venue.ambiguity.mode is mode


def test_a_choice_without_a_recording_is_refused():
    """A synthetic market leaves nothing open that could be chosen."""
    with pytest.raises(OptionError, match="--replay"):
        build(options(symbols=("BTCUSDT",), intrabar=Intrabar.ADVERSE))


@pytest.mark.parametrize(
    ("said", "replayed", "mode"),
    [
        (None, True, Intrabar.DETAIL),
        (None, False, Intrabar.PATH),
        ("adverse", True, Intrabar.ADVERSE),
        ("path", True, Intrabar.PATH),
    ],
)
def test_recorded_candles_are_played_by_their_minutes_unless_told(said, replayed, mode):
    """By default what recorded minutes say, else what hurts; the synthetic market knows its own path."""
    assert _intrabar(said, replayed=replayed) is mode
