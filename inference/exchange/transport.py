"""Between ccxt and the wire: a shared budget, room for what is urgent, and a circuit breaker for each endpoint."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from feature_store.errors import QuantumError
from feature_store.venue.budget import Demand, RateBudget, account_of, listen
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import (
    NotSentError,
    RateLimitedError,
    RetryableError,
    VenueDownError,
    failure_of,
    translate,
)
from feature_store.venue.reactions import Reaction, reaction_to
from feature_store.venue.requests import Endpoint, Kind, Urgency, kind_of
from inference.exchange.circuit import Circuit, CircuitRules, CircuitState
from inference.telemetry.logs import logger

_log = logger("transport")

# An endpoint that ends like this is not well; one that refuses, or knows no order, answers.
_UNWELL = frozenset({Reaction.DOWN, Reaction.RETRY})
_MOST_ENDPOINTS = 256
_ORDERS_OF_AN_ENTRY = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportSettings:
    """How many requests of each type are under way at once, how long they wait for room, and the breakers' rules."""

    at_once: Mapping[Endpoint, int] = field(
        default_factory=lambda: {Endpoint.MARKET: 8, Endpoint.ACCOUNT: 16, Endpoint.ORDER: 32, Endpoint.CANCEL: 32}
    )
    urgent_at_once: int = 64
    # An entry that finds no room soon is better decided anew; what protects waits longer, as little stands before it.
    patience_s: Mapping[Urgency, float] = field(
        default_factory=lambda: {Urgency.BULK: 60.0, Urgency.USUAL: 3.0, Urgency.URGENT: 10.0}
    )
    circuit: CircuitRules = field(default_factory=CircuitRules)


class Transport:
    """
    Every request of one client passes here before it is signed, so that its timestamp is as late as can be.

    Exits pass an open circuit, since a position without its stop is worse than a request in vain; nothing passes
    while the venue wants to hear nothing, as asking would lengthen a ban.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        budget: RateBudget | None,
        monotonic: Callable[[], float],
        on_event: Callable[[str, Mapping[str, str]], None] = lambda *_: None,
        settings: TransportSettings | None = None,
    ) -> None:
        self._exchange = exchange
        self._budget = budget
        self._monotonic = monotonic
        self._on_event = on_event
        self._settings = settings or TransportSettings()
        self._slots = {kind: asyncio.Semaphore(most) for kind, most in self._settings.at_once.items()}
        # What is urgent does not queue behind what hangs.
        self._urgent = asyncio.Semaphore(self._settings.urgent_at_once)
        self._circuits: dict[str, Circuit] = {}
        self._account = account_of(exchange)
        self._said_paused_until = float("-inf")
        self.kept_back = 0
        self._send = exchange.fetch2

    def attach(self) -> None:
        """Take the place of the client's own limiter."""
        self._exchange.enableRateLimit = False
        self._exchange.fetch2 = self._fetch
        if self._budget is not None:
            listen(self._exchange, self._budget)

    def figures(self) -> Mapping[str, float]:
        """Return what the status shows."""
        paused = self._budget.paused_s if self._budget is not None else 0.0
        unwell = sum(one.state is not CircuitState.CLOSED for one in self._circuits.values())
        return {"circuits_open": unwell, "kept_back": self.kept_back, "paused_s": round(paused, 1)}

    def has_capacity(self, *, orders: int = 1) -> bool:
        """Tell at once whether entries can be sent now: the venue listens, its limits have room, its door is open."""
        return not self.no_capacity(orders=orders)

    def no_capacity(self, *, orders: int = 1) -> str:
        """Return why so many orders could not be sent now, without spending anything; empty where they could."""
        now = self._monotonic()
        for key, one in self._circuits.items():
            method, path = key.split(" ", 1)
            # A stop that could not be placed is as good a reason not to enter as an entry that could not.
            is_door = method == "POST" and kind_of(path, "private", method, {}).endpoint is Endpoint.ORDER
            if is_door and one.wait_s(now) > 0:
                return f"{key} failed {one.failures} times in a row and is tried again in {one.wait_s(now):.1f} s"
        if self._budget is None:
            return ""
        if self._budget.paused_s > 0:
            return f"the venue wants to hear nothing for {self._budget.paused_s:.1f} s"
        cost = self._budget.limit.order_cost or 0.0
        if self._budget.has_capacity(Demand(cost * orders, Urgency.USUAL, orders, self._account)):
            return ""
        return f"the rate budget has no room for {orders} orders beside what is kept for stops and exits"

    def no_room_for_entry(self) -> str:
        """Return why an entry should not be begun now; empty where it, its stop and its target could be sent."""
        return self.no_capacity(orders=_ORDERS_OF_AN_ENTRY)

    def circuit(self, method: str, path: str) -> Circuit:
        """Return the state of one endpoint."""
        return self._circuits.get(f"{method} {path}", Circuit())

    async def close(self) -> None:
        """Let go of what the budget holds."""
        if self._budget is not None:
            await self._budget.close()

    async def _fetch(
        self,
        path: str,
        api: Any = "public",
        method: str = "GET",
        params: Any = None,
        config: Any = None,
    ) -> Any:
        params, config = params or {}, config or {}
        kind = kind_of(path, api, method, params)
        key = f"{method} {path}"
        is_try = self._pass_circuit(key, kind)
        try:
            async with self._slot(kind):
                await self._pass_budget(kind, path, api, method, params, config)
                return await self._watched(key, self._send(path, api, method, params, config))
        finally:
            # An end that says nothing of the endpoint, cancelled or kept back, leaves the try to another request.
            if is_try and key in self._circuits:
                self._circuits[key] = self._circuits[key].given_up(self._monotonic())

    def _slot(self, kind: Kind) -> asyncio.Semaphore:
        return self._urgent if kind.urgency is Urgency.URGENT else self._slots[kind.endpoint]

    def _pass_circuit(self, key: str, kind: Kind) -> bool:
        """Let a request pass or keep it back; return whether it is the one that tries an open circuit."""
        circuit = self._circuits.get(key)
        if circuit is None:
            return False
        now = self._monotonic()
        wait = circuit.wait_s(now)
        if wait > 0 and kind.urgency is not Urgency.URGENT:
            self.kept_back += 1
            raise NotSentError(
                VenueDownError(
                    f"{key} failed {circuit.failures} times in a row and is tried again in {wait:.1f} s; "
                    "nothing was sent",
                    retry_after_seconds=wait,
                )
            )
        passing = self._circuits[key] = circuit.passing(now, self._settings.circuit)
        return passing is not circuit

    async def _pass_budget(self, kind: Kind, path: str, api: Any, method: str, params: Any, config: Any) -> None:
        if self._budget is None:
            return
        cost = self._exchange.calculate_rate_limiter_cost(api, method, path, params, config)
        if kind.endpoint is Endpoint.ORDER and self._budget.limit.order_cost is not None:
            cost = self._budget.limit.order_cost * kind.orders
        demand = Demand(float(cost or 0), kind.urgency, kind.orders, self._account)
        try:
            await self._budget.admit(demand, patience_s=self._settings.patience_s[kind.urgency], on_lost=self._lost)
        except RetryableError as error:
            self.kept_back += 1
            self._say_paused()
            raise NotSentError(error) from error

    async def _watched(self, key: str, request: Awaitable[Any]) -> Any:
        try:
            answer = await request
        except QuantumError:
            # A refusal of ours on the way: it tells nothing of the venue.
            raise
        except ccxt.BaseError as error:
            reaction = reaction_to(failure_of(error, exchange=self._exchange))
            if reaction is Reaction.RATE_LIMIT:
                self._limited(error)
            elif reaction in _UNWELL:
                self._failed(key, error)
            else:
                self._succeeded(key)
            raise
        self._succeeded(key)
        return answer

    def _failed(self, key: str, error: Exception) -> None:
        before = self._circuits.get(key, Circuit())
        if key not in self._circuits and len(self._circuits) >= _MOST_ENDPOINTS:
            return
        after = before.failed(self._monotonic(), self._settings.circuit, jitter=random.uniform(0.8, 1.2))
        self._circuits[key] = after
        if after.state is CircuitState.OPEN and before.state is not CircuitState.OPEN:
            pause = after.wait_s(self._monotonic())
            _log.warning("circuit_opened", endpoint=key, failures=after.failures, pause_s=round(pause, 1))
            if before.state is CircuitState.CLOSED:
                self._on_event(
                    "health.circuit_opened",
                    {"endpoint": key, "failures": str(after.failures), "error": str(error)[:200]},
                )

    def _succeeded(self, key: str) -> None:
        before = self._circuits.pop(key, None)
        if before is not None and before.state is not CircuitState.CLOSED:
            _log.info("circuit_closed", endpoint=key, openings=before.openings)
            self._on_event("health.circuit_closed", {"endpoint": key, "openings": str(before.openings)})

    def _limited(self, error: Exception) -> None:
        if self._budget is not None:
            # The headers were heard already; words like "banned until" were not.
            found = translate(error, exchange=self._exchange)
            wait = found.retry_after_seconds if isinstance(found, RateLimitedError) else 0.0
            if wait > self._budget.paused_s + 0.5:
                self._budget.pause(wait)
        self._say_paused()

    def _say_paused(self) -> None:
        paused = self._budget.paused_s if self._budget is not None else 0.0
        now = self._monotonic()
        if paused > 0 and now + paused > self._said_paused_until + 1.0:
            self._said_paused_until = now + paused
            self._on_event("health.rate_paused", {"seconds": f"{paused:.1f}"})

    def _lost(self, why: str) -> None:
        _log.warning("requests_not_noted", reason=why)


def govern(
    exchange: Any,
    *,
    budget: RateBudget | None,
    monotonic: Callable[[], float],
    on_event: Callable[[str, Mapping[str, str]], None] = lambda *_: None,
    settings: TransportSettings | None = None,
) -> Transport:
    """Put a transport into a client that trades, in the place of the client's own limiter."""
    transport = Transport(exchange, budget=budget, monotonic=monotonic, on_event=on_event, settings=settings)
    transport.attach()
    return transport
