"""What the venue answers for one candle: prices and equity, asked while the candle is still on its way."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from decimal import Decimal

from feature_store.venue.errors import VenueError
from inference.domain.decision import TradingState
from inference.domain.events import AccountMarked
from inference.domain.market import Quote
from inference.domain.position import Account
from inference.supervision.account_marks import account_of, marked
from inference.supervision.standing import Standing
from inference.telemetry.logs import logger

_log = logger("worker")
OBJECTION = "account"


@dataclass(frozen=True, slots=True)
class Asked:
    """The questions of one close time."""

    close_time_ms: int
    quotes: asyncio.Task[dict[str, Quote]]
    account: asyncio.Task[Account]


class VenueAnswers:
    """
    Asks once a candle, and keeps the account's marks.

    Without prices every candidate is denied, with its code; without equity nothing is entered until it is known.
    `record` journals each mark.
    """

    def __init__(
        self,
        *,
        equity: Callable[[], Awaitable[Decimal]],
        quotes: Callable[[], Awaitable[dict[str, Quote]]],
        know: Callable[[dict[str, Quote]], dict[str, Quote]],
        standing: Standing,
        record: Callable[[AccountMarked], None],
        now_ms: Callable[[], int],
        last_mark: tuple[AccountMarked | None, int],
    ) -> None:
        self.account, self._account_at_ms = last_mark
        self._equity = equity
        self._quotes = quotes
        self._know = know
        self._standing = standing
        self._record = record
        self._now_ms = now_ms
        self._asked: Asked | None = None

    def ask(self, close_time_ms: int) -> None:
        """Ask for a candle that is about to close; what was asked for another is no longer waited for."""
        if self._asked is not None:
            self._asked.quotes.cancel()
            self._asked.account.cancel()
        self._asked = self._questions(close_time_ms)

    def of(self, close_time_ms: int) -> Asked:
        """Return what was asked for a candle, or ask now."""
        asked = self._asked
        if asked is not None and asked.close_time_ms == close_time_ms:
            self._asked = None
            return asked
        return self._questions(close_time_ms)

    def seen(self, equity: Decimal) -> AccountMarked:
        """Return the marks as equity read now leaves them, a day that has begun meanwhile included; none is kept."""
        return marked(self.account, self._account_at_ms, equity=equity, now_ms=self._now_ms())

    def rebase(self, equity: Decimal | None) -> Decimal | None:
        """
        Let the account's peak begin at what equity is now, as a person accepts it; return that equity, if known.

        `equity` is the newest that was read, which may be far from that of the last candle.
        """
        if equity is None and self.account is not None:
            equity = self.account.equity
        if equity is None:
            return None
        self.account = replace(self.seen(equity), peak_equity=equity)
        self._account_at_ms = self._now_ms()
        self._record(self.account)
        return equity

    def _questions(self, close_time_ms: int) -> Asked:
        quotes = asyncio.create_task(self._read_quotes())
        return Asked(close_time_ms, quotes, asyncio.create_task(self._read_account()))

    async def _read_quotes(self) -> dict[str, Quote]:
        try:
            return self._know(await self._quotes())
        except VenueError as error:
            _log.warning("quotes_not_read", error=str(error)[:200])
            return {}

    async def _read_account(self) -> Account:
        try:
            equity = await self._equity()
        except VenueError as error:
            self._standing.object(OBJECTION, TradingState.REDUCING, f"equity is not known: {error}"[:300])
        else:
            self._standing.lift(OBJECTION)
            now_ms = self._now_ms()
            self.account = marked(self.account, self._account_at_ms, equity=equity, now_ms=now_ms)
            self._account_at_ms = now_ms
            self._record(self.account)
        known = self.account
        if known is None:
            return Account(equity=Decimal(0), day_start_equity=Decimal(0), peak_equity=Decimal(0))
        return account_of(known)
