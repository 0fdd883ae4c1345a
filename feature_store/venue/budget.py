"""One budget of request weight for all processes that ask the same venue from one address, or trade one account."""

from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar
from urllib.parse import quote, urlsplit

from feature_store import clock
from feature_store.venue.answers import banned_for_s, plain_number
from feature_store.venue.budget_place import BudgetPlace, machine_folder
from feature_store.venue.errors import RateLimitedError, RetryableError
from feature_store.venue.requests import Urgency
from feature_store.venue.shared_file import Change, SharedBusyError, SharedFile
from feature_store.venue.shared_redis import SharedRedis
from feature_store.venue.spending import Demand, Limit, Spending, decode, encode, read

__all__ = ["LIMITS", "Demand", "Limit", "RateBudget", "account_of", "budget_of", "host_of", "share", "tell"]

_LOOKS_AGAIN_S = 0.005
_NOTES_AFTER_S = 0.05  # By then a request is on its way, and others may be noted with it.
_SLEEPS_AT_MOST_S = 1.0
_FRESH_S = 2.0
_TOO_MANY, _BANNED = 429, 418
_WAIT_WITHOUT_HEADER_S = {_TOO_MANY: 5.0, _BANNED: 120.0}
_WORDS_READ = 2_000
_LONGEST_BAN_S = 3 * 86_400.0
# Whoever holds what is shared lets go within a millisecond, unless it was stopped or Redis is gone: then a worker goes
# by what it saw last, for a moment without asking again, and tells the others afterwards.
_LOCK_PATIENCE_S = {Urgency.BULK: 5.0, Urgency.USUAL: 0.5, Urgency.URGENT: 0.25}
_STUCK_S = 1.0
_SEEN_IS_FRESH_S = 0.2

_BINANCE_HEADER = "x-mbx-used-weight-1m"
_ORDER_HEADERS = {10.0: "x-mbx-order-count-10s", 60.0: "x-mbx-order-count-1m"}
# Four fifths for flows, nine tenths with what a worker reads and enters: the rest is for what protects positions.
LIMITS: dict[str, Limit] = {
    # An order costs an address nothing, and counts to its account.
    "binanceusdm": Limit(
        2400, used_header=_BINANCE_HEADER, bulk=0.8, usual=0.9, orders=((300, 10.0), (1200, 60.0)), order_cost=0.0
    ),
    # ccxt counts a spot weight as a fifth: 6000 a minute.
    "binance": Limit(
        1200,
        used_header=_BINANCE_HEADER,
        cost_per_weight=0.2,
        bulk=0.8,
        usual=0.9,
        orders=((100, 10.0),),
        order_cost=0.2,
    ),
    # 250 ms a unit; candles cost 2.7, which is about 90 requests a minute.
    "bitfinex": Limit(240, bulk=0.8, usual=0.9),
    # The exchange of our own allows what it is asked; that it wants quiet all of a machine hear all the same.
    "sandbox": Limit(1e9, used_header=_BINANCE_HEADER, order_cost=0.0),
    "sandbox-spot": Limit(1e9, used_header=_BINANCE_HEADER, cost_per_weight=0.2, order_cost=0.2),
    "sandbox-bitfinex": Limit(1e9),
}

_T = TypeVar("_T")


class Shared(Protocol):
    """A few bytes that several processes change, each as though alone."""

    async def update(self, change: Change[_T], *, patience_s: float = ...) -> _T:
        """Change them; SharedBusyError where they could not be had in time."""
        ...

    async def jot(self, change: Change[_T]) -> bool:
        """Change them without holding the caller up; False where another has them."""
        ...

    def peek(self) -> tuple[bytes | None, float, int]:
        """Return them as they are, or were, with the shared clock."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class RateBudget:
    """
    A sliding window that is shared: nobody sends what would exceed the limit, and all wait out a venue's refusal.

    What a dead process had spent stays spent until it is old; a lock it had held is free.
    """

    def __init__(self, shared: Path | Shared, limit: Limit) -> None:
        self._shared: Shared = (
            SharedFile(shared, is_whole=lambda text: read(text) is not None) if isinstance(shared, Path) else shared
        )
        self._limit = limit
        self._reported: tuple[float, float] | None = None
        self._orders_reported: dict[str, tuple[float, Mapping[float, float]]] = {}
        self._notes: set[asyncio.Task[None]] = set()
        self._unnoted: list[tuple[float, Demand]] = []
        self._noting: asyncio.Task[None] | None = None
        self._seen = Spending()
        self._seen_at = float("-inf")
        self._paused_until = 0.0
        self._stuck_until = 0.0

    @property
    def limit(self) -> Limit:
        """What the venue allows."""
        return self._limit

    @property
    def paused_s(self) -> float:
        """How long the venue wants to hear nothing, as far as was seen."""
        return max(0.0, self._paused_until - clock.monotonic())

    async def spend(self, cost: float) -> None:
        """Wait until so much may be spent, and spend it."""
        demand = Demand(cost)
        while True:
            try:
                paused_s, wait_s = await self._shared.update(self._try(demand))
            except SharedBusyError:
                paused_s, wait_s = self._by_memory(demand, lambda _: None)
            wait_s = max(paused_s, wait_s)
            if wait_s <= 0:
                return
            await asyncio.sleep(min(wait_s, _SLEEPS_AT_MOST_S) * random.uniform(1.0, 1.1))

    async def admit(
        self, demand: Demand, *, patience_s: float, on_lost: Callable[[str], None] = lambda _: None
    ) -> None:
        """
        Spend what a request needs, waiting at most so long for room.

        Where what is shared cannot be had in a moment, it goes by what was seen last and tells the others afterwards.

        Raises:
            RateLimitedError: The venue wants to hear nothing; all processes keep to that.
            RetryableError: There is no room in the time that was given; nothing was spent.
        """
        deadline = clock.monotonic() + patience_s
        while True:
            if self.paused_s > 0:
                raise _paused(self.paused_s)
            if clock.monotonic() < self._stuck_until:
                paused_s, wait_s = self._by_memory(demand, on_lost)
            else:
                paused_s, wait_s = await self._asked(demand, on_lost)
            if paused_s > 0:
                raise _paused(paused_s)
            if wait_s <= 0:
                return
            left = deadline - clock.monotonic()
            if wait_s > left:
                raise RetryableError(f"No room among the venue's limits for {wait_s:.1f} s; nothing was sent")
            await asyncio.sleep(min(wait_s, _SLEEPS_AT_MOST_S) * random.uniform(1.0, 1.1))

    async def _asked(self, demand: Demand, on_lost: Callable[[str], None]) -> tuple[float, float]:
        try:
            return await self._shared.update(self._try(demand), patience_s=_LOCK_PATIENCE_S[demand.urgency])
        except OSError:
            self._stuck_until = clock.monotonic() + _STUCK_S
            return self._by_memory(demand, on_lost)

    def has_capacity(self, demand: Demand) -> bool:
        """Tell at once, and without spending, whether there is room for a demand."""
        if self.paused_s > 0:
            return False
        text, now, now_ms = self._shared.peek()
        if clock.monotonic() - self._seen_at > _SEEN_IS_FRESH_S:
            self._see(decode(text))
        self._seen.trim(self._limit, now)
        return self._seen.paused_s(now_ms) <= 0 and self._seen.wait_s(demand, self._limit, now) <= 0

    def note(self, cost: float, on_lost: Callable[[str], None] = lambda _: None) -> None:
        """
        Tell all others, soon, that so much is being spent, without waiting for anything.

        Whoever holds what is shared is waited for in the background, beside the event loop. `on_lost` is told why a
        note could not be written; then nobody knows of what was spent but the venue.
        """
        self._note(Demand(cost), on_lost)

    def heard(
        self, status: int, headers: Mapping[str, str], body: str = "", *, is_ours: bool = True, account: str = ""
    ) -> None:
        """Take note of an answer: what the venue has counted of us, or that it wants no more requests for a while."""
        lower = {name.lower(): str(value) for name, value in headers.items()}
        if status in _WAIT_WITHOUT_HEADER_S:
            told = plain_number(lower.get("retry-after"))
            if told is None:
                told = banned_for_s(body[:_WORDS_READ], clock.utc_now_ms())
            self.pause(_WAIT_WITHOUT_HEADER_S[status] if told is None else told)
        if not is_ours:
            return
        used = plain_number(lower.get(self._limit.used_header or ""))
        if used is not None:
            self._reported = (clock.monotonic(), used * self._limit.cost_per_weight)
        counts = {
            seconds: count
            for _, seconds in self._limit.orders
            if (count := plain_number(lower.get(_ORDER_HEADERS.get(seconds, "")))) is not None
        }
        if counts:
            self._orders_reported[account] = (clock.monotonic(), counts)

    def pause(self, seconds: float) -> None:
        """Let no process send anything for a while; this one from now on, the others once it is written down."""
        seconds = min(seconds, _LONGEST_BAN_S)
        self._paused_until = max(self._paused_until, clock.monotonic() + seconds)
        note = asyncio.get_running_loop().create_task(self._write_pause(seconds))
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def close(self) -> None:
        """Write down what is still to be noted, and let go of connections."""
        await asyncio.gather(*self._notes, *([self._noting] if self._noting else []), return_exceptions=True)
        await self._shared.close()

    async def _write_pause(self, seconds: float) -> None:
        began = clock.monotonic()

        def pause(text: bytes | None, _: float, now_ms: int) -> tuple[bytes, None]:
            spending = decode(text)
            left = seconds - (clock.monotonic() - began)
            spending.resume_at_ms = max(spending.resume_at_ms, now_ms + int(left * 1000))
            return encode(spending), None

        while clock.monotonic() - began < seconds:
            try:
                await self._shared.update(pause)
            except OSError:
                await asyncio.sleep(min(_SLEEPS_AT_MOST_S, seconds))
            else:
                return

    def _try(self, demand: Demand) -> Change[tuple[float, float]]:
        """Spend where there is room; return how long the venue wants quiet and how long until there is room."""

        def change(text: bytes | None, now: float, now_ms: int) -> tuple[bytes, tuple[float, float]]:
            spending = decode(text)
            spending.trim(self._limit, now)
            self._take_reports(spending, now)
            paused_s = spending.paused_s(now_ms)
            wait_s = spending.wait_s(demand, self._limit, now)
            if paused_s <= 0 and wait_s <= 0:
                spending.spend(demand, self._limit, now)
            self._see(spending)
            if paused_s > 0:
                self._paused_until = max(self._paused_until, clock.monotonic() + paused_s)
            return encode(spending), (paused_s, wait_s)

        return change

    def _by_memory(self, demand: Demand, on_lost: Callable[[str], None]) -> tuple[float, float]:
        _, now, now_ms = self._shared.peek()
        self._seen.trim(self._limit, now)
        self._take_reports(self._seen, now)
        paused_s, wait_s = self._seen.paused_s(now_ms), self._seen.wait_s(demand, self._limit, now)
        if paused_s <= 0 and wait_s <= 0:
            self._seen.spend(demand, self._limit, now)
            self._note(demand, on_lost)
        return paused_s, wait_s

    def _take_reports(self, spending: Spending, now: float) -> None:
        if self._reported is not None:
            at, used = self._reported
            if clock.monotonic() - at < _FRESH_S:
                # Others use this address too: another machine behind it, or a worker of another home.
                spending.believe(used, now)
            self._reported = None
        for account, (at, counts) in self._orders_reported.items():
            if clock.monotonic() - at < _FRESH_S:
                spending.believe_orders(account, counts, self._limit, now)
        self._orders_reported.clear()

    def _see(self, spending: Spending) -> None:
        self._seen, self._seen_at = spending, clock.monotonic()

    def _note(self, demand: Demand, on_lost: Callable[[str], None]) -> None:
        self._unnoted.append((clock.monotonic(), demand))
        if self._noting is None or self._noting.done():
            self._noting = asyncio.get_running_loop().create_task(self._write_notes(on_lost))

    async def _write_notes(self, on_lost: Callable[[str], None]) -> None:
        await asyncio.sleep(_NOTES_AFTER_S)
        while self._unnoted:
            notes, self._unnoted = self._unnoted, []
            try:
                written = await self._shared.jot(self._noted(notes))
            except OSError as error:
                on_lost(f"{self._shared} cannot be written: {error.strerror or error}")
                return
            if not written:
                oldest = clock.monotonic() - self._limit.window_s - self._limit.margin_s
                self._unnoted = [one for one in (*notes, *self._unnoted) if one[0] > oldest]
                await asyncio.sleep(_LOOKS_AGAIN_S)

    def _noted(self, notes: list[tuple[float, Demand]]) -> Change[None]:
        def change(text: bytes | None, now: float, _: int) -> tuple[bytes, None]:
            spending, here = decode(text), clock.monotonic()
            for at, demand in notes:
                spending.spend(demand, self._limit, now - (here - at))
            spending.trim(self._limit, now)
            return encode(spending), None

        return change


def _paused(seconds: float) -> RateLimitedError:
    return RateLimitedError(f"The venue asked us to wait {seconds:.1f} s more", retry_after_seconds=seconds)


def budget_of(home: Path, venue: str, exchange: Any) -> RateBudget | None:
    """
    Return the budget that is shared for a venue; None of a venue that nothing is known of.

    It is kept where QT_BUDGETS says, a folder or a Redis of several machines; else with the user of this machine, since
    a venue counts by address, and a sandbox's in the home, since each has its own.

    Raises:
        BadInputError: QT_BUDGETS names neither.
    """
    limit = LIMITS.get(venue)
    if limit is None:
        return None
    name = f"{quote(venue, safe='')}@{quote(host_of(exchange), safe='')}"
    place = BudgetPlace.of()
    if place.redis is not None:
        return RateBudget(SharedRedis(place.redis, f"quantum-trader:budget:{name}"), limit)
    shared = None if venue.startswith("sandbox") else machine_folder()
    return RateBudget((place.folder or shared or home / "budgets") / f"{name}.json", limit)


def host_of(exchange: Any) -> str:
    """Return the host that a client asks for candles."""
    api = exchange.urls["api"]
    return urlsplit(str(api.get("fapiPublic") if exchange.id == "binanceusdm" else api.get("public"))).netloc


def account_of(exchange: Any) -> str:
    """Return a name for the account of a client's key, of which the key cannot be read; empty without a key."""
    key = str(getattr(exchange, "apiKey", None) or "")
    return hashlib.sha256(key.encode()).hexdigest()[:16] if key else ""


def share(exchange: Any, budget: RateBudget) -> None:
    """Let a client spend from a shared budget: ccxt asks its throttle before each request, and tells of each answer."""

    async def throttle(cost: float | None = None) -> None:
        await budget.spend(1.0 if cost is None else float(cost))

    exchange.enableRateLimit = True
    exchange.throttle = throttle
    listen(exchange, budget)


def tell(exchange: Any, budget: RateBudget, on_lost: Callable[[str], None]) -> None:
    """
    Let a client that must not wait note what it spends, so that those who share a budget leave room.

    Its own throttle stays as it is. What the venue refuses it keeps the others quiet as well.
    """
    throttle = exchange.throttle

    async def throttle_and_note(cost: float | None = None) -> None:
        await throttle(cost)
        budget.note(1.0 if cost is None else float(cost), on_lost)

    exchange.throttle = throttle_and_note
    listen(exchange, budget)


def listen(exchange: Any, budget: RateBudget) -> None:
    """Let a budget hear what the venue says in the headers of each answer."""
    on_response = exchange.on_rest_response
    host, account = host_of(exchange), account_of(exchange)

    def on_rest_response(code: int, reason: str, url: str, method: str, headers: Any, body: Any, *rest: Any) -> Any:
        budget.heard(code, headers or {}, str(body or ""), is_ours=urlsplit(url).netloc == host, account=account)
        return on_response(code, reason, url, method, headers, body, *rest)

    exchange.on_rest_response = on_rest_response
