"""What the venue, or the event bus, says that forbids new entries for a while; exits and protection go on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from inference.domain.events import Noted
from inference.risk.errors import ACCOUNT_CODES, REDUCE_ONLY_CODES, SYMBOL_CODES

ACCOUNT, REDUCE_ONLY, SYMBOL = "account", "reduce-only", "symbol"
# Of our own: what happens could not be told to those who are meant to hear of it.
BUS = "bus"
BUS_DOWN = "BUS_DOWN"

# An account that is refused stays so until a person has looked; asking again and again is what venues ban for.
_ACCOUNT_SECONDS = 300.0
_REDUCE_ONLY_SECONDS = 600.0
_SYMBOL_SECONDS = 60.0


BEGUN, ENDED = "risk.entries_held", "risk.entries_released"


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """Entries are held back: `what` is the account, reduce-only, a symbol or the bus, `because` the code for it."""

    what: str
    because: str
    since: float
    until: float


class EntryHolds:
    """Pure: time is an argument. A hold ends by itself, so that a venue that is well again is traded again."""

    def __init__(self) -> None:
        self._holds: dict[str, Hold] = {}
        self._told: dict[str, Hold] = {}

    def note(self, symbol: str, refusal: str, now: float) -> str | None:
        """Take in why an entry was refused; return which hold follows from that, if one does."""
        if refusal in ACCOUNT_CODES:
            return self._hold(ACCOUNT, refusal, now, now + _ACCOUNT_SECONDS)
        if refusal in REDUCE_ONLY_CODES:
            return self._hold(REDUCE_ONLY, refusal, now, now + _REDUCE_ONLY_SECONDS)
        if refusal in SYMBOL_CODES:
            self._hold(symbol, refusal, now, now + _SYMBOL_SECONDS)
            return SYMBOL
        return None

    def hold_bus(self, now: float, *, seconds: float) -> None:
        """Hold entries because the bus is down: so long at most, unless this is said again."""
        self._hold(BUS, BUS_DOWN, now, now + seconds)

    def release_bus(self, now: float) -> None:
        """Let entries out again, as far as the bus is concerned."""
        known = self._holds.pop(BUS, None)
        if known is not None and BUS in self._told:
            self._told[BUS] = replace(known, until=min(known.until, now))

    def blocks(self, symbol: str, now: float) -> bool:
        """Whether nothing may be entered in a symbol at present."""
        return bool(self.blocked_by(symbol, now))

    def blocked_by(self, symbol: str, now: float) -> str:
        """Return which hold keeps entries in a symbol back at present, empty where none does."""
        kinds = {ACCOUNT: ACCOUNT, REDUCE_ONLY: REDUCE_ONLY, BUS: BUS, symbol: SYMBOL}
        return next((kind for key, kind in kinds.items() if key in self._holds and self._holds[key].until > now), "")

    def standing(self, now: float) -> Mapping[str, float]:
        """Return what is held, and for how many more seconds."""
        return MappingProxyType({one.what: one.until - now for one in self.held(now)})

    def held(self, now: float) -> tuple[Hold, ...]:
        """Return the holds that stand."""
        return tuple(one for one in self._holds.values() if one.until > now)

    def news(self, now: float) -> list[Noted]:
        """Return what began and what ended since this was last asked, as the journal's events; each is told once."""
        standing = {one.what: one for one in self.held(now)}
        told: list[Noted] = []
        for what, earlier in list(self._told.items()):
            current = standing.get(what)
            # One that stands may be another: the earlier ended between two looks.
            if current is None or current.since != earlier.since:
                told.append(_ended(earlier))
                del self._told[what]
        for what, hold in standing.items():
            if what not in self._told:
                told.append(_begun(hold, now))
            self._told[what] = hold
        return told

    def _hold(self, key: str, because: str, now: float, until: float) -> str:
        known = self._holds.get(key)
        if known is None or known.until <= now:
            self._holds[key] = Hold(what=key, because=because, since=now, until=until)
        else:
            self._holds[key] = replace(known, because=because, until=max(known.until, until))
        return key


def _begun(hold: Hold, now: float) -> Noted:
    detail = {"what": hold.what, "because": hold.because, "seconds": f"{hold.until - now:.0f}"}
    return Noted(event_type=BEGUN, detail=detail)


def _ended(hold: Hold) -> Noted:
    return Noted(event_type=ENDED, detail={"what": hold.what, "held_seconds": f"{hold.until - hold.since:.0f}"})
