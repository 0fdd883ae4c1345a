"""A script's ends outlive the venue's process where what they end does."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feature_store.clock import monotonic
from infra.sandbox.control import follow_script, perform
from infra.sandbox.persist import FILE
from infra.sandbox.script import Ending, Script, Undo
from infra.sandbox.serve import OptionError
from tests.unit.test_sandbox_latency import NAME, make_sandbox

HALT = {"op": "halt", "symbol": NAME}


async def begun(folder, *steps):
    """Return a venue that has begun the steps of a script and was saved."""
    sandbox = make_sandbox(folder)
    await perform(sandbox, {"op": "script", "steps": list(steps)})
    await follow_script(sandbox)
    sandbox.save()
    return sandbox


def is_trading(sandbox) -> bool:
    return sandbox.venue.is_trading(NAME, sandbox.venue.ticked_ms)


async def test_a_scripted_halt_ends_in_the_life_after_it_began(tmp_path):
    """The venue is saved while a symbol stands still; after a restart it trades again once the rest has passed."""
    steps = [
        {"after": 0, "for": 30, **HALT},
        {"after": 0, "for": 30, "op": "restrict", "symbol": NAME},
        {"after": 0, "for": 30, "op": "freeze_ws"},
    ]
    before = await begun(tmp_path, *steps)
    again = make_sandbox(tmp_path)
    now = monotonic()
    kept = again.script.endings(now)

    assert not is_trading(before)
    assert not is_trading(again)
    assert {one.operation["op"] for one in kept} == {"halt", "restrict"}
    assert all(0 < one.seconds <= 30 for one in kept)
    assert again.script.ended(now) == []
    for undo in again.script.ended(now + 31):
        undo.perform()
    assert is_trading(again)
    assert not again.venue.exchange.state.restricted
    assert again.script.endings(now + 31) == []


async def test_a_state_from_before_knows_of_no_ends(tmp_path):
    """A venue that an older version saved goes on."""
    await begun(tmp_path)
    saved = msgspec.json.decode((tmp_path / FILE).read_bytes())
    del saved["endings"]
    (tmp_path / FILE).write_bytes(msgspec.json.encode(saved))

    assert make_sandbox(tmp_path).script.endings(0.0) == []


@pytest.mark.parametrize("operation", [{}, {"op": "kill_ws"}, {"op": "clear"}, {"op": ["halt"]}])
async def test_an_end_that_ends_nothing_is_refused(tmp_path, operation):
    """A damaged file is one sentence that says what to do."""
    await begun(tmp_path, {"after": 0, "for": 30, **HALT})
    saved = msgspec.json.decode((tmp_path / FILE).read_bytes())
    saved["endings"][0]["operation"] = operation
    (tmp_path / FILE).write_bytes(msgspec.json.encode(saved))

    with pytest.raises(OptionError, match="move it away"):
        make_sandbox(tmp_path)


@given(st.lists(st.floats(0, 1e6), min_size=1), st.lists(st.floats(0, 1e3), max_size=5))
def test_the_longest_of_the_same_ends_it_however_often_the_venue_is_saved(lasts, lives):
    """Of steps that do the same one end is left, at the latest time, and lives of the venue count only their own."""
    script, now = Script(), 0.0
    for seconds in lasts:
        script.undo_later(seconds, Undo(int, HALT))
    left = max(lasts)
    for life in lives:
        left = max(0.0, left - life)
        (ending,) = script.endings(now + life)
        assert ending == Ending(pytest.approx(left), HALT)
        # The next process has another clock.
        script, now = Script(), 1_000.0
        script.undo_later(now + ending.seconds, Undo(int, ending.operation))

    assert script.ended(now + left - 1) == []
    assert len(script.ended(now + left + 1)) == 1
