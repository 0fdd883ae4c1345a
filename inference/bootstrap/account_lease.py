"""The lease of the account in a worker's life: taken before anything else, given back after all else."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, suppress
from typing import Any

from feature_store.clock import uptime
from feature_store.venue.factory import RECV_WINDOW_MS
from feature_store.venue.requests import Urgency
from inference.domain.decision import TradingState
from inference.domain.errors import JournalError
from inference.exchange.guarding import guard_writes
from inference.execution.lease import LeaseTerms
from inference.leases.holding import account_key, is_dead, this_process
from inference.leases.keeper import AccountInUseError, LeaseKeeper
from inference.leases.store import open_store
from inference.settings import Mode, Settings
from inference.supervision.service_manager import ServiceManager
from inference.supervision.standing import Standing
from inference.telemetry.logs import logger

_log = logger("lease")


class AccountLease:
    """Makes this worker the only one that trades its account, for as long as it lives."""

    def __init__(self, settings: Settings, manager: ServiceManager) -> None:
        # A paper account is a file in the home: no key opens it, and no two homes share one.
        is_paper = settings.mode is Mode.PAPER
        key = f"paper {settings.home.resolve()}" if is_paper else settings.api_key.get_secret_value()
        self._wait = settings.lease_wait
        self._manager = manager
        self._untold: list[tuple[str, Mapping[str, str]]] = []
        self._note: Callable[[str, Mapping[str, str]], None] | None = None
        self._renewing: asyncio.Task[None] | None = None
        address = settings.lease_url.get_secret_value() if settings.lease_url is not None else None
        self._keeper = LeaseKeeper(
            open_store(address, settings.home),
            account=account_key(settings.venue, settings.venue_url, key),
            me=this_process(settings.home),
            terms=LeaseTerms(seconds=settings.lease_seconds, recv_window_seconds=RECV_WINDOW_MS / 1000),
            now=uptime,
            is_dead=is_dead,
            tell=self._tell,
            is_local=address is None,
        )

    @property
    def token(self) -> int:
        """The fencing token; 0 where there is no lease yet."""
        return self._keeper.token

    @property
    def is_held(self) -> bool:
        """Whether orders may be sent now."""
        return self._keeper.is_held

    async def take(self, stack: AsyncExitStack) -> None:
        """
        Take the lease and keep it until the stack is unwound; return once orders may be sent.

        Raises:
            AccountInUseError: Another worker trades the account, and this one was not told to wait.
            LeaseStoreError: Where leases are kept cannot be reached.
        """
        await self._keeper.take(wait=self._wait, waiting=self._say_waiting)
        self._renewing = asyncio.create_task(self._keeper.keep(), name="lease")
        stack.push_async_callback(self._give_back)
        while (seconds := self._keeper.begins_in) > 0:
            _log.info("lease_begins_soon", seconds=round(seconds, 1), account=self._keeper.account)
            await asyncio.sleep(seconds)

    def guard(self, exchange: Any) -> None:
        """Let a client send what changes the account only while the lease lasts."""
        guard_writes(exchange, self._keeper.check)

    def why_not(self, urgency: Urgency) -> str:
        """Return why the account may not be changed now; empty where it may."""
        return self._keeper.check(urgency)

    def doubt(self) -> None:
        """Send nothing before the next renewal."""
        self._keeper.doubt()

    def tell_to(self, note: Callable[[str, Mapping[str, str]], None]) -> None:
        """Journal what happened to the lease, from its beginning."""
        self._note = note
        for event_type, detail in self._untold:
            note(event_type, detail)
        self._untold.clear()

    def look(self, standing: Standing) -> None:
        """
        Object to entries while it is not known who may trade.

        Raises:
            AccountInUseError: Another worker took the account over; this one must end.
        """
        if self._keeper.lost:
            raise AccountInUseError(f"This worker was away for too long: {self._keeper.lost}; nothing more was sent")
        if self._renewing is not None and self._renewing.done():
            self._renewing.result()
        if self._keeper.is_held:
            standing.lift("lease")
        else:
            standing.object("lease", TradingState.REDUCING, "the account's lease could not be renewed in time")

    async def _give_back(self) -> None:
        if self._renewing is not None:
            self._renewing.cancel()
            with suppress(asyncio.CancelledError):
                await self._renewing
        self._note = None
        await self._keeper.release()

    def _say_waiting(self, reason: str) -> None:
        _log.warning("waiting_for_the_account", reason=reason)
        self._manager.alive(f"waiting: {reason}")

    def _tell(self, event_type: str, detail: Mapping[str, str]) -> None:
        _log.info(event_type.replace(".", "_"), **detail)
        if self._note is None:
            self._untold.append((event_type, detail))
            return
        try:
            self._note(event_type, detail)
        except JournalError as error:
            _log.error("journal_not_written", error=str(error))
