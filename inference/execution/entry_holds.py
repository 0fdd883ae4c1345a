"""What the venue has said that forbids new entries for a while; exits and protection go on."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

ACCOUNT, REDUCE_ONLY, SYMBOL = "account", "reduce-only", "symbol"

# An account that is refused stays so until a person has looked; asking again and again is what venues ban for.
_ACCOUNT_SECONDS = 300.0
_REDUCE_ONLY_SECONDS = 600.0
_SYMBOL_SECONDS = 60.0
# The key or its rights, our address; the account may only reduce.
_ACCOUNT_CODES = frozenset({"AccountError", "-1002", "-1022", "-2008", "-2014", "-2015"})
_REDUCE_ONLY_CODE = "-4400"
# Of the symbol, not of the order: it does not trade, its leverage or margin mode cannot be had.
_SYMBOL_CODES = frozenset({"-4028", "-4046", "-4047", "-4048", "-4059", "-4061", "-4067", "-4068", "-4108", "-4140"})


class EntryHolds:
    """Pure: time is an argument. A hold ends by itself, so that a venue that is well again is traded again."""

    def __init__(self) -> None:
        self._until: dict[str, float] = {}

    def note(self, symbol: str, refusal: str, now: float) -> str | None:
        """Take in why an entry was refused; return which hold follows from that, if one does."""
        if refusal in _ACCOUNT_CODES:
            return self._hold(ACCOUNT, now + _ACCOUNT_SECONDS)
        if refusal == _REDUCE_ONLY_CODE:
            return self._hold(REDUCE_ONLY, now + _REDUCE_ONLY_SECONDS)
        if refusal in _SYMBOL_CODES:
            self._hold(symbol, now + _SYMBOL_SECONDS)
            return SYMBOL
        return None

    def blocks(self, symbol: str, now: float) -> bool:
        """Whether nothing may be entered in a symbol at present."""
        return bool(self.blocked_by(symbol, now))

    def blocked_by(self, symbol: str, now: float) -> str:
        """Return which hold keeps entries in a symbol back at present, empty where none does."""
        kinds = {ACCOUNT: ACCOUNT, REDUCE_ONLY: REDUCE_ONLY, symbol: SYMBOL}
        return next((kind for key, kind in kinds.items() if self._until.get(key, 0.0) > now), "")

    def standing(self, now: float) -> Mapping[str, float]:
        """Return what is held, and for how many more seconds."""
        return MappingProxyType({key: until - now for key, until in self._until.items() if until > now})

    def _hold(self, key: str, until: float) -> str:
        self._until[key] = max(self._until.get(key, 0.0), until)
        return key
