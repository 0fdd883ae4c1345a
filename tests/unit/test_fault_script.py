"""Faults by the clock: which steps a file may hold, and that each is done once, when its time has come."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from infra.sandbox.faults import FaultError
from infra.sandbox.script import Script, Undo, parse_steps, read_script

DAY_MS = 86_400_000
NOON_MS = 1_767_571_200_000 + 12 * 3_600_000
TOML = """
[[step]]
at = "12:00"
for = 30
op = "freeze_ws"

[[step]]
at = 2026-01-05T13:00:00Z
op = "kill_ws"

[[step]]
after = 5
op = "fault"
path = "/fapi/v1/order"
"""


def script(*steps, now_ms=NOON_MS - 60_000, monotonic=100.0):
    """Return a script with steps, given at a time."""
    found = Script()
    found.add(parse_steps(list(steps)), now_ms=now_ms, monotonic=monotonic)
    return found


def names(steps):
    """Return what steps do."""
    return [one.operation["op"] for one in steps]


def test_what_is_past_was_done_by_the_venue_that_goes_on():
    """A date that is over when the script is given, after a restart for example, is not made up for."""
    dated = [{"at": f"2026-01-05T{hour}:00:00Z", "op": "kill_ws"} for hour in (11, 13)]
    found = script(*dated)

    assert len(found) == 1
    assert found.begun(NOON_MS, 100.0) == []
    assert names(found.begun(NOON_MS + 3_600_000, 100.0)) == ["kill_ws"]


@pytest.mark.parametrize("kind", ["toml", "json"])
def test_a_file_is_read_in_either_language(tmp_path, kind):
    """TOML with its own times and JSON say the same."""
    path = tmp_path / f"night.{kind}"
    steps = [
        {"at": "12:00", "for": 30, "op": "freeze_ws"},
        {"at": "2026-01-05T13:00:00+00:00", "op": "kill_ws"},
        {"after": 5, "op": "fault", "path": "/fapi/v1/order"},
    ]
    path.write_text(TOML if kind == "toml" else json.dumps({"step": steps}))

    assert read_script(path) == steps
    assert len(parse_steps(read_script(path))) == 3


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("", "a.json"), ("{", "a.json"), ("[1]", "a.json"), ("{}", "a.json"), ("=", "a.toml"),
        ("step = 3", "a.toml"), ("\x00", "a.toml"), ('"x"', "a.json"), ("[" * 100_000, "a.json"),
    ],
)  # fmt: skip
def test_what_is_no_script_is_refused(tmp_path, text, name):
    """A file that holds something else is named, and what is wrong with it."""
    path = tmp_path / name
    path.write_text(text)

    with pytest.raises((FaultError, RecursionError), match=r"script|recursion"):
        read_script(path)


def test_a_file_that_is_not_there_is_refused(tmp_path):
    """The message names the file."""
    with pytest.raises(FaultError, match=r"none\.toml"):
        read_script(tmp_path / "none.toml")


@pytest.mark.parametrize(
    "step",
    [
        {"op": "kill_ws"},
        {"op": "kill_ws", "at": "12:00", "after": 3},
        {"op": "kill_ws", "at": "25:00"},
        {"op": "kill_ws", "at": "noon"},
        {"op": "kill_ws", "at": 12},
        {"op": "kill_ws", "after": -1},
        {"op": "kill_ws", "after": "5"},
        {"op": "kill_ws", "after": True},
        {"op": "kill_ws", "after": float("nan")},
        {"op": "freeze_ws", "after": 1, "for": float("inf")},
        {"after": 1},
        {"op": 7, "after": 1},
        {"op": "script", "after": 1},
        "kill_ws",
        None,
    ],
)
def test_a_step_that_says_no_time_or_nothing_to_do_is_refused(step):
    """The number of the step is said."""
    with pytest.raises(FaultError, match="Step 1"):
        parse_steps([step])


@pytest.mark.parametrize("steps", [None, {}, "x", 3, [{"op": "kill_ws", "after": 1}] * 10_001])
def test_a_script_is_a_list_of_steps(steps):
    """Anything else, and one without end, is refused."""
    with pytest.raises(FaultError):
        parse_steps(steps)


def test_a_step_by_the_venue_s_clock_is_done_once_at_its_time():
    """Noon is the next noon of the venue, and it comes once."""
    found = script({"at": "12:00", "op": "freeze_ws"})

    assert found.begun(NOON_MS - 1, 10**9) == []
    assert names(found.begun(NOON_MS, 100.0)) == ["freeze_ws"]
    assert found.begun(NOON_MS + DAY_MS, 10**9) == []


def test_a_time_of_day_that_is_over_means_tomorrow():
    """A minute after noon, noon is tomorrow."""
    found = script({"at": "12:00:00", "op": "freeze_ws"}, now_ms=NOON_MS + 60_000)

    assert found.begun(NOON_MS + DAY_MS - 1, 0.0) == []
    assert len(found.begun(NOON_MS + DAY_MS, 0.0)) == 1


def test_a_step_after_seconds_goes_by_the_wall():
    """However fast the venue's time runs."""
    found = script({"after": 5, "op": "kill_ws"})

    assert found.begun(NOON_MS + DAY_MS, 104.9) == []
    assert names(found.begun(NOON_MS, 105.0)) == ["kill_ws"]


def test_what_ends_a_step_is_done_once():
    """An end is handed out when its time has come, and never again."""
    found, ended = script(), []
    found.undo_later(130.0, Undo(lambda: ended.append("well")))

    assert found.ended(129.9) == []
    for undo in found.ended(130.0) + found.ended(131.0):
        undo.perform()
    assert ended == ["well"]


@given(st.lists(st.floats(0, 100), max_size=30), st.lists(st.floats(0, 20), max_size=20))
def test_each_step_is_done_once_and_in_order(times, pauses):
    """However seldom the clock is looked at, no step is lost, doubled or early."""
    found, now, done = script(*({"after": time, "op": "kill_ws"} for time in times)), 100.0, []
    for pause in [*pauses, 1_000.0]:
        now += pause
        begun = [one.after for one in found.begun(NOON_MS, now)]
        assert all(100.0 + one <= now for one in begun)
        done += begun

    assert sorted(done) == sorted(times)
    assert len(found) == 0
