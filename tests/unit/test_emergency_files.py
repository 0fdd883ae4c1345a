"""What an emergency stop leaves on disk, who reads it, and the commands that write it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from decimal import Decimal

import pytest

from inference.domain.events import Noted
from inference.execution.book import Book
from inference.risk.emergency import ACTIONS, Action, Evaluator
from inference.supervision.emergency_latch import Latch, key_of
from inference.supervision.emergency_record import CHOSEN, CONFIRMED, RESET, STOPPED, EmergencyRecord
from inference.supervision.status import Status, write_status
from tests.emergency_support import by_hand
from tests.worker_values import T0


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b'{"key": 3}', b"\xff\xfe", b'{"key":"\xff"}', b'{"x":' + b"[" * 3000, b'{"key":"other","reason":"x"}'],
)
def test_a_stop_that_cannot_be_read_is_one_and_such_a_reset_is_none(tmp_path, content):
    """Half a file, another version's or nonsense: the name of a stop suffices, that of a reset does not."""
    latch = Latch(tmp_path)
    latch.stop(by_hand())
    (tmp_path / "emergency" / "stop-9-torn.json").write_bytes(content)
    (tmp_path / "emergency" / "reset-9-torn.json").write_bytes(content)

    found = latch.read()

    assert [one.key for one in found.standing] == ["1-stop", "9-torn"]
    assert found.resets == ()
    assert Action.CANCEL_ENTRIES in found.stops[1].actions


def test_links_and_strange_names_are_not_followed(tmp_path):
    """A link for a stop is a stop nobody can read; other names are nothing."""
    latch = Latch(tmp_path)
    latch.stop(by_hand())
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "emergency" / "stop-2-link.json").symlink_to(tmp_path / "secret")
    (tmp_path / "emergency" / "stop-UPPER.json").write_text("{}")

    assert [one.key for one in latch.read().stops] == ["1-stop", "2-link"]
    with pytest.raises(ValueError, match="A key is made of"):
        latch.stop(by_hand(key="../out"))


def test_keys_sort_by_time_and_are_names_of_files():
    """A moment's digits first, then who asked, in letters that any file system takes."""
    keys = [key_of("2026-11-30T09:00:00.001+00:00", "Stop 12"), key_of("2026-11-30T09:00:00.002+00:00", "a")]

    assert keys == ["20261130090000001-stop-12", "20261130090000002-a"]


def test_the_record_is_the_same_after_a_restart():
    """What was journaled of stops, choices, confirmations and resets gives back what stood."""
    live, again = EmergencyRecord(), EmergencyRecord()
    events = [
        Noted(event_type=STOPPED, detail={"key": "1-a", "evaluator": "DRAWDOWN", "reason": "x", "actions": "ALERT"}),
        Noted(event_type=CHOSEN, detail={"key": "1-a", "trades": "t1 t2"}),
        Noted(event_type=CONFIRMED, detail={"key": "1-a"}),
        Noted(event_type=STOPPED, detail={"key": "2-b", "evaluator": "of another version", "actions": "SING"}),
        Noted(event_type=RESET, detail={"key": "3-r", "stops": "1-a", "equity": "90"}),
        Noted(event_type=STOPPED, detail={"key": "1-a", "evaluator": "DRAWDOWN"}),
    ]
    for event in events:
        live.visit(event, T0)
        again.visit(Noted(event_type=event.event_type, detail=json.loads(json.dumps(dict(event.detail)))), T0)

    assert live == again
    assert list(live.standing) == ["2-b"]
    assert live.standing["2-b"].actions == ACTIONS[Evaluator.MANUAL]
    assert (live.reset_ms, live.reset_equity) == (T0, Decimal(90))
    assert not Book().trades


def qtctl(home, *arguments):
    return subprocess.run(
        [sys.executable, "-m", "inference.cli", *arguments, "--home", str(home)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_commands_without_a_worker_leave_the_latch_and_say_so(tmp_path):
    """Stop is obeyed by the next worker; flatten closes nothing and fails; resume ends both."""
    stopped = qtctl(tmp_path, "stop", "--reason", "drill", "--json")
    flattened = qtctl(tmp_path, "flatten", "--reason", "drill")

    assert stopped.returncode == 0
    assert json.loads(stopped.stdout)["worker"] == "none"
    assert flattened.returncode == 1
    assert "no worker runs" in flattened.stdout
    assert len(Latch(tmp_path).read().standing) == 2

    resumed = qtctl(tmp_path, "resume", "--reason", "over")
    assert resumed.returncode == 0
    assert Latch(tmp_path).read().standing == ()


def test_a_worker_that_only_begins_to_start_has_reset_nothing_yet(tmp_path):
    """Its status tells of no stops because it has not looked: the reset counts once its files are gone."""
    file = tmp_path / "worker" / "status.json"
    write_status(
        file,
        Status(
            state="starting", reason="opening the journal", trading_state="HALTED", pid=os.getpid(), mode="sandbox",
            venue="sandbox", updated_at="2026-03-01T00:00:00+00:00",
        ),
    )  # fmt: skip
    Latch(tmp_path).stop(by_hand())
    unheard = qtctl(tmp_path, "resume", "--reason", "over", "--wait", "1")
    left = Latch(tmp_path).read()
    Latch(tmp_path).remove([one.key for one in (*left.stops, *left.resets)])
    nothing_left = qtctl(tmp_path, "resume", "--reason", "over", "--wait", "1")

    assert unheard.returncode == 1
    assert "did not answer" in unheard.stdout
    assert len(left.resets) == 1
    assert nothing_left.returncode == 0


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (("stop",), 2, "reason"),
        (("stop", "--reason", "  "), 2, "say why"),
        (("stop", "--reason", "x" * 501), 2, "at most 500"),
        (("resume", "--reason", "x"), 0, "Nothing is latched"),
    ],
)
def test_commands_refuse_what_says_nothing(tmp_path, arguments, status, words):
    """A stop and a reset need a reason that somebody can read."""
    done = qtctl(tmp_path, *arguments)

    assert done.returncode == status
    assert words in done.stdout + done.stderr


def test_a_home_that_cannot_be_written_is_said(tmp_path):
    """Nothing is latched, and the message says what to do."""
    (tmp_path / "emergency").write_text("not a folder")
    done = qtctl(tmp_path, "stop", "--reason", "drill")

    assert done.returncode == 1
    assert "nothing is latched" in done.stderr
