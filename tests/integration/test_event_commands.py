"""`qtctl events`: what is on the bus, for a person and for a program, on both buses."""

from __future__ import annotations

import json

import pytest

from inference import cli
from inference.bus.address import open_bus
from inference.bus.port import OLDEST, Subscription
from tests.bus_support import event
from tests.redis_support import running_redis


@pytest.fixture(params=["local", pytest.param("redis", marks=pytest.mark.needs_redis)])
def filled(request, tmp_path, monkeypatch):
    """Return a bus with five events, a group, and two dead letters of it; commands find it in the environment."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_BUS", raising=False)
    if request.param == "local":
        yield _fill(open_bus(None, tmp_path))
        return
    with running_redis(tmp_path) as url:
        monkeypatch.setenv("QT_BUS", url)
        yield _fill(open_bus(url, tmp_path))


def _fill(bus):
    bus.subscribe("desk", Subscription(patterns=("trade.*",), start=OLDEST, max_deliveries=1))
    bus.publish([event(1), event(2, "risk.corrected"), event(3, "trade.closed"), event(4), event(5, "risk.corrected")])
    first, _, third = bus.fetch("desk", "a")
    bus.fail(first, "no room")
    bus.fail(third, "no time")
    return bus


def said(capsys, *arguments, status=0):
    """Run a command and return what it printed."""
    assert cli.run(["events", *arguments]) == status
    return capsys.readouterr()


def lines(text):
    """Return JSON lines."""
    return [json.loads(line) for line in text.splitlines()]


def test_tail(filled, capsys):
    """The newest events, of the types that are meant."""
    assert [one["offset"] for one in lines(said(capsys, "tail", "--json").out)] == [1, 2, 3, 4, 5]
    assert [one["offset"] for one in lines(said(capsys, "tail", "risk.*", "--lines", "1", "--json").out)] == [5]
    words = said(capsys, "tail", "trade.closed").out
    assert "trade.closed" in words
    assert '{"number":3}' in words
    assert words.count("\n") == 1


def test_replay(filled, capsys):
    """From an offset or a time; or a group reads on from there."""
    assert [one["offset"] for one in lines(said(capsys, "replay", "--from-offset", "4", "--json").out)] == [4, 5]
    since = event(3).timestamp
    assert [one["offset"] for one in lines(said(capsys, "replay", "trade.*", "--since", since, "--json").out)] == [3, 4]
    assert json.loads(said(capsys, "replay", "--group", "desk", "--from-offset", "3", "--json").out) == {
        "group": "desk",
        "reads_on_from": 3,
    }
    assert [one.offset for one in filled.fetch("desk", "b")] == [3, 4]


def test_dead_letters_are_listed_and_delivered_again(filled, capsys):
    """All, or the one that is named."""
    dead = json.loads(said(capsys, "dead", "--json").out)
    assert [(one["offset"], one["reason"], one["group"]) for one in dead] == [
        (1, "no room", "desk"),
        (4, "no time", "desk"),
    ]
    assert "no time" in said(capsys, "dead", "--group", "desk").out
    assert json.loads(said(capsys, "requeue", "desk", event(4).event_id, "--json").out)["requeued"] == 1
    assert [one.offset for one in filled.fetch("desk", "b")] == [4]
    assert "requeued 1" in said(capsys, "requeue", "desk").out
    assert json.loads(said(capsys, "dead", "--json").out) == []
    assert "0 dead letters" in said(capsys, "dead").out


def test_stats(filled, capsys):
    """Published, kept, and each group's."""
    told = json.loads(said(capsys, "stats", "--json").out)
    assert (told["published"], told["kept"], told["last_offset"]) == (5, 5, 5)
    assert told["groups"]["desk"] | {"position": 0} == {
        "patterns": ["trade.*"],
        "position": 0,
        "delivered": 3,
        "acknowledged": 0,
        "pending": 1,
        "dead": 2,
        "dropped": 0,
    }
    assert "desk" in said(capsys, "stats").out


@pytest.mark.parametrize(
    ("arguments", "status", "word"),
    [
        (("tail", "Trade.*"), 2, "Trade"),
        (("replay", "--since", "yesterday"), 2, "yesterday"),
        (("replay", "--group", "desk", "--since", "2026-01-01"), 2, "offset"),
        (("replay", "--group", "nobody"), 1, "nobody"),
        (("requeue", "nobody"), 1, "nobody"),
        (("requeue", "desk", "9e99a844-ea42-51b0-9b8f-3a23b2ea1d9a"), 1, "9e99a844"),
        (("tail", "--bus", "amqp://x"), 2, "amqp"),
        (("stats", "--bus", "unix:///nowhere/redis.sock"), 1, "Redis"),
    ],
)
def test_what_cannot_be_done_is_said_in_a_sentence(filled, capsys, arguments, status, word):
    """With the status that the help states, and as JSON for a program."""
    found = said(capsys, *arguments, "--json", status=status)
    assert word in json.loads(found.out)["error"]
    assert found.err.count("\n") == 1


def test_looking_at_a_bus_that_is_not_there_makes_none(tmp_path, capsys, monkeypatch):
    """The message says who makes it."""
    monkeypatch.delenv("QT_BUS", raising=False)
    for command in ("tail", "replay", "dead", "stats"):
        assert "worker makes it" in said(capsys, command, "--home", str(tmp_path), status=1).err
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_bus_is_left_as_it_is(tmp_path, capsys, monkeypatch):
    """A damaged file is an error that names it; the journal fills another."""
    monkeypatch.delenv("QT_BUS", raising=False)
    path = tmp_path / "worker" / "bus.db"
    path.parent.mkdir()
    path.write_bytes(b"this is no database, whatever its name says" * 50)
    before = path.read_bytes()

    found = said(capsys, "stats", "--home", str(tmp_path), status=1)
    assert str(path) in found.err
    assert path.read_bytes() == before


def test_the_kinds_of_events(capsys):
    """Each with who says it and what it means."""
    told = {one["event_type"]: one for one in json.loads(said(capsys, "kinds", "--json").out)}
    assert told["trade.closed"]["source"] == "execution"
    assert told["signal.generated"]["follows_from"] == "signal.decided"
    assert "trade.closed" in said(capsys, "kinds").out
