"""The lease of one worker: waited for, renewed, looked at before each order, and given back."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from feature_store.errors import QuantumError
from feature_store.venue.requests import Urgency
from inference.execution.lease import Contender, Holder, LeaseRow, LeaseState, LeaseTerms, Tenure, Wait
from inference.leases.store import LeaseStore, LeaseStoreError

_LOOKS_SECONDS = 0.5


class AccountInUseError(QuantumError):
    """Another worker trades this account."""


class LeaseKeeper:
    """
    Takes and keeps the lease of one account.

    `take` first, then `keep` in a task of its own for as long as there is trading, `release` at the end. `check` is
    for whoever is about to send a request that it has stamped already. `now` is a clock in seconds that runs on while
    the machine sleeps.
    """

    def __init__(
        self,
        store: LeaseStore,
        *,
        account: str,
        me: Holder,
        terms: LeaseTerms,
        now: Callable[[], float],
        is_dead: Callable[[Holder], bool] = lambda _: False,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        tell: Callable[[str, Mapping[str, str]], None] = lambda _, __: None,
        is_local: bool = False,
    ) -> None:
        self.account = account
        self.terms = terms
        self.lost = ""
        self._store = store
        self._me = me
        self._now = now
        self._is_dead = is_dead
        self._sleep = sleep
        self._tell = tell
        # In a store of our own home nobody takes the lease from a process that lives.
        self._is_local = is_local
        self._tenure: Tenure | None = None
        self._hurry = asyncio.Event()
        self._last_sent = float("-inf")

    @property
    def token(self) -> int:
        """The fencing token: higher than that of everybody who traded the account before; 0 before there is one."""
        return 0 if self._tenure is None else self._tenure.token

    @property
    def is_held(self) -> bool:
        """Whether orders may be sent now."""
        return not self.lost and self._tenure is not None and self._tenure.may_send(self._now())

    @property
    def begins_in(self) -> float:
        """How many seconds the orders of whoever traded before may still be accepted by the venue."""
        return 0.0 if self._tenure is None else max(0.0, self._tenure.begins - self._now())

    async def take(self, *, wait: bool, waiting: Callable[[str], None] = lambda _: None) -> None:
        """
        Take the lease; with `wait`, however long another worker holds it.

        A holder that is silent is waited for in any case, as it may be gone.

        Raises:
            AccountInUseError: Another worker lives and holds the lease, and `wait` is False.
        """
        contender = Contender(self.terms, self._me)
        told = ""
        while True:
            try:
                verdict = await self._attempt(contender)
            except LeaseStoreError as error:
                if not wait:
                    raise
                reason = str(error)
            else:
                if verdict is None:
                    return
                if not wait and (verdict.is_alive or self._is_silent_for_good(verdict)):
                    raise AccountInUseError(_in_use(self.account, verdict))
                reason = f"{verdict.holder.words} holds account {self.account}"
            if reason != told:
                waiting(reason)
                told = reason
            await self._sleep(min(_LOOKS_SECONDS, self.terms.seconds / 10))

    async def keep(self) -> None:
        """Renew until cancelled, or until the lease is another's; an unreachable store is asked again and again."""
        while not self.lost:
            await self._pause()
            asked = self._now()
            try:
                is_ours = await asyncio.to_thread(self._store.renew, self.account, self.token)
            except LeaseStoreError as error:
                self._tell("health.lease_not_renewed", {"reason": str(error)[:300], "token": str(self.token)})
                continue
            if not is_ours:
                await self._lose()
            elif self._tenure is not None:
                self._tenure = self._tenure.renewed(self.terms, asked=asked)

    def check(self, urgency: Urgency = Urgency.USUAL) -> str:
        """
        Return why a request that is stamped and about to be sent may not be; empty where it may.

        What is urgent, as it reduces risk, goes on where a full disk keeps a lease of our own home from being renewed:
        a position without a stop is worse, and nobody else can have the lease.
        """
        begun = self._tenure is not None and self.begins_in == 0
        if self.is_held or (urgency is Urgency.URGENT and self._is_local and begun and not self.lost):
            self._last_sent = self._now()
            return ""
        if self.lost:
            return self.lost
        if self.begins_in > 0:
            return f"orders of whoever traded account {self.account} before may still be accepted"
        return f"the lease of account {self.account} could not be renewed in time"

    def doubt(self) -> None:
        """Send nothing before the next renewal: a clock moved, and how long we were away is not known."""
        if self._tenure is not None:
            self._tenure = self._tenure.doubted()
            self._hurry.set()

    async def release(self) -> None:
        """Give the lease back, so that the next worker need not wait for its end; where that fails, it has to."""
        if self._tenure is None or self.lost:
            return
        under_way = self._now() - self._last_sent <= self.terms.quiet_seconds
        tenure, self._tenure = self._tenure, None
        state = LeaseState.LEFT if under_way else LeaseState.RELEASED
        try:
            await asyncio.to_thread(self._store.release, self.account, tenure.token, state)
        except LeaseStoreError as error:
            self._tell("health.lease_not_released", {"reason": str(error)[:300], "token": str(tenure.token)})

    async def _attempt(self, contender: Contender) -> Wait | None:
        row = await asyncio.to_thread(self._store.read, self.account)
        dead = row is not None and self._is_dead(row.holder)
        verdict = contender.judge(row, now=self._now(), is_dead=dead)
        if isinstance(verdict, Wait):
            return verdict
        asked = self._now()
        token = await asyncio.to_thread(self._store.take, self.account, self._me, row)
        if token is None:
            # Somebody was faster, and has the lease now.
            return await self._attempt(contender)
        self._tenure = Tenure.taken(
            self.terms, token, asked=asked, taken=self._now(), quiet_seconds=verdict.quiet_seconds
        )
        before = "nobody" if row is None else f"{row.holder.words}, {_fate(row, is_dead=dead)}"
        self._tell("health.lease_taken", {"account": self.account, "token": str(token), "before": before})
        return None

    def _is_silent_for_good(self, verdict: Wait) -> bool:
        # A lease of our own home that nobody renews and whose holder lives: stopped, or stuck. No wait helps.
        return verdict.silent_seconds > self.terms.seconds

    async def _lose(self) -> None:
        whose = "another worker"
        try:
            row = await asyncio.to_thread(self._store.read, self.account)
        except LeaseStoreError:
            row = None
        if row is not None and row.token != self.token:
            whose = row.holder.words
        self.lost = f"{whose} trades account {self.account} now"
        self._tell("health.lease_lost", {"account": self.account, "token": str(self.token), "to": whose})

    async def _pause(self) -> None:
        nap = asyncio.ensure_future(self._sleep(self.terms.renewal_seconds))
        hurry = asyncio.ensure_future(self._hurry.wait())
        try:
            await asyncio.wait({nap, hurry}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            nap.cancel()
            hurry.cancel()
            self._hurry.clear()


def _fate(row: LeaseRow, *, is_dead: bool) -> str:
    if row.state is not LeaseState.HELD:
        return row.state.value
    return "ended" if is_dead else "silent"


def _in_use(account: str, verdict: Wait) -> str:
    how = "renews it" if verdict.is_alive else f"lives, and has not renewed it for {verdict.silent_seconds:.0f} s"
    return (
        f"Account {account} is traded by another worker: {verdict.holder.words} holds its lease and {how};"
        " stop that one first, or start this one with QT_LEASE_WAIT=true to take over when it ends"
    )
