"""Closed candles put in order, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Candle, CandleBlock, Timeframe
from inference.feed.batches import BatchAssembler
from inference.feed.recent import RecentCandles

STEP = Timeframe.M5.milliseconds
T0 = 5_000_000 * STEP


def candle(number: int, close: float = 100.0) -> Candle:
    """Return the candle that opens `number` steps after T0."""
    return Candle(T0 + number * STEP, close, close, close, close, 1.0)


def assembler(*symbols: str) -> BatchAssembler:
    """Return an assembler whose symbols have everything before T0."""
    return BatchAssembler(last_open_ms=dict.fromkeys(symbols, T0 - STEP), timeframe=Timeframe.M5)


def test_batch_is_complete_once_every_symbol_has_closed():
    """A close time is missing nothing when each symbol's candle is there, and hands it out once."""
    feed = assembler("A", "B")
    feed.offer("A", candle(0))

    assert feed.missing(T0 + STEP) == ("B",)

    feed.offer("B", candle(0))
    batch = feed.take(T0 + STEP)

    assert batch.late == ()
    assert {symbol: len(block) for symbol, block in batch.blocks.items()} == {"A": 1, "B": 1}
    assert feed.take(T0 + STEP).blocks == {}


def test_late_symbol_is_named_and_comes_with_a_later_batch():
    """A candle that missed its batch is handed out with the next one, before its successor."""
    feed = assembler("A", "B")
    feed.offer("A", candle(0))

    assert feed.take(T0 + STEP).late == ("B",)

    for symbol in ("A", "B"):
        feed.offer(symbol, candle(0))
        feed.offer(symbol, candle(1))
    batch = feed.take(T0 + 2 * STEP)

    assert batch.blocks["B"].open_time_ms.tolist() == [T0, T0 + STEP]
    assert batch.blocks["A"].open_time_ms.tolist() == [T0 + STEP]


def test_candle_after_a_gap_waits_for_the_gap():
    """A newer candle never overtakes a missing one; what the venue has fills the gap."""
    feed = assembler("A")
    feed.offer("A", candle(2))

    assert feed.missing(T0 + 3 * STEP) == ("A",)

    feed.fill("A", [candle(0), candle(1)])

    assert feed.take(T0 + 3 * STEP).blocks["A"].open_time_ms.tolist() == [T0, T0 + STEP, T0 + 2 * STEP]


def block(*candles: Candle) -> CandleBlock:
    """Return candles as a page of the venue."""
    return CandleBlock.from_candles(candles)


def test_a_late_candle_is_told_with_the_next_batch():
    """What the venue lacked when it was asked, and tells later, is no candle to hand out but news of the past."""
    feed = assembler("A")
    feed.fill("A", [candle(0), candle(1), candle(3)])
    feed.take(T0 + 4 * STEP)
    feed.recheck("A", block(candle(0), candle(1), candle(3)))
    assert feed.take(T0 + 4 * STEP).changed == {}

    feed.recheck("A", block(candle(1), candle(2), candle(3)))
    assert feed.changed == {"A"}
    batch = feed.take(T0 + 5 * STEP)

    assert batch.blocks == {}
    assert batch.changed == {"A": "the candle of 2017-07-14 02:50 came late"}
    feed.recheck("A", block(candle(2)))
    assert feed.take(T0 + 5 * STEP).changed == {}


def test_a_corrected_candle_is_told_once():
    """Another price than was handed out is news; the same price again is none, nor is what was never handed out."""
    feed = assembler("A")
    feed.fill("A", [candle(0), candle(1), candle(2)])
    feed.take(T0 + 3 * STEP)
    for _ in range(2):
        feed.recheck("A", block(candle(-1, 7.0), candle(0), candle(1, 101.0), candle(3, 7.0)))
    batch = feed.take(T0 + 3 * STEP)

    assert batch.changed == {"A": "the candle of 2017-07-14 02:45 was corrected"}
    feed.recheck("A", block(candle(1, 101.0)))
    assert feed.changed == frozenset()


def test_series_are_looked_at_again_in_turn_and_sooner_where_a_candle_is_missing():
    """Each once in twelve candles; one with a hole 1, 2, 4, … candles later; one that was restored at once."""
    names = [f"S{number}" for number in range(12)]
    points = dict.fromkeys(names, T0 - STEP)
    feed = BatchAssembler(last_open_ms=points, timeframe=Timeframe.M5, restored=["S5"])
    turns = [feed.second_looks(T0 + number * STEP) for number in range(12)]
    assert all("S5" in turn for turn in turns)
    feed.recheck("S5", block())
    turns = [feed.second_looks(T0 + number * STEP) for number in range(12)]
    assert sorted(name for turn in turns for name in turn) == sorted(names)

    one = BatchAssembler(last_open_ms={"A": T0 - STEP}, timeframe=Timeframe.M5)
    one.fill("A", [candle(0), candle(2)])
    asked = [age for age in range(1, 12) if one.second_looks(T0 + (2 + age) * STEP) == ("A",)]
    regular = [age for age in range(1, 12) if ((T0 // STEP) + 2 + age) % 12 == 0]
    assert asked == sorted({1, 2, 4, 8, *regular})


def test_no_more_is_remembered_than_is_looked_at():
    """The oldest are forgotten: what comes later than 499 candles goes unnoticed."""
    feed = assembler("A")
    feed.fill("A", [candle(number) for number in range(600) if number not in (50, 150)])
    feed.take(T0 + 600 * STEP)

    assert len(feed.recent.block("A")) == 499
    assert feed.recent.holes("A") == (T0 + 150 * STEP,)
    feed.recheck("A", block(candle(50)))
    assert feed.changed == frozenset()


def test_gap_of_the_venue_itself_is_accepted():
    """Where the venue holds no candle for a time, the series goes on after it."""
    feed = assembler("A")
    feed.fill("A", [candle(0), candle(3)])

    assert feed.take(T0 + 4 * STEP).blocks["A"].open_time_ms.tolist() == [T0, T0 + 3 * STEP]


@given(st.permutations(list(range(8))), st.lists(st.integers(0, 7), max_size=12))
def test_any_order_and_repetition_gives_the_same_series(order, repeated):
    """However candles arrive, each comes out once and in order."""
    feed = assembler("A")
    for number in [*order, *repeated]:
        feed.offer("A", candle(number))
    taken = []
    for number in range(8):
        block = feed.take(T0 + (number + 1) * STEP).blocks.get("A")
        taken += [] if block is None else block.open_time_ms.tolist()

    assert taken == [T0 + number * STEP for number in range(8)]


def test_a_candle_that_no_market_has_made_is_handed_out_as_such():
    """It is in its block and remembered as it came; nobody is told that it closed until it is corrected."""
    heard: list[float] = []
    recent = RecentCandles(Timeframe.M5)
    recent.add("A", CandleBlock.from_candles([candle(number) for number in range(-70, 0)]))
    feed = BatchAssembler(
        last_open_ms={"A": T0 - STEP},
        timeframe=Timeframe.M5,
        recent=recent,
        on_closed=lambda _, one: heard.append(one.close),
    )
    for number, close in enumerate([100.0, 1e6, 101.0]):
        feed.offer("A", candle(number, close))
    first, second = feed.take(T0 + 2 * STEP), feed.take(T0 + 3 * STEP)

    assert heard == [100.0, 101.0]
    assert first.blocks["A"].values[:, 3].tolist() == [100.0, 1e6]
    assert first.refused == {"A": {T0 + STEP}}
    assert second.refused == {}
    assert recent.block("A").values[-3:, 3].tolist() == [100.0, 1e6, 101.0]
    assert recent.plausible("A").values[-2:, 3].tolist() == [100.0, 101.0]
    assert "beyond 100 times" in recent.refused("A")[T0 + STEP]

    feed.recheck("A", CandleBlock.from_candles([candle(1, 99.0)]))

    assert recent.refused("A") == {}
    assert recent.plausible("A").values[-3:, 3].tolist() == [100.0, 99.0, 101.0]


def test_a_new_level_is_believed_in_the_end_by_the_feed_too():
    """Twelve candles of another level in a row, however they come, are a new level; those before stay refused."""
    recent = RecentCandles(Timeframe.M5)
    recent.add("A", CandleBlock.from_candles([candle(number) for number in range(-70, 0)]))
    for number in range(15):
        recent.add("A", CandleBlock.from_candles([candle(number, 1e6)]))
    assert list(recent.refused("A")) == [T0 + number * STEP for number in range(11)]
