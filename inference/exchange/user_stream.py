"""The account's stream of order events: kept alive, watched for silence, and never the only source of truth."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from decimal import Decimal
from typing import Any

from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.errors import VenueError, translate
from inference.domain.order import Fill, OrderReport
from inference.exchange.account_events import AccountEvents, KeyLost, Opened, OrderEvent
from inference.exchange.ccxt_mapping import MalformedReportError, stream_fill, stream_report
from inference.exchange.watching import Interrupted, Watcher, close_clients, is_private, pause_seconds
from inference.telemetry.logs import logger

_log = logger("user_stream")

# ccxt 4.5.90 renews the listen key once and never again, so we do; an unknown key is noticed this soon.
_KEEP_ALIVE_SECONDS = 6.0
# Between two questions over the stream, and two looks at the account beside it; how long each may go without a word.
_LOOK_SECONDS = 3.0
_ANSWER_WITHIN_SECONDS = 3.0
_TOLD_WITHIN_SECONDS = 1.5
# The stream may also be quicker than the answer was.
_TOLD_BEFORE_SECONDS = 1.0
_TICK_SECONDS = 1.0
# An order that the venue has accepted is on the stream within milliseconds.
_EXPECTED_WITHIN_SECONDS = 5.0
_DIAL_SECONDS = 10.0
_SEEN_FILLS = 4096


class UserStream:
    """
    Follows what happens to the account's orders.

    A stream can die without a word: it stays open and answers pings. So the venue is asked something over it now and
    then, an order that was accepted must show on it, and so must the wallet balance that `look` finds beside it.
    `closed_seconds` says for how long the venue wants to hear nothing.

    `on_report` and `on_fill` get each event, `on_gap` is called whenever events may have been missed: then only REST
    knows. That is so when the stream is interrupted, and again as soon as it is open, because what happened between
    the caller's last look and that moment is on no stream; the first opening is no exception. Repeated and reordered
    events are passed on; whoever listens merges them monotonically. `on_funding` hears that funding was paid.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        on_report: Callable[[OrderReport], None],
        on_fill: Callable[[Fill], None],
        on_gap: Callable[[str], None],
        monotonic: Callable[[], float],
        keep_alive_seconds: float = _KEEP_ALIVE_SECONDS,
        look: Callable[[], Awaitable[Decimal]] | None = None,
        closed_seconds: Callable[[], float] = lambda: 0.0,
        on_funding: Callable[[], None] = lambda: None,
    ) -> None:
        self._exchange = exchange
        self._on_report = on_report
        self._on_fill = on_fill
        self._on_gap = on_gap
        self._monotonic = monotonic
        self._keep_alive_seconds = keep_alive_seconds
        self._look = look
        self._closed_seconds = closed_seconds
        self._expecting_since: float | None = None
        self._seen_fills: dict[str, None] = {}
        self._failures = 0
        self._dialling_since: float | None = None
        self._lost: str | None = None
        self._events = AccountEvents(exchange, monotonic=monotonic, on_funding=on_funding)
        self._connection = Watcher(exchange.watch_orders)
        self.reconnects = 0

    @property
    def is_connected(self) -> bool:
        """Whether the stream is open."""
        return any(is_private(url) and client.isConnected for url, client in list(self._exchange.clients.items()))

    def expect_event(self, sent: float) -> None:
        """
        Say that the venue has accepted something of ours that was sent at a time, so that silence means a dead stream.

        As a rule the stream has told of it before the venue's answer was here.
        """
        if self._expecting_since is None and self._events.last_order_event < sent:
            self._expecting_since = self._monotonic()

    async def connected(self, *, within: float) -> bool:
        """Wait until the stream is open."""
        deadline = self._monotonic() + within
        while not self.is_connected and self._monotonic() < deadline:  # noqa: ASYNC110 - ccxt tells nobody that it connected
            await asyncio.sleep(0.01)
        return self.is_connected

    async def run(self) -> None:
        """Follow the account until cancelled."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._keep_open(), name="user-stream-connection")
            tasks.create_task(self._follow_events(), name="user-stream-events")
            tasks.create_task(self._keep_alive(), name="user-stream-keep-alive")
            tasks.create_task(self._question(), name="user-stream-question")
            if self._look is not None:
                tasks.create_task(self._look_beside(self._look), name="user-stream-look")

    async def _keep_open(self) -> None:
        try:
            while True:
                news = await self._connection.next(within=_TICK_SECONDS)
                if isinstance(news, Interrupted):
                    await self._reopen(news.reason)
                elif self._lost is not None:
                    await self._reopen(self._lost)
                else:
                    await self._judge_silence()
        finally:
            await self._connection.drop()

    async def _follow_events(self) -> None:
        while True:
            event = await self._events.next()
            if isinstance(event, OrderEvent):
                self._take_order(event)
            elif isinstance(event, Opened):
                self._on_gap("the stream was opened")
            elif isinstance(event, KeyLost):
                self._lost = "the venue ended the stream: its key was lost"
            else:
                _log.warning("order_event_unreadable", said=event.text)
                self._on_gap("an order event was unreadable")

    async def _judge_silence(self) -> None:
        """Reopen a stream that keeps silent though something happened, or that never opens; a quiet account is none."""
        if self.is_connected:
            self._dialling_since = None
            if self._is_overdue():
                await self._reopen("no event for an order the venue accepted")
            elif self._events.unanswered_seconds > _ANSWER_WITHIN_SECONDS:
                await self._reopen("it does not answer")
            return
        if self._dialling_since is None:
            self._dialling_since = self._monotonic()
        elif self._monotonic() - self._dialling_since > _DIAL_SECONDS:
            await self._reopen("it did not open")

    def _is_overdue(self) -> bool:
        since = self._expecting_since
        return since is not None and self._monotonic() - since > _EXPECTED_WITHIN_SECONDS

    async def _reopen(self, reason: str) -> None:
        self.reconnects += 1
        self._failures += 1
        self._expecting_since = None
        self._dialling_since = None
        self._lost = None
        _log.warning("user_stream_interrupted", reason=reason, failures=self._failures)
        await self._connection.drop()
        await close_clients(self._exchange, which=is_private)
        self._forget_listen_key()
        self._events.forget()
        self._on_gap(reason)
        await asyncio.sleep(max(self._closed_seconds(), pause_seconds(self._failures, random.random())))

    def _forget_listen_key(self) -> None:
        options = self._exchange.options.setdefault("linear", {})
        options.update(listenKey=None, lastAuthenticatedTime=0)

    def _listen_key(self) -> str | None:
        key = self._exchange.options.get("linear", {}).get("listenKey")
        return None if key is None else str(key)

    async def _keep_alive(self) -> None:
        while True:
            await asyncio.sleep(self._keep_alive_seconds)
            key = self._listen_key()
            if key is None or self._closed_seconds() > 0:
                continue
            try:
                await self._exchange.fapiPrivatePutListenKey()
                if self.is_connected:
                    self._failures = 0
            except ccxt.NetworkError as error:
                _log.warning("listen_key_not_renewed", error=str(translate(error))[:200])
            except ccxt.BaseError as error:
                # Said to the one that waits on the stream: two that reopen it would close each other's connection.
                if key == self._listen_key():
                    self._lost = f"listen key lost: {error}"[:200]

    async def _question(self) -> None:
        while True:
            await self._events.ask(within=_ANSWER_WITHIN_SECONDS)
            # Until it has answered once, nothing is known of whether it does.
            await asyncio.sleep(_LOOK_SECONDS if self._events.has_answered else 0.2)

    async def _look_beside(self, look: Callable[[], Awaitable[Decimal]]) -> None:
        """Hold the wallet as REST shows it against what the stream told: each fill, fee and funding changes it."""
        while True:
            since = self._monotonic() - _TOLD_BEFORE_SECONDS
            try:
                wallet = await look()
            except VenueError as error:
                _log.warning("account_not_looked_at", error=str(error)[:200])
            else:
                await self._judge(wallet, since)
            await asyncio.sleep(_LOOK_SECONDS)

    async def _judge(self, wallet: Decimal, since: float) -> None:
        if not self._events.knows(wallet, since=since):
            # The stream may be slower than the answer was.
            await asyncio.sleep(_TOLD_WITHIN_SECONDS)
            if not self._events.knows(wallet, since=since):
                self._lost = "the account changed and the stream did not tell" if self.is_connected else self._lost
                return
        self._events.believe(wallet)

    def _take_order(self, event: OrderEvent) -> None:
        self._expecting_since = None
        self._failures = 0
        try:
            report = stream_report(event.raw, symbol=event.symbol)
            execution = stream_fill(event.raw, symbol=event.symbol)
        except MalformedReportError as error:
            _log.warning("order_event_unreadable", error=str(error))
            self._on_gap("an order event was unreadable")
            return
        if execution is not None:
            self._pass_fill(execution)
        self._on_report(report)

    def _pass_fill(self, execution: Fill) -> None:
        key = f"{execution.symbol}|{execution.fill_id}"
        if key in self._seen_fills:
            return
        self._seen_fills[key] = None
        if len(self._seen_fills) > _SEEN_FILLS:
            self._seen_fills.pop(next(iter(self._seen_fills)))
        self._on_fill(execution)
