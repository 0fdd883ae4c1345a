"""What a worker has to know of the lives before this one, as its journal tells it."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from inference.bootstrap.recollection import STARTED, Recollection
from inference.domain.errors import SettingsError
from inference.domain.events import (
    RESTORED,
    AccountMarked,
    CandlesDecided,
    Event,
    FeaturesUsed,
    Noted,
    OrderRefused,
    TradeClosed,
    TradePlanned,
)
from inference.domain.policy import Policy
from inference.execution.book import Book
from inference.execution.funding import FundingAccount, funding_payment
from inference.journal.codec import Entry, event_of
from inference.journal.head import Head
from inference.journal.keeping import RESTORED_MARKER
from inference.journal.outside_anchor import ANCHOR_REPLACED, OutsideAnchor
from inference.journal.writer import JournalWriter
from inference.policy.watch import LOADED, UPDATED
from inference.risk.breaker import EVENT_OF, Breaker, after
from inference.settings import Mode
from inference.supervision.approval import APPROVED, VERDICT
from inference.supervision.emergency_record import EmergencyRecord

# As many events as any window of the breaker can hold, and more than any row of losses.
_EVENTS_COUNTED = 20_000
# A worker's reckoning of the venue's time may be corrected by less.
_SET_BACK_MS = 3_600_000
# Digits of a version's number; no store has as many.
_LONGEST_NUMBER = 18
ACCOUNT_BEGUN = "health.paper_account_begun"


@dataclass(slots=True)
class Past:
    """
    Orders and positions, the account's last mark and funding, what was decided of models, and their opinions.

    `decided` holds the type and the detail of each decision, in their order; `mark_ms` is venue time, and so is
    `began_ms`, the first entry's; None where there is none. `modes` are those of all earlier starts.
    """

    book: Book
    mark: AccountMarked | None = None
    mark_ms: int = 0
    decided: list[tuple[str, Mapping[str, str]]] = field(default_factory=list)
    funding: FundingAccount = field(default_factory=FundingAccount)
    began_ms: int | None = None
    opinions: Recollection = field(default_factory=Recollection)
    emergency: EmergencyRecord = field(default_factory=EmergencyRecord)
    # The last version of the policy's store that was journaled, 0 where none was.
    policy_version: int = 0
    modes: set[str] = field(default_factory=set)
    _at_ms: int = 0
    # What the breaker counts, with when it happened: which policy it counts by is known only once the worker starts.
    _counted: deque[tuple[Event, int]] = field(default_factory=lambda: deque(maxlen=_EVENTS_COUNTED))

    def heed_restore(self, journal: JournalWriter, anchor: OutsideAnchor) -> None:
        """
        Journal that this home was put back from a backup, once; open trades are asked for at the venue then.

        Anybody may claim so who writes in the home: what an anchor outside said of the journal before is journaled too.
        """
        marker = journal.path.with_name(RESTORED_MARKER)
        try:
            said = marker.read_text(errors="replace")
        except FileNotFoundError:
            return
        replaced = anchor.replaced_by(Head(seq=journal.seq, digest=journal.digest))
        event = Noted(event_type=RESTORED, detail={"backup": said[:200]})
        journal.record(event, timestamp_ms=self._at_ms, durable=True)
        self.book.apply(event)
        if replaced is not None:
            told = Noted(event_type=ANCHOR_REPLACED, detail=replaced)
            journal.record(told, timestamp_ms=self._at_ms, durable=True)
            anchor.set_aside()
        marker.unlink()

    def visit(self, entry: Entry) -> None:
        """Take in one entry; entries come in the journal's order."""
        self.began_ms = entry.timestamp_ms if self.began_ms is None else self.began_ms
        # Decisions and what they read are the bulk of a journal and change nothing that execution knows.
        if entry.type in (CandlesDecided.event_type, FeaturesUsed.event_type):
            return
        event = event_of(entry)
        if isinstance(event, AccountMarked):
            self.mark, self.mark_ms = event, entry.timestamp_ms
        if (
            isinstance(event, AccountMarked | OrderRefused | TradeClosed | TradePlanned)
            or entry.type in EVENT_OF.values()
        ):
            self._counted.append((event, entry.timestamp_ms))
        if isinstance(event, Noted):
            self.emergency.visit(event, entry.timestamp_ms)
            if event.event_type == STARTED:
                self.modes.add(event.detail.get("mode", ""))
            earlier = self.opinions.place
            self.opinions.visit(event, entry.seq)
            self._funding_goes_on(earlier, self.opinions.place, entry.timestamp_ms)
            if event.event_type == ACCOUNT_BEGUN:
                self.begin_anew(entry.timestamp_ms)
            if event.event_type in (LOADED, UPDATED):
                self.policy_version = _number_of(event.detail, "version") or self.policy_version
            if event.event_type in (VERDICT, APPROVED):
                self.decided.append((event.event_type, event.detail))
        if payment := funding_payment(event):
            self.funding.count(payment)
        self.book.apply(event)

    def breaker(self, policy: Policy) -> Breaker:
        """Return the trading circuit breaker as the journal left it, by a policy's limits."""
        found = Breaker()
        for event, at_ms in self._counted:
            found = after(found, event, at_ms, policy)
        return found

    def funding_since(self, place: tuple[str, str], now_ms: int) -> int:
        """Return from which venue time on funding is this account's, for a worker that starts now at this place."""
        self._funding_goes_on(self.opinions.place, place, now_ms)
        return now_ms if self.began_ms is None else self.began_ms

    def begin_anew(self, at_ms: int) -> None:
        """Let go of what is known of the account, where it is another one from a venue time on."""
        # Its payments have numbers and dates of their own.
        self.funding.begin_anew()
        self.began_ms = at_ms
        # What another one had at its best is nothing to fall from.
        self.mark, self.mark_ms = None, 0
        self.emergency.reset_ms = self.emergency.reset_equity = None
        self._counted.clear()

    def _funding_goes_on(self, earlier: tuple[str, str] | None, place: tuple[str, str] | None, at_ms: int) -> None:
        if earlier not in (None, place) or at_ms < self._at_ms - _SET_BACK_MS:
            # Another venue, another mode or another time.
            self.begin_anew(at_ms)
        self._at_ms = at_ms


def require_own_home(before: Collection[str], mode: Mode, journal: Path) -> None:
    """
    Refuse to trade on a test network where anything else was traded, the reverse, and anything where money was traded.

    Positions, equity and prices of a test network are those of no other market, and look like the venue's. A worker
    that plays where one traded real money would take its positions for gone, and its losses of the day for another's.

    Args:
        before: The modes of earlier starts, as the journal tells them.
        mode: That of this start.
        journal: Which journal, for the message.

    Raises:
        SettingsError: The journal tells of a test network and of another mode, or of real money and the mode is play.
    """
    others = sorted(set(before) - {mode.value, ""})
    if others and Mode.TESTNET in (mode, *others):
        raise SettingsError(
            f"QT_MODE={mode.value} contradicts {journal}, whose worker traded with QT_MODE={', '.join(others)}:"
            " what is traded on a test network has a home of its own; set QUANTUM_HOME to another folder"
        )
    if Mode.LIVE.value in others:
        raise SettingsError(
            f"QT_MODE={mode.value} contradicts {journal}, whose worker traded real money (QT_MODE=live): what it holds "
            "would be taken for gone; set QUANTUM_HOME to another folder"
        )


def _number_of(detail: Mapping[str, str], name: str) -> int:
    text = detail.get(name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER else 0
