"""The shared budget of request weight: several real processes against the real sandbox exchange."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlencode

import ccxt
import pytest
from aiohttp.test_utils import make_mocked_request
from hypothesis import given, settings
from hypothesis import strategies as st

from feature_store.clock import monotonic, utc_now_ms
from feature_store.venue.budget import LIMITS, Limit, RateBudget, budget_of, share, tell
from feature_store.venue.factory import VENUES, create_exchange
from inference.exchange.transport import govern
from infra.prove.own_venue import own_venue
from infra.prove.recording_proxy import RecordingProxy
from infra.sandbox.admitting import weight_of
from infra.sandbox.routes import ROUTES
from tests.feature_support import REPOSITORY
from tests.sandbox_support import running_sandbox

WINDOW_S = 0.8
CANDLES_COST = 5
CLIENT = """
import asyncio, sys
from pathlib import Path
from feature_store.venue.budget import Limit, RateBudget, share
from feature_store.venue.factory import create_exchange
from feature_store.venue.retry import retrying

async def main(url, path, limit, window, requests):
    exchange = create_exchange("sandbox", url=url, pro=False)
    share(exchange, RateBudget(Path(path), Limit(float(limit), window_s=float(window), margin_s=0.4)))
    try:
        await retrying(lambda: exchange.load_markets(), exchange=exchange)
        for _ in range(int(requests)):
            page = lambda: exchange.fetch_ohlcv("BTC/USDT:USDT", "5m", since=1767000000000, limit=1000)
            await retrying(page, exchange=exchange)
        print("done", flush=True)
    finally:
        await exchange.close()

asyncio.run(main(*sys.argv[1:]))
"""


def client(url: str, path: Path, limit: float, requests: int) -> subprocess.Popen[str]:
    """A process that asks for pages of candles as fast as the budget allows."""
    arguments = [url, str(path), str(limit), str(WINDOW_S), str(requests)]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    return subprocess.Popen(
        [sys.executable, "-c", CLIENT, *arguments], env=environment, stdout=subprocess.PIPE, text=True
    )


async def seen(times: list[float], count: int) -> None:
    """Wait until so many requests have come."""
    async with asyncio.timeout(60):
        while len(times) < count:  # noqa: ASYNC110 - they are counted in another thread
            await asyncio.sleep(0.01)


def busiest(times: list[float]) -> int:
    """The most requests within any window."""
    return max(sum(begin <= at < begin + WINDOW_S for at in times) for begin in times)


async def test_no_more_than_the_limit_whoever_asks(tmp_path):
    """Four processes, one of them killed on the way: never more in a window than the limit, and nobody is held up."""
    times: list[float] = []
    async with running_sandbox(symbols=1, seed=3, speed=1) as sandbox:
        with RecordingProxy(sandbox.url) as proxy:
            proxy.on_page = lambda when: times.append(monotonic()) if when == "asked" else None
            path = tmp_path / "venue.json"
            # The first asks until it is killed, and has asked before the others come.
            clients = [client(proxy.url, path, 40, 200)]
            await seen(times, 1)
            clients += [client(proxy.url, path, 40, 5) for _ in range(3)]
            await seen(times, 12)
            clients[0].send_signal(signal.SIGKILL)
            told = [await asyncio.to_thread(one.communicate, timeout=60) for one in clients]
    assert [out.strip() for out, _ in told[1:]] == ["done"] * 3
    assert len(times) >= 16
    assert busiest(times) * CANDLES_COST <= 40


async def test_all_processes_wait_out_a_refusal(tmp_path):
    """A 429 that one process meets keeps the others quiet too, for as long as the venue said."""
    times: list[float] = []
    async with running_sandbox(symbols=1, seed=3, speed=1) as sandbox:
        with RecordingProxy(sandbox.url) as proxy:
            path = tmp_path / "venue.json"
            proxy.on_page = lambda when: times.append(monotonic()) if when == "asked" else None
            clients = [client(proxy.url, path, 3_000, 40) for _ in range(2)]
            await seen(times, 4)
            await sandbox.ctl(op="fault", path="/fapi/v1/klines", status=429, headers={"Retry-After": "2"})
            for one in clients:
                await asyncio.to_thread(one.communicate, timeout=60)
    gaps = [after - before for before, after in pairwise(times)]
    # One request of the other process may have been under way when the refusal came.
    assert sum(gap > 1.5 for gap in gaps) == 1
    assert len(times) == 81


def test_the_sandbox_weighs_candles_as_ccxt_does():
    """What a page of candles weighs at the sandbox is what ccxt's client of the live venue takes it for."""
    exchange = create_exchange("binanceusdm", pro=False)
    paths = exchange.describe()["api"]["fapiPublic"]["get"]
    for limit in (1, 99, 100, 499, 500, 1000, 1001, 1500):
        cost = exchange.calculate_rate_limiter_cost("fapiPublic", "GET", "klines", {"limit": limit}, paths["klines"])
        assert ROUTES["GET", "/fapi/v1/klines"].weighs(limit) == cost


@pytest.mark.parametrize(
    ("api", "path", "asked", "weight"),
    [
        ("fapiPublic", "depth", {"symbol": "BTCUSDT", "limit": 5}, 2),
        ("fapiPublic", "depth", {"symbol": "BTCUSDT", "limit": 100}, 5),
        ("fapiPublic", "depth", {"symbol": "BTCUSDT", "limit": 500}, 10),
        ("fapiPublic", "depth", {"symbol": "BTCUSDT", "limit": 1000}, 20),
        ("fapiPublic", "ticker/24hr", {"symbol": "BTCUSDT"}, 1),
        ("fapiPublic", "ticker/24hr", {}, 40),
        ("fapiPublic", "ticker/price", {}, 2),
        ("fapiPublic", "ticker/bookTicker", {"symbol": "BTCUSDT"}, 2),
        ("fapiPublic", "ticker/bookTicker", {}, 5),
        ("fapiPrivate", "openOrders", {"symbol": "BTCUSDT"}, 1),
        ("fapiPrivate", "openOrders", {}, 40),
        ("fapiPrivate", "openAlgoOrders", {}, 40),
        ("fapiPrivate", "forceOrders", {}, 50),
    ],
)
def test_what_is_asked_of_all_symbols_or_many_levels_weighs_more(api, path, asked, weight):
    """The sandbox weighs it as the live venue does, and as ccxt's client takes it for."""
    exchange = create_exchange("binanceusdm", pro=False)
    config = exchange.describe()["api"][api]["get"][path]
    cost = exchange.calculate_rate_limiter_cost(api, "GET", path, asked, config)
    request = make_mocked_request("GET", f"/fapi/v1/{path}?{urlencode(asked)}")

    assert weight_of(request) == cost == weight


async def test_what_the_venue_counts_counts(tmp_path):
    """Weight that others of the same address used, as the venue's header tells, is taken off the budget."""
    limit = Limit(100, window_s=0.6, margin_s=0.1, used_header="x-mbx-used-weight-1m")
    budget = RateBudget(tmp_path / "venue.json", limit)
    await budget.spend(1)
    budget.heard(200, {"X-MBX-USED-WEIGHT-1M": "99"})
    started = monotonic()
    await budget.spend(1)
    assert monotonic() - started < 0.5
    await budget.spend(1)
    assert monotonic() - started >= 0.5


async def test_a_foreign_host_s_count_is_not_ours(tmp_path):
    """Binance counts each of its hosts alone; another's count is no news of ours."""
    budget = RateBudget(tmp_path / "venue.json", Limit(10, window_s=30, used_header="x-mbx-used-weight-1m"))
    budget.heard(200, {"x-mbx-used-weight-1m": "9999"}, is_ours=False)
    started = monotonic()
    await budget.spend(1)
    assert monotonic() - started < 5


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"spent":[["a",1]],"resume_at_ms":0}', b'{"spent":1}'])
async def test_a_damaged_file_holds_nobody_up(tmp_path, content):
    """What cannot be read is replaced by the next who spends."""
    path = tmp_path / "venue.json"
    path.write_bytes(content)
    await RateBudget(path, Limit(10)).spend(4)
    assert json.loads(path.read_bytes())["spent"][0][1] == 4


async def test_spending_of_before_a_restart_is_forgotten(tmp_path):
    """The clock of a machine that was started anew begins again: what lies ahead of it is old."""
    path = tmp_path / "venue.json"
    path.write_text(json.dumps({"spent": [[monotonic() + 1e6, 10]], "resume_at_ms": utc_now_ms() - 1}))
    started = monotonic()
    await RateBudget(path, Limit(10, window_s=30)).spend(10)
    assert monotonic() - started < 5


async def test_more_than_the_limit_at_once_is_let_through_alone(tmp_path):
    """A request that costs more than a whole window waits for an empty one, and not for ever."""
    budget = RateBudget(tmp_path / "venue.json", Limit(10, window_s=0.3, margin_s=0.1))
    await budget.spend(1)
    started = monotonic()
    await budget.spend(1_000)
    assert 0.2 <= monotonic() - started < 5


@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(0.5, 12), min_size=1, max_size=12))
def test_the_file_never_holds_more_than_the_limit(tmp_path_factory, costs):
    """Whatever is spent, in whatever order, what is noted within one window stays within the limit."""
    path = tmp_path_factory.mktemp("budget") / "venue.json"
    limit = Limit(12, window_s=0.02, margin_s=0.0)
    noted: list[tuple[float, float]] = []

    async def spend_all() -> None:
        for cost in costs:
            await RateBudget(path, limit).spend(cost)
            noted.append(tuple(json.loads(path.read_bytes())["spent"][-1]))

    asyncio.run(spend_all())
    for at, _ in noted:
        assert sum(cost for when, cost in noted if at <= when < at + limit.window_s) <= limit.cost + 1e-9


async def test_every_venue_shares_one_file_per_host(tmp_path, monkeypatch):
    """Two homes of a user find the same budget of a real venue; a sandbox's is the home's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for name, venue in sorted(VENUES.items()):
        exchange = create_exchange(name, pro=False, url="http://127.0.0.1:9100" if venue.is_sandbox else None)
        budget = budget_of(tmp_path / f"home-of-{name}", name, exchange)
        assert budget is not None
        share(exchange, budget)
        await exchange.throttle(1)
        await exchange.close()
    names = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.json"))
    shared = "cache/quantum-trader/budgets"
    assert names == [
        f"{shared}/binance@api.binance.com.json",
        f"{shared}/binanceusdm@fapi.binance.com.json",
        f"{shared}/bitfinex@api-pub.bitfinex.com.json",
        "home-of-sandbox-bitfinex/budgets/sandbox-bitfinex@127.0.0.1%3A9100.json",
        "home-of-sandbox-spot/budgets/sandbox-spot@127.0.0.1%3A9100.json",
        "home-of-sandbox/budgets/sandbox@127.0.0.1%3A9100.json",
    ]
    assert set(LIMITS) == set(VENUES)


async def test_where_no_folder_can_be_shared_a_home_keeps_its_own_budget(tmp_path, monkeypatch):
    """A cache folder that cannot be made holds nobody up."""
    (tmp_path / "cache").write_text("a file where a folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    exchange = create_exchange("bitfinex", pro=False)
    budget = budget_of(tmp_path / "home", "bitfinex", exchange)
    assert budget is not None
    await budget.spend(1)
    await exchange.close()

    assert [path.name for path in (tmp_path / "home").rglob("*.json")] == ["bitfinex@api-pub.bitfinex.com.json"]


async def test_a_refusal_that_one_client_met_at_the_sandbox_quiets_the_others(tmp_path):
    """A worker's gateway is told to wait: a flow's client asks nothing meanwhile, and nobody is banned."""
    async with own_venue() as venue:
        trading = create_exchange("sandbox", url=venue.url, api_key="sandbox-key", api_secret="sandbox-secret")
        asking = create_exchange("sandbox", url=venue.url, pro=False)
        budgets = [budget_of(tmp_path, "sandbox", one) for one in (trading, asking)]
        transport = govern(trading, budget=budgets[0], monotonic=monotonic)
        share(asking, budgets[1])
        try:
            await asking.load_markets()
            await trading.load_markets()
            await venue.do(op="hold", secs=2, strikes=2)
            with pytest.raises(ccxt.BaseError):
                await trading.fetch_ticker("BTC/USDT:USDT")
            began = monotonic()
            assert "wants to hear nothing" in transport.no_room_for_entry()
            await asyncio.sleep(0.1)
            await asyncio.gather(*(asking.fetch_ohlcv("BTC/USDT:USDT", "5m") for _ in range(4)))

            assert monotonic() - began >= 1.0
            assert venue.sandbox.limiter.bans == 0
        finally:
            await transport.close()
            await budgets[1].close()
            await trading.close()
            await asking.close()


def _lose(why: str) -> None:
    raise AssertionError(why)


async def until(holds: Callable[[], bool]) -> None:
    """Wait until something holds."""
    async with asyncio.timeout(60):
        while not holds():  # noqa: ASYNC110 - a file is written beside the loop
            await asyncio.sleep(0.01)


def costs(path: Path) -> list[float]:
    """Return what each request in the file cost."""
    return [cost for _, cost in json.loads(path.read_bytes())["spent"]] if path.exists() else []


async def noted(path: Path, count: int) -> list[float]:
    """Wait until so many requests are in the file, and return what each cost."""
    await until(lambda: len(costs(path)) >= count)
    return costs(path)


async def test_an_ingest_leaves_room_for_what_a_worker_notes(tmp_path):
    """What is noted counts for those who spend: they wait until it is old."""
    path, limit = tmp_path / "venue.json", Limit(10, window_s=1.5, margin_s=0.1)
    worker = RateBudget(path, limit)
    started = monotonic()
    for cost in (2, 3, 3):
        worker.note(cost, _lose)

    assert await noted(path, 3) == [2, 3, 3]
    await RateBudget(path, limit).spend(4)
    assert monotonic() - started >= 1.5


async def test_what_a_worker_notes_may_exceed_the_limit_and_is_forgotten_in_time(tmp_path):
    """A worker is never held up by the limit, and its notes do not pile up where nobody else spends."""
    path = tmp_path / "venue.json"
    path.write_text(json.dumps({"spent": [[monotonic() - 100, 7.0]] * 50, "resume_at_ms": 0}))
    worker = RateBudget(path, Limit(10, window_s=60))
    for _ in range(30):
        worker.note(1, _lose)

    await until(lambda: set(costs(path)) == {1})
    assert len(costs(path)) == 30


async def test_a_lock_that_others_hold_delays_no_request(tmp_path):
    """While another process holds the file, requests go out and the loop runs on; the notes are written afterwards."""
    path = tmp_path / "venue.json"
    exchange = create_exchange("binanceusdm", pro=False)
    exchange.open()
    tell(exchange, RateBudget(path, Limit(1_000, window_s=60)), _lose)
    holder = subprocess.Popen(  # noqa: ASYNC220 - it begins at once
        [sys.executable, "-c", HOLDER, str(path.with_suffix(".lock"))],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert await asyncio.to_thread(holder.stdout.readline) == "held\n"
        async with asyncio.timeout(60):
            for _ in range(5):
                await exchange.throttle(1)
            for _ in range(20):
                await asyncio.sleep(0.01)
        assert not path.exists()
    finally:
        await asyncio.to_thread(holder.communicate, "go")
        await exchange.close()

    assert await noted(path, 5) == [1.0] * 5


HOLDER = """
import fcntl, sys
handle = open(sys.argv[1], "w")
fcntl.flock(handle, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


async def test_a_worker_s_requests_are_noted_at_what_they_weigh(tmp_path):
    """A client's own requests to the real sandbox are in the file, and a refusal keeps the flows of the home quiet."""
    path = tmp_path / "venue.json"
    budget = RateBudget(path, Limit(1_000, window_s=60))
    async with running_sandbox(symbols=1, seed=3, speed=1) as sandbox:
        exchange = create_exchange("sandbox", url=sandbox.url, pro=False)
        exchange.enableRateLimit = True
        tell(exchange, budget, _lose)
        try:
            await exchange.load_markets()
            budget.note(100, _lose)
            await until(lambda: 100 in costs(path))
            await exchange.fetch_ohlcv("BTC/USDT:USDT", "5m", 1_767_000_000_000, 1000)
            await until(lambda: costs(path)[-1] != 100)
            assert costs(path)[-1] == CANDLES_COST
            await sandbox.ctl(op="fault", path="/fapi/v1/klines", status=429, headers={"Retry-After": "30"})
            with pytest.raises(Exception, match="429"):
                await exchange.fetch_ohlcv("BTC/USDT:USDT", "5m", 1_767_000_000_000, 1000)
            await until(lambda: json.loads(path.read_bytes())["resume_at_ms"] > utc_now_ms() + 10_000)
        finally:
            await exchange.close()


async def test_notes_that_cannot_be_written_are_told(tmp_path):
    """A folder that is a file loses the note, with a reason, and nothing else."""
    (tmp_path / "budgets").write_text("")
    told: list[str] = []
    budget = RateBudget(tmp_path / "budgets" / "venue.json", Limit(10))
    budget.note(1, told.append)
    await until(lambda: bool(told))

    assert "cannot be written" in told[0]
