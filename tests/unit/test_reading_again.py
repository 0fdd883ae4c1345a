"""Reading a venue again: later each time, by chance, not for ever, and never where that cannot help."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.venue.errors import (
    AccountError,
    ClockError,
    OutcomeUnknownError,
    RateLimitedError,
    RequestRefusedError,
    RetryableError,
    VenueDownError,
)
from feature_store.venue.retry import (
    ATTEMPTS,
    FIRST_WAIT_SECONDS,
    LONGEST_PATIENCE_SECONDS,
    LONGEST_WAIT_SECONDS,
    retrying,
)


async def waits_for(errors) -> tuple[list[float], object]:
    """Meet one error after the other, then an answer; return how long was waited in between, and the end."""
    waits, left = [], list(errors)

    async def call() -> str:
        if left:
            raise left.pop(0)
        return "answer"

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    try:
        return waits, await retrying(call, sleep=sleep)
    except RetryableError as error:
        return waits, error


async def test_waits_grow_with_jitter_around_them():
    """Each wait lies between half and one and a half of twice the one before it."""
    waits, end = await waits_for([VenueDownError("down")] * (ATTEMPTS - 1))

    assert end == "answer"
    assert len(waits) == ATTEMPTS - 1
    assert all(0.5 <= one / (FIRST_WAIT_SECONDS * 2**number) <= 1.5 for number, one in enumerate(waits))


async def test_two_who_failed_together_do_not_ask_together():
    """Chance parts those that failed at one moment."""
    seen = {tuple((await waits_for([VenueDownError("down")] * 3))[0]) for _ in range(20)}

    assert len(seen) == 20


@pytest.mark.parametrize("kind", [AccountError, ClockError, RequestRefusedError, OutcomeUnknownError])
async def test_what_asking_again_cannot_help_is_not_asked_again(kind):
    """Keys, clocks, refusals and unknown outcomes are told at once."""
    asked = 0

    async def call() -> None:
        nonlocal asked
        asked += 1
        raise kind("no")

    with pytest.raises(kind):
        await retrying(call)
    assert asked == 1


@pytest.mark.parametrize("kind", [RateLimitedError, VenueDownError])
@given(seconds=st.floats(0.1, 1e6))
async def test_a_wait_that_was_asked_for_is_kept_unless_it_is_too_long(kind, seconds):
    """The venue's wait is waited whole; a ban of hours or days is an error now."""
    waits, end = await waits_for([kind("wait", retry_after_seconds=seconds)])

    if seconds > LONGEST_PATIENCE_SECONDS:
        assert isinstance(end, kind)
        assert waits == []
    else:
        assert end == "answer"
        assert seconds <= waits[0] <= seconds + LONGEST_WAIT_SECONDS
