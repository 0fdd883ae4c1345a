"""A worker goes by the newest version from the next candle on, says so, and waits while the store cannot be trusted."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from types import SimpleNamespace

import pytest

from inference.bootstrap.past import Past
from inference.bootstrap.policy_parts import Seed, StartedPolicy, policy_beside, seed_of
from inference.domain.bias import BiasMode
from inference.domain.decision import TradingState
from inference.domain.errors import PolicyError
from inference.domain.events import Noted
from inference.domain.policy import EntryStyle, Policy
from inference.exchange.ccxt_gateway import CcxtGateway
from inference.exchange.venue_clock import VenueClock
from inference.execution.book import Book
from inference.journal.codec import GENESIS, chained
from inference.policy.store import PolicyStore
from inference.policy.versions import PolicyStoreError, Source, StoreFault
from inference.policy.watch import PolicyWatch
from inference.settings import load_settings
from inference.supervision.followed_policy import FollowedPolicy
from inference.supervision.standing import Standing
from tests.worker_support import FakeClock, FakeGateway, MemoryJournal, make_executor
from tests.worker_values import T0, make_approved

BTC = "BTC/USDT:USDT"


@pytest.fixture
def store(tmp_path):
    """Return a store with one version."""
    store = PolicyStore(tmp_path / "policy", now_ms=lambda: 0)
    put(store, Policy(leverage=2))
    return store


def put(store, policy):
    newest = store.newest()
    return store.append(
        policy, expected=newest.number if newest else 0, author="anna", reason="a test", source=Source.SET
    )


class Notes(list):
    """What was journaled."""

    def __call__(self, event_type, detail):
        """Keep it."""
        self.append((event_type, dict(detail)))

    @property
    def kinds(self):
        """Return the types in order."""
        return [kind for kind, _ in self]


def followed(store):
    notes, standing = Notes(), Standing()
    return FollowedPolicy(PolicyWatch(store, store.newest()), standing, note=notes), standing, notes


def test_a_new_version_is_taken_once_and_told_with_what_it_changes(store):
    """The event names both versions, who made the new one and why, and each rule that differs."""
    policies, standing, notes = followed(store)
    assert policies.take(Policy(leverage=2)) is None
    made = put(store, Policy(leverage=1, max_positions=7))

    assert policies.take(Policy(leverage=2)) == made.policy
    assert policies.take(made.policy) is None
    assert policies.stamp == (2, made.policy.fingerprint)
    assert notes == [
        (
            "policy.updated",
            {
                "version": "2",
                "fingerprint": made.policy.fingerprint,
                "author": "anna",
                "reason": "a test",
                "source": "set",
                "changes": "max_positions 20 -> 7; leverage 2 -> 1",
                "from_version": "1",
            },
        )
    ]
    assert standing.trading_state is TradingState.ACTIVE


def test_versions_that_another_followed_within_a_candle_are_told_too(store):
    """Each update is an event of its own, in their order; what never took effect says which one followed it."""
    policies, _, notes = followed(store)
    put(store, Policy(leverage=1))
    put(store, Policy(leverage=1, max_positions=7))
    made = put(store, Policy(leverage=1, max_positions=8))

    assert policies.take(Policy(leverage=2)) == made.policy
    assert policies.take(made.policy) is None
    assert notes.kinds == ["policy.updated"] * 3
    told = [(one["version"], one["from_version"], one.get("superseded_by")) for _, one in notes]
    assert told == [("2", "1", "4"), ("3", "2", "4"), ("4", "1", None)]
    assert [one["changes"] for _, one in notes[:2]] == ["leverage 2 -> 1", "max_positions 20 -> 7"]


def test_a_history_that_cannot_be_read_holds_back_nothing(store):
    """The newest version was read and counts; of those before it nothing can be told."""

    class Forgetful:
        signature, newest = store.signature, store.newest

        def history(self):
            raise PolicyStoreError(StoreFault.BUSY, "it is being changed")

        kept = history

    notes, standing = Notes(), Standing()
    policies = FollowedPolicy(PolicyWatch(Forgetful(), store.newest()), standing, note=notes)
    put(store, Policy(leverage=1))
    made = put(store, Policy(leverage=3))

    assert policies.take(Policy(leverage=2)) == made.policy
    assert notes.kinds == ["policy.updated"]
    assert standing.trading_state is TradingState.ACTIVE


def test_versions_made_while_no_worker_ran_are_told_once_at_the_next_start(tmp_path, monkeypatch):
    """By what the journal says it knows: before what is loaded, each with its change, and never a second time."""
    settings, notes, past = settings_of(tmp_path, monkeypatch), Notes(), Past(Book())

    def starts():
        notes.clear()
        started = StartedPolicy(settings, seed_of(settings, None))
        started.tell(notes, told=past.policy_version)
        for seq, (kind, detail) in enumerate(notes, start=1):
            event = Noted(event_type=kind, detail=detail)
            past.visit(chained(event, seq=seq, timestamp_ms=T0, trace_id="", previous=GENESIS))
        return notes.kinds

    store = PolicyStore(settings.policy_folder, now_ms=lambda: 0)
    assert starts() == ["policy.loaded"]
    put(store, Policy(leverage=2))
    put(store, Policy(leverage=1))
    assert starts() == ["policy.updated", "policy.updated", "policy.loaded"]
    told = [(one["version"], one["from_version"], one["changes"], one.get("superseded_by")) for _, one in notes[:2]]
    assert told == [("2", "1", "leverage 3 -> 2", "3"), ("3", "2", "leverage 2 -> 1", None)]
    assert past.policy_version == 3
    assert starts() == ["policy.loaded"]


@pytest.mark.parametrize("said", ["", "none", "-1", "²", "9" * 30, "1.5"])
def test_a_number_that_is_none_is_not_what_the_journal_knows(said):
    """What another version wrote, or somebody else, changes nothing."""
    past = Past(Book())
    for version in ("4", said):
        event = Noted(event_type="policy.loaded", detail={"version": version})
        past.visit(chained(event, seq=1, timestamp_ms=T0, trace_id="", previous=GENESIS))

    assert past.policy_version == 4


@pytest.mark.parametrize("how", ["gone", "damaged", "older"])
def test_a_store_that_cannot_be_trusted_holds_entries_back_until_it_is_whole(store, how):
    """The version in force stays, entries wait, both ends are journaled once; what is recovered is taken up again."""
    policies, standing, notes = followed(store)
    older = store.path.read_bytes()
    made = put(store, Policy(leverage=1))
    assert policies.take(Policy(leverage=2)) == made.policy
    if how == "gone":
        store.path.unlink()
    else:
        store.path.write_bytes(older if how == "older" else b"no database at all, but long enough to be read" * 100)

    for _ in range(3):
        assert policies.take(made.policy) is None
    assert standing.trading_state is TradingState.REDUCING
    assert "policy store" in standing.reason
    assert policies.stamp == (2, made.policy.fingerprint)
    assert policies.fault is not None
    assert notes.kinds == ["policy.updated", "policy.store_failed"]
    assert notes[-1][1]["code"] == policies.fault.fault.value
    store.recover()
    assert policies.take(made.policy) is None
    assert standing.trading_state is TradingState.ACTIVE
    assert policies.fault is None
    assert notes.kinds == ["policy.updated", "policy.store_failed", "policy.store_recovered"]


def test_a_store_that_is_being_written_is_looked_at_again(store):
    """A writer that holds the store just now changes nothing and alarms nobody."""

    class Busy:
        def __init__(self):
            self.busy = True

        def signature(self):
            return store.signature()

        def newest(self):
            if self.busy:
                raise PolicyStoreError(StoreFault.BUSY, "it is being changed")
            return store.newest()

    busy, notes, standing = Busy(), Notes(), Standing()
    policies = FollowedPolicy(PolicyWatch(busy, store.newest()), standing, note=notes)
    made = put(store, Policy(leverage=1))
    assert policies.take(Policy(leverage=2)) is None
    assert (standing.trading_state, notes) == (TradingState.ACTIVE, [])
    busy.busy = False
    assert policies.take(Policy(leverage=2)) == made.policy


def test_without_a_store_there_is_one_policy_and_no_stamp():
    """A replay or a test that has rules and no store records no version."""
    policies = FollowedPolicy(None, Standing(), note=Notes())

    assert policies.take(Policy()) is None
    assert policies.version is None
    assert [type(one).__name__ for one in policies.stamp] == ["UnsetType", "UnsetType"]


def settings_of(home, monkeypatch, **environment):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    return load_settings(home=home, venue_url="http://127.0.0.1:1")


def test_a_file_and_the_environment_seed_the_first_version_and_are_told_when_they_no_longer_count(
    tmp_path, monkeypatch
):
    """Afterwards the store is in force; a seed that changed is told with what it would change, and ignored."""
    file = tmp_path / "policy.toml"
    file.write_text("leverage = 2\n")
    settings = settings_of(tmp_path, monkeypatch, QT_BIAS_MODE="enforce")
    first, notes = StartedPolicy(settings, seed_of(settings, file)), Notes()
    first.tell(notes)
    assert first.policy == Policy(leverage=2, bias_mode=BiasMode.ENFORCE)
    assert notes.kinds == ["policy.loaded"]
    assert notes[0][1]["source"] == f"seed {file}, QT_BIAS_MODE"

    put(PolicyStore(settings.policy_folder, now_ms=lambda: 0), Policy(leverage=1))
    again, notes = StartedPolicy(settings, seed_of(settings, file)), Notes()
    again.tell(notes)
    assert again.policy == Policy(leverage=1)
    assert notes.kinds == ["policy.loaded"]

    file.write_text("leverage = 3\n")
    changed, notes = StartedPolicy(settings, seed_of(settings, file)), Notes()
    changed.tell(notes)
    assert changed.policy == Policy(leverage=1)
    assert notes.kinds == ["policy.loaded", "policy.seed_ignored"]
    assert notes[1][1]["would_change"] == "leverage 1 -> 3; bias_mode observe -> enforce"
    assert "qtctl policy set --file" in notes[1][1]["remedy"]
    assert policy_beside(settings, file) == Policy(leverage=1)


def test_a_profile_seeds_by_name_and_nothing_asked_is_nothing_to_tell(tmp_path, monkeypatch):
    """QT_POLICY_PROFILE names the rules to begin with; a start that asks for nothing is told nothing."""
    settings = settings_of(tmp_path, monkeypatch, QT_POLICY_PROFILE="cautious")
    assert StartedPolicy(settings, seed_of(settings, None)).policy.leverage == 1
    monkeypatch.delenv("QT_POLICY_PROFILE")
    plain, notes = settings_of(tmp_path, monkeypatch), Notes()
    StartedPolicy(plain, seed_of(plain, None)).tell(notes)
    assert notes.kinds == ["policy.loaded"]
    wrong = settings_of(tmp_path, monkeypatch, QT_POLICY_PROFILE="cautios")
    with pytest.raises(PolicyError, match="did you mean cautious"):
        seed_of(wrong, None)


@pytest.mark.parametrize("has_snapshot", [True, False])
def test_a_worker_that_starts_with_a_damaged_store_trades_nothing_and_guards_what_is_open(
    tmp_path, monkeypatch, has_snapshot
):
    """Rules come from the snapshot, else from the seed; entries wait from the first candle on."""
    settings = settings_of(tmp_path, monkeypatch)
    store = PolicyStore(settings.policy_folder, now_ms=lambda: 0)
    put(store, Policy(leverage=1))
    store.path.write_bytes(b"\0" * 5000)
    if not has_snapshot:
        store.snapshot.write_bytes(b"{}")
    seed = Seed(policy=Policy(leverage=3), words="profile default", is_asked=False)
    started, notes, standing = StartedPolicy(settings, seed), Notes(), Standing()
    policies = FollowedPolicy(started.watch, standing, note=notes)

    assert started.policy.leverage == (1 if has_snapshot else 3)
    assert policies.take(started.policy) is None
    assert standing.trading_state is TradingState.REDUCING
    assert notes.kinds == ["policy.store_failed"]
    assert notes[0][1]["version"] == ("1" if has_snapshot else "none")


@pytest.mark.parametrize("has_snapshot", [True, False])
def test_what_was_missed_is_told_from_the_snapshot_where_the_store_is_damaged(tmp_path, monkeypatch, has_snapshot):
    """Versions made while no worker ran are in the snapshot too; without one nothing is made up."""
    settings = settings_of(tmp_path, monkeypatch)
    store = PolicyStore(settings.policy_folder, now_ms=lambda: 0)
    for leverage in (3, 2, 1):
        put(store, Policy(leverage=leverage))
    store.path.write_bytes(b"\0" * 5000)
    if not has_snapshot:
        store.snapshot.unlink()
    started, notes = StartedPolicy(settings, seed_of(settings, None)), Notes()
    started.tell(notes, told=1)

    told = [(kind, one["version"], one.get("changes")) for kind, one in notes]
    missed = [("policy.updated", "2", "leverage 3 -> 2"), ("policy.updated", "3", "leverage 2 -> 1")]
    assert told == ([*missed, ("policy.loaded", "3", None)] if has_snapshot else [])


def test_a_lost_snapshot_is_written_again_at_the_start(tmp_path, monkeypatch):
    """The next damage finds a backup."""
    settings = settings_of(tmp_path, monkeypatch)
    store = PolicyStore(settings.policy_folder, now_ms=lambda: 0)
    made = put(store, Policy(leverage=1))
    store.snapshot.unlink()
    StartedPolicy(settings, seed_of(settings, None))

    assert store.last_good() == made


async def test_entries_are_worked_by_the_new_rules():
    """Style, patience and fees change for what is entered next."""
    clock = FakeClock()
    executor = make_executor(FakeGateway(clock, marks={BTC: Decimal(50_000)}), MemoryJournal())
    executor.follow(Policy(entry_style=EntryStyle.POST_ONLY, entry_patience_seconds=7, taker_fee=Decimal("0.001")))
    plan = executor._plan(make_approved(), T0)

    assert plan.entry_style is EntryStyle.POST_ONLY
    assert plan.entry_until_ms - plan.planned_at_ms == 7000
    assert executor._closing.taker_fee == Decimal("0.001")


async def test_leverage_is_set_again_where_it_changed():
    """Once for each symbol and value, and once more where the policy changed while the venue was answering."""
    asked, answers = [], asyncio.Event()
    answers.set()

    async def post_leverage(params):
        asked.append((params["symbol"], params["leverage"]))
        await answers.wait()
        return {}

    venue = SimpleNamespace(fapiPrivatePostLeverage=post_leverage, markets={BTC: {"id": "BTCUSDT"}})
    gateway = CcxtGateway(venue, clock=VenueClock(accelerated=False), monotonic=FakeClock().monotonic, leverage=3)
    for leverage in (3, 3, 2):
        gateway.use_leverage(leverage)
        await gateway._ensure_leverage(BTC)
    settled = list(asked)
    answers.clear()
    gateway.use_leverage(5)
    waiting = asyncio.create_task(gateway._ensure_leverage(BTC))
    await asyncio.sleep(0)
    gateway.use_leverage(1)
    answers.set()
    await waiting
    await gateway._ensure_leverage(BTC)

    assert settled == [("BTCUSDT", 3), ("BTCUSDT", 2)]
    assert asked[2:] == [("BTCUSDT", 5), ("BTCUSDT", 1)]
