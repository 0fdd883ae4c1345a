"""Several real processes and one budget, in a file and in Redis: killed, starved, stopped, refused."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import pytest

from feature_store.clock import monotonic, utc_now_ms
from feature_store.errors import BadInputError
from feature_store.venue.budget import LIMITS, Demand, Limit, RateBudget, account_of, budget_of
from feature_store.venue.errors import RateLimitedError, RetryableError
from feature_store.venue.factory import create_exchange
from feature_store.venue.requests import Urgency
from feature_store.venue.room import room
from feature_store.venue.shared_redis import SharedRedis
from tests.feature_support import REPOSITORY
from tests.redis_support import running_redis

WINDOW_S, MARGIN_S, MOST = 1.0, 0.2, 30
LIMIT = Limit(MOST, window_s=WINDOW_S, margin_s=MARGIN_S, bulk=0.6, usual=0.8, orders=((8, 0.5),))
STORES = ["file", pytest.param("redis", marks=pytest.mark.needs_redis)]
# A process that spends as fast as it may, and says when it did, by the clock that all of them share.
SPENDER = """
import asyncio, os, sys
from pathlib import Path
from feature_store.clock import monotonic
from feature_store.venue.budget import Demand, Limit, RateBudget
from feature_store.venue.errors import RetryableError
from feature_store.venue.requests import Urgency
from feature_store.venue.shared_redis import SharedRedis

async def main(place, urgency, orders, seconds):
    limit = Limit(30, window_s=1.0, margin_s=0.2, bulk=0.6, usual=0.8, orders=((8, 0.5),))
    shared = SharedRedis(place, "budget") if place.startswith("unix:") else Path(place)
    budget = RateBudget(shared, limit)
    demand = Demand(1.0, Urgency[urgency], int(orders), "account")
    print("ready", flush=True)
    end = monotonic() + float(seconds)
    while monotonic() < end:
        try:
            await budget.admit(demand, patience_s=0.5)
        except RetryableError:
            await asyncio.sleep(0.01)
        else:
            print(monotonic(), flush=True)
    await budget.close()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture(params=STORES)
def place(request, tmp_path):
    """Where the budget is kept: a file's path, or a Redis server's address."""
    with ExitStack() as stack:
        yield str(tmp_path / "venue.json") if request.param == "file" else stack.enter_context(running_redis(tmp_path))


def budget_at(place: str, limit: Limit = LIMIT) -> RateBudget:
    """Return a budget at such a place."""
    return RateBudget(SharedRedis(place, "budget") if place.startswith("unix:") else Path(place), limit)


def spender(place: str, urgency: str, *, orders: int = 0, seconds: float) -> subprocess.Popen[str]:
    """Start a process that spends, and wait until it begins."""
    process = subprocess.Popen(
        [sys.executable, "-c", SPENDER, place, urgency, str(orders), str(seconds)],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def spent_by(process: subprocess.Popen[str]) -> list[float]:
    """Return when a process spent."""
    out, _ = process.communicate(timeout=60)
    return [float(line) for line in out.split()]


def busiest(times: list[float], seconds: float) -> int:
    """The most spendings within any stretch of so many seconds."""
    return max((sum(begin <= at < begin + seconds for at in times) for begin in times), default=0)


def test_processes_that_are_killed_neither_exceed_the_limit_nor_block_the_others(place):
    """Five processes, two of them killed at work: no window holds more than the shares allow, and all else goes on."""
    killed = [spender(place, "USUAL", seconds=30) for _ in range(2)]
    living = [spender(place, urgency, seconds=60) for urgency in ("USUAL", "USUAL", "BULK")]
    for one in killed:
        one.stdout.readline()
        one.send_signal(signal.SIGKILL)
    after = monotonic()
    time.sleep(2.5)
    for one in living:
        one.terminate()
    times = {one: spent_by(one) for one in (*living, *killed)}
    everything = [at for one in times.values() for at in one]

    # A process says when it spent a moment after it did: the margin is for that.
    assert busiest(everything, WINDOW_S) <= MOST * LIMIT.usual
    assert sum(at > after for one in living for at in times[one]) >= MOST * LIMIT.usual


def test_exits_get_through_where_entries_starve(place):
    """Four processes use up what entries may use; one with exits still finds its share in every window."""
    greedy = [spender(place, "USUAL", seconds=4) for _ in range(4)]
    exits = spender(place, "URGENT", seconds=2.5)
    urgent = spent_by(exits)
    for one in greedy:
        spent_by(one)

    assert busiest(urgent, WINDOW_S) >= MOST * (1 - LIMIT.usual) - 1
    assert len(urgent) >= 2 * (MOST * (1 - LIMIT.usual) - 1)


def test_an_account_s_orders_are_counted_over_all_processes(place):
    """However much weight is left, no more orders go out in a window than the account may send."""
    both = [spender(place, "URGENT", orders=1, seconds=2) for _ in range(2)]
    times = [at for one in both for at in spent_by(one)]

    assert busiest(times, 0.5) <= 8
    assert len(times) >= 16


async def test_a_refusal_is_seen_by_all(place):
    """What one process was told, another keeps to: for as long as the venue said, and not longer."""
    one, other = budget_at(place), budget_at(place)
    await other.admit(Demand(1.0, Urgency.USUAL), patience_s=1)
    one.heard(429, {"Retry-After": "1"})
    await asyncio.gather(*one._notes)
    with pytest.raises(RateLimitedError) as told:
        await other.admit(Demand(1.0, Urgency.URGENT), patience_s=1)
    with pytest.raises(RateLimitedError):
        await one.admit(Demand(1.0, Urgency.URGENT), patience_s=1)

    assert 0 < told.value.retry_after_seconds <= 1
    assert not one.has_capacity(Demand(1.0, Urgency.URGENT))
    assert not other.has_capacity(Demand(1.0, Urgency.URGENT))
    await asyncio.sleep(1.05)
    await other.admit(Demand(1.0, Urgency.URGENT), patience_s=0)
    assert one.has_capacity(Demand(1.0, Urgency.URGENT))
    await one.close()
    await other.close()


async def test_no_room_is_said_in_time(place):
    """Where there is no room within the patience, nothing is spent and the caller knows at once."""
    budget = budget_at(place, Limit(10, window_s=30, margin_s=0, usual=0.5))
    await budget.admit(Demand(5.0, Urgency.USUAL), patience_s=0)

    assert not budget.has_capacity(Demand(1.0, Urgency.USUAL))
    assert budget.has_capacity(Demand(1.0, Urgency.URGENT))
    with pytest.raises(RetryableError, match="No room"):
        await budget.admit(Demand(1.0, Urgency.USUAL), patience_s=5)
    await budget.admit(Demand(5.0, Urgency.URGENT), patience_s=0)
    with pytest.raises(RetryableError, match="No room"):
        await budget.admit(Demand(1.0, Urgency.URGENT), patience_s=0)
    await budget.close()


async def test_room_is_made_for_what_is_inside_and_for_each_call(place):
    """As a block and as a decorator: spent before each, waited for, and nothing inside is done where there is none."""
    budget = budget_at(place, Limit(2, window_s=WINDOW_S, margin_s=0))
    done: list[float] = []

    @room(budget, Demand(1.0))
    async def request() -> float:
        done.append(monotonic())
        return done[-1]

    async with room(budget, Demand(1.0), patience_s=0):
        done.append(monotonic())
    assert await request() == done[-1]
    with pytest.raises(RetryableError, match="No room"):
        async with room(budget, Demand(1.0), patience_s=0):
            done.append(monotonic())
    await request()

    assert len(done) == 3
    assert done[2] - done[0] >= WINDOW_S * 0.95
    await budget.close()


@pytest.mark.parametrize("kept", [0, 1, 100, 1023])
@pytest.mark.parametrize("torn", ["venue.json", "venue.copy"])
async def test_a_write_that_was_broken_off_forgets_nothing(tmp_path, torn, kept):
    """Whichever of both copies a killed writer left half written, what was spent is still known from the other."""
    path = tmp_path / "venue.json"
    limit = Limit(100, window_s=60)
    await RateBudget(path, limit).admit(Demand(90.0, Urgency.USUAL, 1, "a"), patience_s=0)
    whole = (tmp_path / torn).read_bytes()
    # Half of the new text lies over what was there.
    (tmp_path / torn).write_bytes(whole[: min(kept, len(whole.rstrip()) - 1)] + b"[1.0, 2.0], [3.0, 4.0]" + b" " * 500)
    with pytest.raises(RetryableError, match="No room"):
        await RateBudget(path, limit).admit(Demand(20.0, Urgency.USUAL), patience_s=0)
    await RateBudget(path, limit).admit(Demand(10.0, Urgency.USUAL), patience_s=0)

    assert sum(cost for _, cost in json.loads(path.read_bytes())["spent"]) == 100


async def test_a_changed_number_is_noticed(tmp_path):
    """What reads well and does not fit its seal, as a mixture of two writes might, is not believed."""
    path = tmp_path / "venue.json"
    await RateBudget(path, Limit(100, window_s=60)).admit(Demand(90.0, Urgency.USUAL), patience_s=0)
    path.write_bytes(path.read_bytes().replace(b"90.0", b"10.0"))

    assert not RateBudget(path, Limit(100, window_s=60)).has_capacity(Demand(20.0, Urgency.URGENT))


async def test_a_stopped_holder_delays_no_exit_and_learns_afterwards(tmp_path):
    """A process that was stopped with the lock in its hands holds nobody up: what was spent is written once it goes."""
    path = tmp_path / "venue.json"
    budget = RateBudget(path, Limit(10, window_s=60, usual=0.8))
    await budget.admit(Demand(1.0, Urgency.USUAL), patience_s=1)
    holder = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
        [sys.executable, "-c", HOLDER, str(path.with_suffix(".lock"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
    holder.send_signal(signal.SIGSTOP)
    try:
        for urgency in (Urgency.URGENT, Urgency.USUAL, Urgency.URGENT):
            await budget.admit(Demand(2.0, urgency), patience_s=1)
        with pytest.raises(RetryableError):
            # By memory too, the limit is kept.
            await budget.admit(Demand(5.0, Urgency.USUAL), patience_s=0)
    finally:
        holder.send_signal(signal.SIGCONT)
        await asyncio.to_thread(holder.communicate, "go")
    await budget.close()

    assert sum(cost for _, cost in json.loads(path.read_bytes())["spent"]) == 7


HOLDER = """
import fcntl, sys
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


@pytest.mark.needs_redis
async def test_a_redis_that_went_away_stops_no_exit(tmp_path):
    """Without Redis each process keeps to what it knows, and says what it could not write."""
    lost: list[str] = []
    with running_redis(tmp_path) as url:
        budget = budget_at(url, Limit(10, window_s=60, usual=0.8))
        await budget.admit(Demand(1.0, Urgency.USUAL), patience_s=1)
    for _ in range(3):
        await budget.admit(Demand(3.0, Urgency.URGENT), patience_s=0, on_lost=lost.append)
    with pytest.raises(RetryableError):
        await budget.admit(Demand(1.0, Urgency.URGENT), patience_s=0, on_lost=lost.append)
    await budget.close()

    assert lost
    assert "redis" not in lost[0].split(",")[0] or "unix" not in lost[0]


async def test_the_environment_says_where_budgets_are_kept(tmp_path, monkeypatch):
    """Homes that name one folder share one file; what is neither a folder nor Redis is refused in words."""
    exchange = create_exchange("binanceusdm", pro=False, api_key="secret-key", api_secret="s")
    try:
        monkeypatch.setenv("QT_BUDGETS", str(tmp_path / "shared"))
        for home in ("one", "other"):
            await budget_of(tmp_path / home, "binanceusdm", exchange).admit(Demand(1, Urgency.USUAL), patience_s=0)
        files = [path.name for path in (tmp_path / "shared").glob("*.json")]
        monkeypatch.setenv("QT_BUDGETS", "redis://host:port-that-is-none/0")
        with pytest.raises(BadInputError, match="QT_BUDGETS"):
            budget_of(tmp_path, "binanceusdm", exchange)
        account = account_of(exchange)
    finally:
        await exchange.close()

    assert files == ["binanceusdm@fapi.binance.com.json"]
    assert len(json.loads((tmp_path / "shared" / files[0]).read_bytes())["spent"]) == 2
    assert "secret-key" not in account
    assert len(account) == 16


async def test_hostile_headers_are_no_news(tmp_path):
    """Whatever stands in a header, the budget goes on; only plain numbers count."""
    budget = RateBudget(tmp_path / "venue.json", LIMITS["binanceusdm"])
    for value in ("", "-1", "1e9", "nan", "\u00b2", "\uff19", "x" * 10_000, "1,2"):
        budget.heard(200, {"X-MBX-USED-WEIGHT-1M": value, "X-MBX-ORDER-COUNT-10S": value}, account="a")
    await budget.admit(Demand(1.0, Urgency.USUAL, 1, "a"), patience_s=0)
    budget.heard(200, {"X-MBX-ORDER-COUNT-10S": "300", "x-mbx-order-count-1m": "300"}, account="a")
    await budget.admit(Demand(0.0, Urgency.URGENT, 1, "b"), patience_s=0)
    with pytest.raises(RetryableError):
        await budget.admit(Demand(0.0, Urgency.URGENT, 1, "a"), patience_s=0)
    for value in ("9" * 300, "\u00b2", "-5", "9" * 15):
        budget.heard(429, {"Retry-After": value})
    assert 3 * 86_400 - 60 < budget.paused_s <= 3 * 86_400
    for note in budget._notes:
        note.cancel()
    assert utc_now_ms() > 0
