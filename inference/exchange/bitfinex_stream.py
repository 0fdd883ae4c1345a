"""The account's channel at Bitfinex: opened by a signature, asked whether it lives, never the only source of truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Any, Protocol

from feature_store.venue.ccxt_package import ccxt
from inference.domain.order import Fill, OrderReport
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.exchange.watching import close_clients, pause_seconds
from inference.telemetry.logs import logger

_log = logger("user_stream")

_DIAL_SECONDS = 10.0
_TICK_SECONDS = 0.5
# The venue's own heartbeat comes every fifteen seconds, too late for us; so it is asked after so much silence.
_QUIET_SECONDS = 2.0
_ANSWER_WITHIN_SECONDS = 3.0
# An order that the venue has accepted is on the stream within milliseconds.
_EXPECTED_WITHIN_SECONDS = 5.0
_SEEN_FILLS = 4096
_ORDERS, _FILL = frozenset({"on", "ou", "oc"}), "tu"
# What ccxt raises where a frame is not as it expects; it would never read from that connection again.
_UNFORESEEN = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, ccxt.BaseError)


class Reader(Protocol):
    """Who reads the venue's arrays, as the gateway does."""

    def report_of(self, row: object) -> OrderReport:
        """Return what the venue says of an order."""
        ...

    def fill_of(self, row: object) -> Fill:
        """Return an execution."""
        ...


class BitfinexStream:
    """
    Follows what happens to the account's orders; `on_gap` is called whenever something may have been missed.

    An execution is told twice, first without its fee; the second telling counts. Events are taken where ccxt receives
    them, because its own waiting loses those that come between two waits.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        reader: Reader,
        on_report: Callable[[OrderReport], None],
        on_fill: Callable[[Fill], None],
        on_gap: Callable[[str], None],
        monotonic: Callable[[], float],
        closed_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self._exchange = exchange
        self._reader = reader
        self._on_report = on_report
        self._on_fill = on_fill
        self._on_gap = on_gap
        self._monotonic = monotonic
        self._closed_seconds = closed_seconds
        self._heard = self._last_order_event = monotonic()
        self._asked: float | None = None
        self._expecting_since: float | None = None
        self._is_open = False
        self._failures = 0
        self._seen_fills: dict[str, None] = {}
        self._pass_on = exchange.handle_message
        # Clients are given this when they are made.
        exchange.handle_message = self._take
        self.reconnects = 0

    @property
    def is_connected(self) -> bool:
        """Whether the stream is open and the venue knows whose it is."""
        client = self._client()
        return self._is_open and client is not None and bool(client.isConnected)

    def expect_event(self, sent: float) -> None:
        """Say that the venue has accepted something that was sent at a time, so that silence means a dead stream."""
        if self._expecting_since is None and self._last_order_event < sent:
            self._expecting_since = self._monotonic()

    async def connected(self, *, within: float) -> bool:
        """Wait until the stream is open."""
        deadline = self._monotonic() + within
        while not self.is_connected and self._monotonic() < deadline:  # noqa: ASYNC110 - ccxt tells nobody that it connected
            await asyncio.sleep(0.01)
        return self.is_connected

    async def run(self) -> None:
        """Follow the account until cancelled."""
        try:
            while True:
                await self._reopen(await self._follow())
        finally:
            await self._drop()

    async def _follow(self) -> str:
        """Open the stream and stay with it; return why it ended."""
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                await self._exchange.authenticate()
        except TimeoutError:
            return "it did not open"
        except (ccxt.BaseError, OSError) as error:
            return f"{type(error).__name__}: {error}"[:200]
        return await self._stay()

    async def _stay(self) -> str:
        self._heard, self._asked, self._is_open = self._monotonic(), None, True
        self._on_gap("the stream was opened")
        while (reason := self._reason_to_reopen()) is None:
            await self._ask_if_quiet()
            await asyncio.sleep(_TICK_SECONDS)
        return reason

    def _reason_to_reopen(self) -> str | None:
        now = self._monotonic()
        if not self.is_connected:
            return "closed"
        if self._asked is not None and now - self._asked > _ANSWER_WITHIN_SECONDS:
            return "it does not answer"
        since = self._expecting_since
        if since is not None and now - since > _EXPECTED_WITHIN_SECONDS:
            return "no event for an order the venue accepted"
        return None

    async def _ask_if_quiet(self) -> None:
        client, now = self._client(), self._monotonic()
        if client is None or self._asked is not None or now - self._heard < _QUIET_SECONDS:
            return
        self._asked = now
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_SECONDS):
                await client.send({"event": "ping", "cid": 1})
        except (ccxt.BaseError, OSError, TimeoutError) as error:
            _log.warning("stream_not_asked", error=f"{type(error).__name__}: {error}"[:200])

    async def _reopen(self, reason: str) -> None:
        self.reconnects += 1
        self._failures += 1
        _log.warning("user_stream_interrupted", reason=reason, failures=self._failures)
        await self._drop()
        self._on_gap(reason)
        await asyncio.sleep(max(self._closed_seconds(), pause_seconds(self._failures, random.random())))

    async def _drop(self) -> None:
        self._is_open, self._expecting_since, self._asked = False, None, None
        await close_clients(self._exchange, which=lambda url: url == self._url)

    @property
    def _url(self) -> str:
        return str(self._exchange.urls["api"]["ws"]["private"])

    def _client(self) -> Any:
        return self._exchange.clients.get(self._url)

    def _take(self, client: Any, message: Any) -> None:
        if client.url != self._url:
            self._pass(client, message)
            return
        if client is not self._client():
            # What is still read from a connection that was given up says nothing of the one that followed it.
            return
        self._heard, self._asked = self._monotonic(), None
        if not isinstance(message, list):
            self._pass(client, message)
        elif len(message) > 2 and message[1] in _ORDERS:
            self._take_order(message[2])
        elif len(message) > 2 and message[1] == _FILL:
            self._take_fill(message[2])

    def _pass(self, client: Any, message: Any) -> None:
        try:
            self._pass_on(client, message)
        except _UNFORESEEN as error:
            _log.warning("frame_unreadable", said=str(message)[:200], error=f"{type(error).__name__}: {error}"[:200])

    def _take_order(self, row: object) -> None:
        self._expecting_since, self._failures = None, 0
        self._last_order_event = self._monotonic()
        try:
            report = self._reader.report_of(row)
        except MalformedReportError as error:
            self._unreadable(error)
            return
        self._on_report(report)

    def _take_fill(self, row: object) -> None:
        try:
            execution = self._reader.fill_of(row)
        except MalformedReportError as error:
            self._unreadable(error)
            return
        if execution.fill_id in self._seen_fills:
            return
        self._seen_fills[execution.fill_id] = None
        if len(self._seen_fills) > _SEEN_FILLS:
            self._seen_fills.pop(next(iter(self._seen_fills)))
        self._on_fill(execution)

    def _unreadable(self, error: MalformedReportError) -> None:
        _log.warning("order_event_unreadable", error=str(error))
        self._on_gap("an order event was unreadable")
