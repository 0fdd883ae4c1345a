"""Client order ids: derived from the trade, so that a second sending can never be a second order."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass

from inference.domain.order import Purpose

_LETTERS = {Purpose.ENTRY: "E", Purpose.STOP: "S", Purpose.TARGET: "T", Purpose.EXIT: "X"}
_PURPOSES = {letter: purpose for purpose, letter in _LETTERS.items()}
_OURS = re.compile(r"qt-(?P<trade_id>[a-z0-9]{1,24})-(?P<letter>[ESTX])(?P<attempt>[1-9][0-9]{0,5})")


@dataclass(frozen=True, slots=True, kw_only=True)
class OrderKey:
    """What a client order id of ours says."""

    trade_id: str
    purpose: Purpose
    attempt: int


def trade_id_of(origin: str) -> str:
    """Return the id of the one trade that `origin` (a signal's trace id) may become; it fits a client order id."""
    return hashlib.sha256(origin.encode()).hexdigest()[:20]


def client_order_id(trade_id: str, purpose: Purpose, attempt: int) -> str:
    """
    Return the id of one order of a trade; at most 36 characters of the venue's alphabet.

    Raises:
        ValueError: The trade id does not fit.
    """
    text = f"qt-{trade_id}-{_LETTERS[purpose]}{attempt}"
    if _OURS.fullmatch(text) is None:
        raise ValueError(
            f"A client order id needs a trade id of 1 to 24 characters a-z 0-9 and an attempt from 1, was {text!r}"
        )
    return text


def order_key(text: str) -> OrderKey | None:
    """Return what an id of ours says, or None for somebody else's."""
    found = _OURS.fullmatch(text)
    if found is None:
        return None
    return OrderKey(trade_id=found["trade_id"], purpose=_PURPOSES[found["letter"]], attempt=int(found["attempt"]))
