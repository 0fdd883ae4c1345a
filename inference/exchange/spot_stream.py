"""The account's stream at Binance spot: subscribed to by a signature, over the connection that also takes requests."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Protocol

from feature_store.venue.ccxt_package import ccxt
from inference.domain.order import Fill, OrderReport
from inference.exchange.bitfinex_stream import BitfinexStream
from inference.exchange.ccxt_mapping import MalformedReportError
from inference.telemetry.logs import logger

_log = logger("user_stream")

_DIAL_SECONDS, _ANSWER_WITHIN_SECONDS, _QUIET_SECONDS = 10.0, 3.0, 2.0
_PROBE_ID = 9_000_001
_ORDER, _ENDED = "executionReport", "eventStreamTerminated"


class SpotReader(Protocol):
    """Who reads the venue's events, as the gateway does."""

    def stream_report_of(self, event: object) -> OrderReport:
        """Return what an event says of an order."""
        ...

    def stream_fill_of(self, event: object) -> Fill | None:
        """Return the execution in an event, if it tells of one."""
        ...


class _Rows:
    """Reads one event twice: for the order, and for the execution in it."""

    def __init__(self, reader: SpotReader) -> None:
        self.reader = reader
        self.report_of = reader.stream_report_of

    def fill_of(self, event: object) -> Fill:
        """Return the execution in an event that tells of one."""
        found = self.reader.stream_fill_of(event)
        if found is None:
            raise MalformedReportError("Order event", "execution", event)
        return found


class SpotStream(BitfinexStream):
    """
    Follows what happens to the account's orders, watched as the stream of the other venue without listen keys.

    The executions of a purchase say what it brought, so that each is read before the report that it came with.
    """

    def __init__(
        self,
        exchange: Any,
        *,
        reader: SpotReader,
        on_report: Callable[[OrderReport], None],
        on_fill: Callable[[Fill], None],
        on_gap: Callable[[str], None],
        monotonic: Callable[[], float],
        closed_seconds: Callable[[], float] = lambda: 0.0,
    ) -> None:
        super().__init__(
            exchange,
            reader=_Rows(reader),
            on_report=on_report,
            on_fill=on_fill,
            on_gap=on_gap,
            monotonic=monotonic,
            closed_seconds=closed_seconds,
        )
        self._is_ended = False

    async def _follow(self) -> str:
        self._is_ended = False
        try:
            async with asyncio.timeout(_DIAL_SECONDS):
                await self._exchange.authenticate({"type": "spot"})
        except TimeoutError:
            return "it did not open"
        except (ccxt.BaseError, OSError) as error:
            return f"{type(error).__name__}: {error}"[:200]
        return await self._stay()

    def _reason_to_reopen(self) -> str | None:
        return "the venue ended the stream" if self._is_ended else super()._reason_to_reopen()

    async def _ask_if_quiet(self) -> None:
        client, now = self._client(), self._monotonic()
        if client is None or self._asked is not None or now - self._heard < _QUIET_SECONDS:
            return
        self._asked = now
        try:
            async with asyncio.timeout(_ANSWER_WITHIN_SECONDS):
                await client.send({"id": _PROBE_ID, "method": "ping"})
        except (ccxt.BaseError, OSError, TimeoutError) as error:
            _log.warning("stream_not_asked", error=f"{type(error).__name__}: {error}"[:200])

    @property
    def _url(self) -> str:
        return str(self._exchange.urls["api"]["ws"]["ws-api"]["spot"])

    def _take(self, client: Any, message: Any) -> None:
        if client.url != self._url:
            self._pass(client, message)
            return
        if client is not self._client():
            # What is still read from a connection that was given up says nothing of the one that followed it.
            return
        self._heard, self._asked = self._monotonic(), None
        event = message.get("event") if isinstance(message, dict) else None
        if not isinstance(event, dict):
            if not isinstance(message, dict) or message.get("id") != _PROBE_ID:
                self._pass(client, message)
            return
        kind = event.get("e")
        if kind == _ENDED:
            self._is_ended = True
        elif kind == _ORDER:
            if event.get("x") == "TRADE":
                self._take_fill(event)
            self._take_order(event)
