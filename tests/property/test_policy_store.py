from __future__ import annotations

import hashlib
import json
import multiprocessing
import shutil
import sqlite3
import tempfile
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from inference.domain.errors import PolicyError
from inference.domain.policy import Policy
from inference.policy.store import PolicyStore
from inference.policy.versions import (
    PolicyConflictError,
    PolicyStoreError,
    Source,
    StoreFault,
    entry_text,
    version_of,
    versions_of_snapshot,
)

NOW = 1_764_000_000_000
policies = st.builds(
    Policy,
    leverage=st.integers(1, 30),
    max_positions=st.integers(1, 500),
    max_notional=st.decimals("100", "1000000", places=8),
    confidence_threshold=st.none() | st.floats(0.5, 0.99),
    denied_symbols=st.sampled_from([(), ("BTC",), ("ETH/USDT:USDT", 'a"b\\c')]),
    max_btc_beta=st.none() | st.decimals("0.1", "3", places=4),
)


def store_in(folder, now_ms=NOW, **changes):
    return PolicyStore(Path(folder), now_ms=lambda: now_ms, **changes)


def put(store, policy, **changes):
    newest = store.newest()
    given = {"expected": 0 if newest is None else newest.number, "author": "anna", "reason": "a test"}
    return store.append(policy, source=Source.SET, **{**given, **changes})


def put_three(folder):
    store = store_in(folder)
    return store, [put(store, Policy(leverage=number)) for number in (1, 2, 4)]


@given(policies)
def test_a_version_is_read_as_it_was_made(policy):
    """Every rule survives, to the last digit, and so does the fingerprint."""
    with tempfile.TemporaryDirectory() as folder:
        made = put(store_in(folder), policy)
        read = store_in(folder).newest()

        assert read == made
        assert read is not None
        assert read.policy.fingerprint == policy.fingerprint
        assert store_in(folder).last_good() == made
        assert version_of(entry_text(made)) == made


class StoreMachine(RuleBasedStateMachine):
    """Versions, rollbacks, stale writers, lost snapshots, damage and recovery, against a plain list."""

    def __init__(self):
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.clock = NOW
        self.store = PolicyStore(self.folder, now_ms=lambda: self.clock)
        self.made = []
        self.damaged = False

    def teardown(self):
        """Leave nothing behind."""
        shutil.rmtree(self.folder)

    @precondition(lambda self: not self.damaged)
    @rule(policy=policies, step=st.integers(-(10**9), 10**9))
    def change(self, policy, step):
        """A version is made, whatever the clock does; one that changes nothing is refused."""
        self.clock = max(0, self.clock + step)
        if self.made and self.made[-1].policy == policy:
            with pytest.raises(PolicyError):
                put(self.store, policy)
        else:
            self.made.append(put(self.store, policy))

    @precondition(lambda self: self.made and not self.damaged)
    @rule(policy=policies, behind=st.integers(1, 3))
    def change_what_was_changed(self, policy, behind):
        """Who has not seen the newest version changes nothing."""
        with pytest.raises(PolicyConflictError):
            put(self.store, policy, expected=len(self.made) - behind)

    @precondition(lambda self: len(self.made) > 1 and not self.damaged)
    @rule(data=st.data())
    def roll_back(self, data):
        """A rollback is a new version that equals an old one."""
        old = data.draw(st.sampled_from(self.made))
        if old.policy == self.made[-1].policy:
            return
        made = self.store.rollback(old.number, expected=len(self.made), author="anna", reason="back")
        assert made.policy == old.policy
        assert (made.source, made.of) == (Source.ROLLBACK, str(old.number))
        self.made.append(made)

    @precondition(lambda self: self.made and not self.damaged)
    @rule(text=st.sampled_from([None, b"", b"{", b'{"versions":[]}', b"\xff"]))
    def lose_the_snapshot(self, text):
        """A snapshot that is gone or damaged is written again; the store is in force meanwhile."""
        if text is None:
            self.store.snapshot.unlink(missing_ok=True)
        else:
            self.store.snapshot.write_bytes(text)
        assert self.store.newest() == self.made[-1]
        assert self.store.back_up()
        assert not self.store.back_up()

    @precondition(lambda self: self.made and not self.damaged)
    @rule(how=st.sampled_from(["gone", "empty", "text", "half", "older"]))
    def damage(self, how):
        """A store that is not what it was is not used, and never begun anew."""
        path = self.store.path
        if how == "gone":
            path.unlink()
        elif how == "half":
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        elif how == "older":
            with sqlite3.connect(path) as connection:
                connection.execute("DELETE FROM version WHERE number = ?", (len(self.made),))
            connection.close()
        else:
            path.write_bytes({"empty": b"", "text": b"not a database, whatever its name says " * 200}[how])
        with pytest.raises(PolicyStoreError):
            self.store.newest()
        with pytest.raises(PolicyStoreError):
            self.store.append(
                Policy(leverage=7), expected=len(self.made), author="anna", reason="no", source=Source.SET
            )
        assert self.store.last_good() == self.made[-1]
        self.damaged = True

    @precondition(lambda self: self.damaged)
    @rule()
    def recover(self):
        """What was in force is in force again, and what was damaged is kept."""
        had_file = self.store.path.exists()
        found, aside = self.store.recover()
        assert found == self.made[-1]
        assert (aside is not None and aside.exists()) is had_file
        self.damaged = False

    @invariant()
    def the_store_is_the_list(self):
        """Numbers follow each other, and nothing is lost or changed."""
        if self.damaged:
            return
        history = self.store.history()
        assert list(history) == self.made
        assert [one.number for one in history] == list(range(1, len(history) + 1))
        assert self.store.newest() == (self.made[-1] if self.made else None)


TestStore = StoreMachine.TestCase
TestStore.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_makes_rules_that_nobody_wrote(data):
    """Whatever bytes change or are lost, the store gives the newest version or says that it cannot."""
    with tempfile.TemporaryDirectory() as folder:
        store, made = put_three(folder)
        content = bytearray(store.path.read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] ^= data.draw(st.integers(1, 255))
        store.path.write_bytes(bytes(content[: data.draw(st.integers(0, len(content)) | st.just(len(content)))]))
        try:
            found = store.newest()
        except PolicyStoreError as error:
            found, fault = made[-1], error.fault
            assert fault in StoreFault
        assert found == made[-1]


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_no_damage_of_a_snapshot_makes_rules_that_nobody_wrote(data):
    """A snapshot gives what was made, or says that it cannot be trusted."""
    with tempfile.TemporaryDirectory() as folder:
        store, made = put_three(folder)
        content = bytearray(store.snapshot.read_bytes())
        for _ in range(data.draw(st.integers(1, 3))):
            place = data.draw(st.integers(0, len(content) - 1))
            content[place] ^= data.draw(st.integers(1, 255))
        try:
            found = versions_of_snapshot(bytes(content))
        except PolicyStoreError:
            found = tuple(made)
        assert list(found) == made


def write_many(folder, name, count):
    """Make versions as fast as the others let us; run in a process or a thread of its own."""
    store = store_in(folder)
    done = 0
    while done < count:
        newest = store.newest()
        number = 0 if newest is None else newest.number
        try:
            store.append(
                Policy(max_positions=1 + number % 400, max_notional=Decimal(1000 + done)),
                expected=number, author=name, reason=f"change {done}", source=Source.SET,
            )  # fmt: skip
        except (PolicyConflictError, PolicyError):
            continue
        done += 1


@pytest.mark.parametrize("make", [multiprocessing.get_context("spawn").Process, threading.Thread])
def test_writers_at_once_lose_nothing(tmp_path, make):
    """Two processes, or threads, that change at once make all their versions, each after one that it had seen."""
    writers = [make(target=write_many, args=(str(tmp_path), name, 6)) for name in ("anna", "bert")]
    for one in writers:
        one.start()
    for one in writers:
        one.join()
    history = store_in(tmp_path).history()

    assert Counter(one.author for one in history) == {"anna": 6, "bert": 6}
    assert [one.reason for one in history if one.author == "anna"] == [f"change {number}" for number in range(6)]
    assert store_in(tmp_path).last_good() == history[-1]


def test_a_store_that_is_being_written_is_busy_and_not_damaged(tmp_path):
    """Who cannot wait is told to come again; nothing changes."""
    store, made = put_three(tmp_path)
    impatient = store_in(tmp_path, busy_seconds=0.02)
    holder = sqlite3.connect(store.path, isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    with pytest.raises(PolicyStoreError) as caught:
        impatient.newest()
    holder.close()

    assert caught.value.fault is StoreFault.BUSY
    assert impatient.newest() == made[-1]


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        pytest.param({"format": 2}, StoreFault.NEWER, id="format"),
        pytest.param({"rules": {"max_moon_phase": 3}}, StoreFault.NEWER, id="rule"),
        pytest.param({"fingerprint": "0" * 64}, StoreFault.NEWER, id="fingerprint"),
    ],
)
def test_a_version_from_the_future_is_not_guessed_at(tmp_path, change, fault):
    """What a later program wrote is refused, and says to update this one; recovery does not throw it away."""
    store, made = put_three(tmp_path)
    entry = json.loads(entry_text(made[-1])) | change | {"number": 4, "previous": made[-1].digest, "digest": ""}
    # Signed as the later program would have: over its own text.
    unsigned = json.dumps(entry, sort_keys=True, separators=(",", ":"))
    text = json.dumps(entry | {"digest": hashlib.sha256(unsigned.encode()).hexdigest()})
    with sqlite3.connect(store.path) as connection:
        connection.execute("INSERT INTO version VALUES (4, ?)", (text,))
    connection.close()

    with pytest.raises(PolicyStoreError, match="update") as caught:
        store.newest()
    assert caught.value.fault is fault
    with pytest.raises(PolicyStoreError, match="update"):
        store.recover()


def test_a_file_of_a_later_format_is_left_alone(tmp_path):
    """The format of the file itself is looked at before anything else."""
    store, _ = put_three(tmp_path)
    with sqlite3.connect(store.path) as connection:
        connection.execute("PRAGMA user_version = 9")
    connection.close()

    with pytest.raises(PolicyStoreError, match="format 9") as caught:
        put(store, Policy(leverage=9), expected=3)
    assert caught.value.fault is StoreFault.NEWER


def test_an_older_file_put_in_place_is_found(tmp_path):
    """A backup that lacks the newest versions is not taken for the store."""
    store, made = put_three(tmp_path)
    older = store.path.read_bytes()
    put(store, Policy(leverage=9))
    store.path.write_bytes(older)

    with pytest.raises(PolicyStoreError, match="version 3") as caught:
        store.newest()
    assert caught.value.fault is StoreFault.BEHIND
    assert store.recover()[0].policy == Policy(leverage=9)
    assert store.version(3) == made[-1]


def test_a_version_that_was_changed_is_found(tmp_path):
    """Rules that were edited in the file are not what was made; earlier ones show in the whole history."""
    store, made = put_three(tmp_path)
    text = entry_text(made[1]).replace('"leverage":2', '"leverage":9')
    with sqlite3.connect(store.path) as connection:
        connection.execute("UPDATE version SET entry = ? WHERE number = 2", (text,))
    connection.close()

    with pytest.raises(PolicyStoreError, match="version 2 was changed") as caught:
        store.history()
    assert caught.value.fault is StoreFault.DAMAGED


@pytest.mark.parametrize("reason", ["", "  ", "two\nlines", "\x1b[31m", "x" * 501])
def test_a_version_says_why(tmp_path, reason):
    """Who changes rules gives a reason that can be read."""
    with pytest.raises(PolicyError, match="write --reason"):
        put(store_in(tmp_path), Policy(), reason=reason)
    assert not store_in(tmp_path).path.exists()


def test_what_a_crash_leaves_is_the_version_before_or_the_new_one(tmp_path, monkeypatch):
    """A writer that dies before its transaction, or between it and the snapshot, leaves a whole store."""
    store, made = put_three(tmp_path)

    class Dead(BaseException):
        pass

    def die(*_args):
        raise Dead

    monkeypatch.setattr(Path, "replace", die)
    with pytest.raises(Dead):
        put(store, Policy(leverage=9))
    monkeypatch.undo()
    newest = store.newest()

    assert newest is not None
    assert newest.policy == Policy(leverage=9)
    assert store.last_good() == made[-1]
    assert store.back_up()
    assert store.last_good() == newest


def test_a_snapshot_that_cannot_be_written_makes_no_version(tmp_path, monkeypatch):
    """A full disk keeps the old version in force and says so."""
    store, made = put_three(tmp_path)

    def full(*_args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(PolicyStoreError, match="No space left"):
        put(store, Policy(leverage=9), expected=3)
    monkeypatch.undo()

    assert store.newest() == made[-1]
