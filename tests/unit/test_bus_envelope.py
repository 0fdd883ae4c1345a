"""Events are written as JSON and read back; what nobody could rely on is refused in a sentence."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from inference.bus.envelope import (
    LONGEST_BYTES,
    EventError,
    checked_patterns,
    decode,
    encode,
    event_id_of,
    iso,
    matches,
    milliseconds,
)
from tests.bus_support import event

_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**53), 2**53)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


@given(st.dictionaries(st.text(max_size=8), _JSON, max_size=5), st.text(max_size=30))
def test_what_is_written_is_read_back(data, trace_id):
    """Whatever the data, an event is the same after its way as JSON."""
    told = replace(event(1), data=data, trace_id=trace_id)

    assert decode(encode(told)) == told


@given(st.binary(max_size=200))
def test_no_bytes_are_taken_for_an_event(text):
    """What is not an event is an error that shows what was found."""
    with pytest.raises(EventError):
        decode(text)


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"event_id": "1"}, "UUID"),
        ({"event_id": event(1).event_id.upper()}, "UUID"),
        ({"event_type": "Trade.Closed"}, "trade.closed"),
        ({"event_type": "trade"}, "trade.closed"),
        ({"event_type": "trade..closed"}, "trade.closed"),
        ({"timestamp": "yesterday"}, "2025-12-17"),
        ({"timestamp": ""}, "2025-12-17"),
        ({"data": {"x": "y" * LONGEST_BYTES}}, "bytes"),
        ({"data": {"x": object()}}, "JSON"),
    ],
)
def test_an_event_that_cannot_be_relied_on_is_refused(change, word):
    """The message says what it must look like."""
    with pytest.raises(EventError, match=word):
        encode(replace(event(1), **change))


@given(st.integers(0, 253_402_300_799_999))
def test_timestamps_keep_their_milliseconds(time_ms):
    """Each moment of the calendar is written with its milliseconds and read back."""
    assert milliseconds(iso(time_ms)) == time_ms
    assert len(iso(time_ms)) == len("2025-12-17T10:30:00.123Z")


@pytest.mark.parametrize("time_ms", [10**18, -(10**18)])
def test_a_moment_outside_the_calendar_is_refused(time_ms):
    """No date is invented for it."""
    with pytest.raises(EventError, match="no moment"):
        iso(time_ms)


@given(
    st.lists(st.text("ab.*", min_size=1, max_size=8), min_size=1, max_size=3),
    st.text("ab.", min_size=1, max_size=10),
)
def test_patterns_mean_what_wildcards_mean(patterns, event_type):
    """Another implementation of wildcards agrees on every pattern and type."""
    checked = checked_patterns(tuple(patterns))

    assert matches(checked, event_type) == any(fnmatch.fnmatchcase(event_type, one) for one in patterns)


def test_ids_follow_from_the_journal():
    """The same entry, type and number give the same id, anything else another."""
    ids = {event_id_of(digest, kind, number) for digest in "ab" for kind in ("x.y", "x.z") for number in (0, 1)}

    assert len(ids) == 8
    assert event_id_of("a", "x.y", 0) == event_id_of("a", "x.y", 0)
