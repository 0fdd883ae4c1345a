"""What a worker has to know of the lives before this one, as its journal tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from inference.bootstrap.recollection import Recollection
from inference.domain.events import AccountMarked, CandlesDecided, FeaturesUsed, Noted
from inference.execution.book import Book
from inference.execution.funding import FundingAccount, funding_payment
from inference.journal.codec import Entry, event_of
from inference.supervision.approval import APPROVED, VERDICT

# A worker's reckoning of the venue's time may be corrected by less.
_SET_BACK_MS = 3_600_000


@dataclass(slots=True)
class Past:
    """
    Orders and positions, the account's last mark and funding, what was decided of models, and their opinions.

    `decided` holds the type and the detail of each decision, in their order; `mark_ms` is venue time, and so is
    `began_ms`, the first entry's; None where there is none.
    """

    book: Book
    mark: AccountMarked | None = None
    mark_ms: int = 0
    decided: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    funding: FundingAccount = field(default_factory=FundingAccount)
    began_ms: int | None = None
    opinions: Recollection = field(default_factory=Recollection)
    _at_ms: int = 0

    def visit(self, entry: Entry) -> None:
        """Take in one entry; entries come in the journal's order."""
        self.began_ms = entry.timestamp_ms if self.began_ms is None else self.began_ms
        # Decisions and what they read are the bulk of a journal and change nothing that execution knows.
        if entry.type in (CandlesDecided.event_type, FeaturesUsed.event_type):
            return
        event = event_of(entry)
        if isinstance(event, AccountMarked):
            self.mark, self.mark_ms = event, entry.timestamp_ms
        if isinstance(event, Noted):
            earlier = self.opinions.place
            self.opinions.visit(event, entry.seq)
            self._funding_goes_on(earlier, self.opinions.place, entry.timestamp_ms)
            if event.event_type in (VERDICT, APPROVED):
                self.decided.append((event.event_type, event.detail))
        if payment := funding_payment(event):
            self.funding.count(payment)
        self.book.apply(event)

    def funding_since(self, place: tuple[str, str], now_ms: int) -> int:
        """Return from which venue time on funding is this account's, for a worker that starts now at this place."""
        self._funding_goes_on(self.opinions.place, place, now_ms)
        return now_ms if self.began_ms is None else self.began_ms

    def _funding_goes_on(self, earlier: tuple[str, str] | None, place: tuple[str, str] | None, at_ms: int) -> None:
        if earlier not in (None, place) or at_ms < self._at_ms - _SET_BACK_MS:
            # Another venue, another mode or another time: its payments have numbers and dates of their own.
            self.funding.begin_anew()
            self.began_ms = at_ms
        self._at_ms = at_ms
