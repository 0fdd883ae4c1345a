"""Reads what funding was paid, when the stream tells of some and now and then, and journals each payment once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.execution.funding import FundingAccount, FundingPayment, funding_event
from inference.telemetry.logs import logger

_log = logger("funding")

_EVERY_SECONDS = 300.0
# The stream tells of a payment before the list of payments shows it, and tells of each symbol by itself.
_SETTLE_SECONDS = 1.0
# After the stream told of one, or the venue could not be asked, and nothing new was found.
_AGAIN_SECONDS = 15.0


class FundingWatch:
    """
    Keeps the account of funding.

    `began_ms` is the venue time from which on the account is this worker's: older payments are none of its.
    """

    def __init__(
        self,
        account: FundingAccount,
        *,
        read: Callable[[int], Awaitable[list[FundingPayment]]],
        note: Callable[[str, Mapping[str, str]], None],
        began_ms: int,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._account = account
        self._read = read
        self._note = note
        self._began_ms = began_ms
        self._sleep = sleep
        self._told = asyncio.Event()

    @property
    def total(self) -> Decimal:
        """What was received in all; negative where more was paid."""
        return self._account.total

    def wake(self) -> None:
        """Say that there may be a payment."""
        self._told.set()

    async def look(self) -> int:
        """
        Read, journal and count what is new; return how many that were.

        Raises:
            VenueError: The venue could not be asked; nothing was counted.
        """
        since_ms = self._account.read_from(self._began_ms)
        fresh = 0
        for payment in await self._read(since_ms):
            if payment.event_time_ms >= since_ms and self._account.count(payment):
                event = funding_event(payment)
                self._note(event.event_type, event.detail)
                fresh += 1
        return fresh

    async def run(self) -> None:
        """Look until cancelled."""
        is_expected = False
        while True:
            self._told.clear()
            try:
                found = await self.look()
            except VenueError as error:
                _log.warning("funding_not_read", error=str(error)[:200])
                is_expected, found = True, 0
            wait = _AGAIN_SECONDS if is_expected and not found else _EVERY_SECONDS
            is_expected = await self._is_told(within=wait)
            if is_expected:
                await self._sleep(_SETTLE_SECONDS)

    async def _is_told(self, *, within: float) -> bool:
        nap = asyncio.ensure_future(self._sleep(within))
        told = asyncio.ensure_future(self._told.wait())
        try:
            await asyncio.wait({nap, told}, return_when=asyncio.FIRST_COMPLETED)
            return self._told.is_set()
        finally:
            nap.cancel()
            told.cancel()
