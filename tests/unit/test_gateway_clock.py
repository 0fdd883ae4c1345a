"""The venue's time from samples of it."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.errors import ClockError
from inference.bootstrap.reaching import check_wall_clock, follow_clock
from inference.exchange.venue_clock import TimeSample, VenueClock

T0 = 1_700_000_000_000


def sample(wall: float, *, rate: float, round_trip: float = 0.002, offset_ms: int = 0) -> TimeSample:
    """Return what a venue whose clock started at T0 would answer at a wall time."""
    venue_ms = T0 + offset_ms + int((wall + round_trip / 2) * 1000 * rate)
    return TimeSample(sent=wall, received=wall + round_trip, venue_ms=venue_ms)


@given(st.sampled_from([1.0, 10.0, 60.0, 300.0]), st.floats(0.0005, 0.01))
def test_rate_and_offset_are_found(rate, round_trip):
    """A few samples are enough to know a fast clock's time to a fraction of a wall second."""
    clock = VenueClock(accelerated=True)
    for wall in (0.0, 0.2, 2.0, 4.0):
        clock.add(sample(wall, rate=rate, round_trip=round_trip))

    error_ms = clock.now_ms(5.0) - (T0 + 5000 * rate)

    assert abs(error_ms) <= 60 * rate
    assert clock.rate == pytest.approx(rate, rel=0.02)


def test_time_never_runs_backwards():
    """A better sample may slow the estimate down, yet time that was told is not taken back."""
    clock = VenueClock(accelerated=True)
    clock.add(sample(0.0, rate=60))
    clock.add(sample(0.1, rate=60, round_trip=0.05))
    told = [clock.now_ms(0.2)]
    clock.add(sample(0.25, rate=60))
    told += [clock.now_ms(wall / 100) for wall in range(25, 60)]

    assert told == sorted(told)


def test_moved_clock_is_noticed():
    """When the venue's clock was moved, the estimate follows at once, backwards too."""
    clock = VenueClock(accelerated=True)
    for wall in (0.0, 1.0, 2.0):
        clock.add(sample(wall, rate=60))

    assert clock.add(sample(4.0, rate=60, offset_ms=-3_600_000))
    assert clock.jumps == 1
    assert abs(clock.now_ms(4.0) - (T0 - 3_600_000 + 240_000)) < 2_000


def test_real_venue_runs_at_wall_speed():
    """Without acceleration noise in the samples is not taken for a rate."""
    clock = VenueClock(accelerated=False)
    clock.add(sample(0.0, rate=1, round_trip=0.2))
    clock.add(sample(0.1, rate=1, round_trip=0.01))

    assert clock.rate == 1.0
    assert abs(clock.now_ms(10.0) - (T0 + 10_000)) < 20


@pytest.mark.parametrize("offset_ms", [-300_000, 300_000])
def test_wrong_wall_clock_is_refused(offset_ms):
    """Minutes between this machine's clock and the venue's refuse the start, with the command that mends it."""
    check_wall_clock(venue_ms=1_700_000_000_000, wall_ms=1_700_000_000_200)
    with pytest.raises(ClockError, match=r"300 s off.*set-ntp"):
        check_wall_clock(venue_ms=1_700_000_000_000, wall_ms=1_700_000_000_000 + offset_ms)


def test_unknown_clock_is_not_guessed():
    """Before the first answer there is no venue time."""
    with pytest.raises(ValueError, match="not known"):
        VenueClock(accelerated=False).now_ms(0.0)


@pytest.mark.parametrize(
    ("offset_ms", "round_trip", "told"),
    [(0, 0.002, False), (400, 0.002, False), (600, 0.002, True), (-600, 0.002, True), (600, 0.9, False)],
)
async def test_a_clock_that_is_off_by_half_a_second_is_told_once(monkeypatch, offset_ms, round_trip, told):
    """What a slow answer explains is no alarm; an alarm is told when it begins, and again only after it ended."""
    clock, said, walls = VenueClock(accelerated=False), [], iter(range(100))
    clock.add(sample(-30.0, rate=1))

    async def sync() -> None:
        wall = 30.0 * next(walls)
        # Each answer contradicts the one before, until the last.
        clock.add(sample(wall, rate=1, round_trip=round_trip, offset_ms=offset_ms if wall < 30 else 0), afresh=False)

    async def wait(_: float) -> None:
        if next(walls) >= 3:
            raise asyncio.CancelledError

    monkeypatch.setattr("inference.bootstrap.reaching.asyncio.sleep", wait)
    with pytest.raises(asyncio.CancelledError):
        await follow_clock(
            sync, accelerated=False, error_ms=lambda: clock.error_ms, on_off=lambda kind, detail: said.append(kind)
        )

    assert said == ["health.clock_off"] * told
