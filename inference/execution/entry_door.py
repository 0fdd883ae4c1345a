"""The last question before an entry leaves: does the venue let it, and is there room for it and its stop."""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from inference.domain.events import Noted
from inference.execution.entry_holds import ACCOUNT, BUS, BUS_DOWN, REDUCE_ONLY, SYMBOL, EntryHolds
from inference.execution.ledger import Ledger

NO_RATE_CAPACITY = "NO_RATE_CAPACITY"
HALTED = "HALTED"
"""The worker enters nothing until its next start: something in it failed, or its journal cannot be written."""
DENIED = "risk.entry_denied"
_HELD_CODES = {ACCOUNT: "ACCOUNT_HELD", REDUCE_ONLY: "REDUCE_ONLY_HELD", SYMBOL: "SYMBOL_HELD", BUS: BUS_DOWN}
_BUS_REASON = "what is journaled could not be told to the event bus, which QT_BUS_REQUIRED asks for"
# An entry that rests is asked about again and again; the journal hears of each reason once.
_REMEMBERED = 256


@dataclass(frozen=True, slots=True)
class Held:
    """Why an entry is held back: the code that is counted, and the reason in words."""

    code: str
    reason: str


class EntryDoor:
    """
    Lets entries out, or says why not, in the journal and by count; exits and stops never come here.

    `no_capacity` says why an entry could not be sent now, or nothing. It is asked each time: room comes and goes.
    """

    def __init__(self, ledger: Ledger, *, monotonic: Callable[[], float], no_capacity: Callable[[], str]) -> None:
        self.holds = EntryHolds()
        self.denied: Counter[str] = Counter()
        self._ledger = ledger
        self._monotonic = monotonic
        self._no_capacity = no_capacity
        self._told: OrderedDict[tuple[str, str], None] = OrderedDict()
        # Whatever the venue says: shut by the emergency stop, and by what halted the worker until its next start.
        self.barred: Held | None = None
        self.halted: Held | None = None

    @property
    def shut(self) -> Held | None:
        """Why no entry may leave, one that is under way included; None where neither stop nor halt bars any."""
        return self.barred or self.halted

    @property
    def why_barred(self) -> str:
        """The same in words; empty where none is barred."""
        return "" if self.shut is None else f"{self.shut.code}, {self.shut.reason}"

    def note(self, symbol: str, refusal: str) -> None:
        """Take in why the venue refused an entry; some reasons hold the next ones back."""
        self.holds.note(symbol, refusal, self._monotonic())
        self.tell_holds()

    def bus_is_down(self, *, seconds: float) -> None:
        """Hold entries for so long at most; said again while it lasts."""
        self.holds.hold_bus(self._monotonic(), seconds=seconds)
        self.tell_holds()

    def bus_is_well(self) -> None:
        """Let entries out again, as far as the event bus is concerned."""
        self.holds.release_bus(self._monotonic())
        self.tell_holds()

    def tell_holds(self) -> None:
        """Journal which holds began and which ended since this was last done."""
        for event in self.holds.news(self._monotonic()):
            self._ledger.note(event)

    def lets_out(self, symbol: str, trace_id: str) -> bool:
        """Whether an entry may leave; one that may not is journaled and counted."""
        held = self.held(symbol)
        if held is not None:
            self._tell(symbol, trace_id, held)
        return held is None

    def held(self, symbol: str) -> Held | None:
        """Return what holds entries in a symbol back at present, or None."""
        if self.shut is not None:
            return self.shut
        now = self._monotonic()
        if kind := self.holds.blocked_by(symbol, now):
            reason = f"the venue refused an entry, and a hold of {kind} follows from that"
            return Held(_HELD_CODES[kind], _BUS_REASON if kind == BUS else reason)
        reason = self._no_capacity()
        return Held(NO_RATE_CAPACITY, reason) if reason else None

    def _tell(self, symbol: str, trace_id: str, held: Held) -> None:
        key = (trace_id, held.code)
        if key in self._told:
            return
        self._told[key] = None
        while len(self._told) > _REMEMBERED:
            self._told.popitem(last=False)
        self.denied[held.code] += 1
        detail = {"symbol": symbol, "code": held.code, "reason": held.reason[:300]}
        self._ledger.note(Noted(event_type=DENIED, detail=detail), trace_id=trace_id)
