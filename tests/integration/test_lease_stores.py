"""Where leases are kept: SQLite and PostgreSQL answer alike, and a keeper lives with what they do."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feature_store.venue.requests import Urgency
from inference.domain.errors import SettingsError
from inference.execution.lease import Holder, LeaseState, LeaseTerms
from inference.leases.holding import account_key, is_dead, this_process
from inference.leases.keeper import AccountInUseError, LeaseKeeper
from inference.leases.sqlite_store import SqliteLeases
from inference.leases.store import LeaseStoreError, open_store, row_of
from tests.postgres_support import running_postgres
from tests.stack_fixtures import free_port
from tests.worker_support import FakeClock

ONE = Holder(host="a", pid=1, started="1", kernel="k", home="/one")
TWO = Holder(host="b", pid=2, started="2", kernel="k", home="/two")
TERMS = LeaseTerms(seconds=10, recv_window_seconds=2)


@pytest.fixture(scope="module")
def postgres():
    """Return the address of a PostgreSQL server of this module's own."""
    with running_postgres() as address:
        yield address


@pytest.fixture(params=["sqlite", pytest.param("postgres", marks=pytest.mark.needs_postgres)])
def store(request, tmp_path):
    """Return a store of each kind, without an entry on the account of the test."""
    if request.param == "sqlite":
        return open_store(f"sqlite:///{tmp_path / 'leases.db'}", tmp_path)
    return open_store(request.getfixturevalue("postgres"), tmp_path)


def test_a_lease_goes_from_hand_to_hand(store, request):
    """Taken only as it was seen, renewed and released only by its holder; the token rises with each."""
    account = request.node.name
    assert store.read(account) is None
    assert store.take(account, ONE, None) == 1
    assert store.take(account, TWO, None) is None

    seen = store.read(account)
    assert (seen.token, seen.beat, seen.state, seen.holder) == (1, 0, LeaseState.HELD, ONE)
    assert store.renew(account, 1)
    assert store.take(account, TWO, seen) is None
    assert store.take(account, TWO, store.read(account)) == 2
    assert not store.renew(account, 1)

    store.release(account, 1, LeaseState.RELEASED)
    assert store.read(account).state is LeaseState.HELD
    store.release(account, 2, LeaseState.LEFT)
    assert store.read(account).state is LeaseState.LEFT
    assert not store.renew(account, 2)


def test_of_many_that_take_at_once_one_has_it(store, request):
    """Sixteen at a time, twenty times: each time one of them, with a token of its own."""
    account = request.node.name
    with ThreadPoolExecutor(16) as threads:
        for turn in range(1, 21):
            seen = store.read(account)
            taken = list(threads.map(lambda _, seen=seen: store.take(account, ONE, seen), range(16)))
            assert [one for one in taken if one is not None] == [turn]


@pytest.mark.parametrize("address", ["mysql://x/y", "sqlite://host/x", "nonsense", ""])
def test_an_address_of_no_store_is_refused(address, tmp_path):
    """What names no store that there is says so before anything is traded."""
    with pytest.raises(SettingsError, match="QT_LEASE_URL"):
        open_store(address, tmp_path)


@pytest.mark.parametrize(
    "row",
    [
        (1, 0, "held", "not json"),
        (1, 0, "held", "{}"),
        ("x", 0, "held", "{}"),
        (1, 0, "sold", "{}"),
        (1, 0, "held", None),
    ],
)
def test_a_row_of_another_program_is_refused(row):
    """A row that is none of ours is an error with words, not a lease."""
    with pytest.raises(LeaseStoreError):
        row_of(*row)


def test_a_damaged_file_is_an_error_with_its_name(tmp_path):
    """A file that is no database names itself."""
    path = tmp_path / "leases.db"
    path.write_bytes(b"no database" * 1000)

    with pytest.raises(LeaseStoreError, match=r"leases\.db"):
        SqliteLeases(path).read("a")


def test_an_unreachable_server_is_an_error(tmp_path):
    """A server that is not there is an error, and its password is not told."""
    with pytest.raises(LeaseStoreError) as refused:
        open_store(f"postgresql://qt:secret@127.0.0.1:{free_port()}/x", tmp_path).read("a")
    assert "secret" not in str(refused.value)


def test_a_dead_process_is_told_from_a_living_one(tmp_path):
    """This process lives; one that ended, a zombie and another life of the same number do not."""
    me = this_process(tmp_path)
    assert not is_dead(me)
    assert is_dead(Holder(host=me.host, pid=me.pid, started="0", kernel=me.kernel, home=me.home))
    assert not is_dead(Holder(host=me.host, pid=me.pid, started="0", kernel="another machine", home=me.home))
    child = subprocess.Popen([sys.executable, "-c", "pass"], stdout=subprocess.PIPE)
    assert child.stdout is not None
    child.stdout.read()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    gone = Holder(host=me.host, pid=child.pid, started="1", kernel=me.kernel, home=me.home)
    assert is_dead(gone)
    child.stdout.close()
    child.wait()
    assert is_dead(gone)


def test_an_account_has_one_name_and_hides_its_key():
    """Another key, venue or address is another account; a trailing slash is not."""
    name = account_key("sandbox", "http://127.0.0.1:1", "key")

    assert name == account_key("sandbox", "http://127.0.0.1:1/", "key")
    assert len({name, account_key("sandbox", "http://127.0.0.1:1", "k"), account_key("binanceusdm", None, "key")}) == 3
    assert "key" not in name


class Broken(SqliteLeases):
    """A store that cannot be reached while `is_down`."""

    is_down = False

    def renew(self, account: str, token: int) -> bool:
        """See `LeaseStore`."""
        if self.is_down:
            raise LeaseStoreError("down")
        return super().renew(account, token)


def keeper(store, me=ONE, clock=None, told=None, **named) -> LeaseKeeper:
    """Return a keeper on a clock of its own that only moves with its sleeps."""
    clock = clock or FakeClock()

    async def sleep(seconds: float) -> None:
        clock.seconds += seconds
        await asyncio.sleep(0)

    def tell(kind: str, detail: object) -> None:
        if told is not None:
            told.append((kind, detail))

    return LeaseKeeper(store, account="a", me=me, terms=TERMS, now=clock.monotonic, sleep=sleep, tell=tell, **named)


async def until(holds) -> None:
    """Wait until something is so that nobody tells of."""
    while not holds():  # noqa: ASYNC110 - threads bring it about
        await asyncio.sleep(0.001)


async def test_a_second_worker_is_refused_by_name(tmp_path):
    """While the first renews, the second ends with words that name the first."""
    path = tmp_path / "l.db"
    first = keeper(SqliteLeases(path))
    await first.take(wait=False)
    second = keeper(SqliteLeases(path), TWO)
    renewing = asyncio.create_task(first.keep())

    with pytest.raises(AccountInUseError, match=r"process 1 on a \(home /one\)"):
        await second.take(wait=False)
    renewing.cancel()
    assert first.check() == ""
    assert second.check() != ""


async def test_a_silent_holder_is_succeeded_after_its_lease_and_the_window(tmp_path):
    """A second worker takes over from one that renews no more, and sends nothing before the window has passed."""
    path, told = tmp_path / "l.db", []
    first_clock, second_clock = FakeClock(), FakeClock()
    first, second = keeper(SqliteLeases(path), clock=first_clock), keeper(SqliteLeases(path), TWO, second_clock, told)
    await first.take(wait=False)
    began = second_clock.seconds

    await second.take(wait=False)

    assert second_clock.seconds - began >= TERMS.seconds
    assert second.begins_in == pytest.approx(3.5)
    assert "may still be accepted" in second.check()
    second_clock.seconds += 3.6
    assert second.check() == ""
    assert [kind for kind, _ in told] == ["health.lease_taken"]
    # The first wakes up: its time is over on its own clock, and its next renewal tells it to whom.
    first_clock.seconds += 11
    assert "could not be renewed" in first.check()
    await first.keep()
    assert "process 2 on b" in first.check()
    assert second.token == 2


async def test_an_unreachable_store_stops_orders_until_it_answers(tmp_path):
    """The lease runs out while the store is away, and is good again once it answers, if nobody took it."""
    store, clock, told = Broken(tmp_path / "l.db"), FakeClock(), []
    one = keeper(store, clock=clock, told=told)
    await one.take(wait=False)
    renewing = asyncio.create_task(one.keep())
    store.is_down = True
    await until(lambda: clock.seconds >= 1011)
    renewing.cancel()
    assert "could not be renewed" in one.check()
    assert {kind for kind, _ in told} == {"health.lease_taken", "health.lease_not_renewed"}

    store.is_down = False
    again = asyncio.create_task(one.keep())
    await until(lambda: one.is_held)
    again.cancel()
    assert one.check() == ""


async def test_exits_go_on_where_a_full_disk_keeps_a_lease_of_our_own_home(tmp_path):
    """What reduces risk is let through though the lease could not be renewed, entries are not; a lost one ends all."""
    one = keeper(Broken(tmp_path / "l.db"), clock=(clock := FakeClock()), is_local=True)
    elsewhere = keeper(Broken(tmp_path / "other.db"), clock=clock)
    await one.take(wait=False)
    await elsewhere.take(wait=False)
    clock.seconds += 60

    assert one.check() != ""
    assert one.check(Urgency.URGENT) == ""
    assert elsewhere.check(Urgency.URGENT) != ""
    one.lost = "another worker trades"
    assert one.check(Urgency.URGENT) == "another worker trades"


async def test_a_clock_that_moved_waits_for_a_renewal(tmp_path):
    """After a doubt nothing is sent; the next renewal comes at once and ends it."""
    one = keeper(SqliteLeases(tmp_path / "l.db"))
    await one.take(wait=False)
    one.doubt()
    assert one.check() != ""

    renewing = asyncio.create_task(one.keep())
    await until(lambda: one.is_held)
    renewing.cancel()
    assert one.check() == ""


async def test_a_lease_given_back_is_free_at_once(tmp_path):
    """Who sent nothing lately leaves nothing to wait for; who just sent something does."""
    path = tmp_path / "l.db"
    for sends, quiet in ((False, 0.0), (True, 3.5)):
        first, second = keeper(SqliteLeases(path)), keeper(SqliteLeases(path), TWO)
        await first.take(wait=False)
        if sends:
            assert first.check() == ""
        await first.release()
        await second.take(wait=False)
        assert second.begins_in == pytest.approx(quiet)
        await second.release()


async def test_a_worker_told_to_wait_outlasts_an_unreachable_store(tmp_path):
    """With `wait` it asks until the store answers; without, the error is the answer."""
    folder = tmp_path / "not yet"
    folder.write_text("a file where a folder must be")
    one, heard = keeper(SqliteLeases(Path(folder) / "l.db")), []
    with pytest.raises(LeaseStoreError):
        await one.take(wait=False)

    taking = asyncio.create_task(one.take(wait=True, waiting=heard.append))
    await until(lambda: heard)
    folder.unlink()
    await taking
    assert one.check() == ""
    assert len(heard) >= 1
