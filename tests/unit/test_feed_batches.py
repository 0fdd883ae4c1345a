"""Closed candles put in order, each once."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from feature_store.candle import Candle, Timeframe
from inference.feed.batches import BatchAssembler

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
