"""What to do about a request that failed, from what is known of its end; pure, so that a table can hold every case."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Reaction(StrEnum):
    """What to do next. Only UNKNOWN leaves open whether an order exists; of the others each says that none came."""

    # Nothing happened; ask again, later each time.
    RETRY = "RETRY"
    # The venue understood and said no.
    REFUSED = "REFUSED"
    # It does not know the order; right after sending this proves nothing.
    NOT_FOUND = "NOT_FOUND"
    # The order may exist: query it, and resend only once it provably cannot execute.
    UNKNOWN = "UNKNOWN"
    # The key, its rights or our address are refused: stop entries, tell a person.
    ACCOUNT = "ACCOUNT"
    # Measure the clock, then ask once more; asking again by itself would fail for ever.
    CLOCK = "CLOCK"
    # Nobody of this address asks anything until the venue's time is over.
    RATE_LIMIT = "RATE_LIMIT"
    # It does not answer: wait, later each time, and keep what protects positions.
    DOWN = "DOWN"


class Family(StrEnum):
    """What the client library took a failure for; the venue's own code, where there is one, knows better."""

    RATE = "RATE"
    AUTHENTICATION = "AUTHENTICATION"
    NOT_FOUND = "NOT_FOUND"
    REFUSAL = "REFUSAL"
    NONCE = "NONCE"
    BOOK = "BOOK"
    NO_ANSWER = "NO_ANSWER"
    UNCLEAR = "UNCLEAR"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """
    What is known of a failed request.

    `sending` says whether it could have created or changed an order, `left` whether it can have left this machine.
    `refuses_with_5xx` marks a venue that says no by the status 500 (Bitfinex); elsewhere a 5xx leaves it open.
    """

    family: Family
    code: int | None = None
    status: int | None = None
    sending: bool = False
    left: bool = True
    is_duplicate: bool = False
    refuses_with_5xx: bool = False


FORBIDDEN_STATUS = frozenset({403, 451})
"""The firewall and the law refuse an address, not a request: ccxt takes both for a venue that is down."""

LIMITED_STATUS = frozenset({418, 429})

_UNCLEAR, _DOWN = "unclear", "down"
# Codes whose meaning for us is not what ccxt's class says, or is lost where a host has another name: on any host but
# fapi.binance.com Binance's codes of futures come as a plain refusal.
_BY_CODE: dict[int, Reaction | str] = {
    # An error of the venue's inside: "execution status unknown", whatever the words.
    -1000: _UNCLEAR,
    -1001: _UNCLEAR,
    -1006: _UNCLEAR,
    -1007: _DOWN,
    # Busy, shutting down: said before the matching engine, yet nobody promises that.
    -1004: _UNCLEAR,
    -1016: _DOWN,
    -2020: _UNCLEAR,
    # Overloaded: the one that the venue documents as not executed.
    -1008: Reaction.RETRY,
    -1003: Reaction.RATE_LIMIT,
    -1015: Reaction.RATE_LIMIT,
    -1021: Reaction.CLOCK,
    # "Outside of the matching engine's recvWindow": the same clock, looked at later.
    -5028: Reaction.CLOCK,
    -1002: Reaction.ACCOUNT,
    -1005: Reaction.ACCOUNT,
    -1011: Reaction.ACCOUNT,
    -1022: Reaction.ACCOUNT,
    -1099: Reaction.ACCOUNT,
    -2008: Reaction.ACCOUNT,
    -2014: Reaction.ACCOUNT,
    # After a private call to spot that worked, ccxt takes this one for a rate limit.
    -2015: Reaction.ACCOUNT,
    -2017: Reaction.ACCOUNT,
    -4056: Reaction.ACCOUNT,
    -4057: Reaction.ACCOUNT,
    -4109: Reaction.ACCOUNT,
    -4192: Reaction.ACCOUNT,
    -2011: Reaction.NOT_FOUND,
    -2013: Reaction.NOT_FOUND,
    # ccxt: "operation failed", that is, try again. An order that meets these was looked at and not taken.
    -1112: Reaction.REFUSED,
    -2023: Reaction.REFUSED,
    -4045: Reaction.REFUSED,
    # A listen key that ran out says nothing of the account, though ccxt calls it authentication.
    -1125: Reaction.REFUSED,
    # Bitfinex's, none of them below zero. An error nobody there has a name for proves nothing.
    10000: _UNCLEAR,
    10020: Reaction.REFUSED,
    10100: Reaction.ACCOUNT,
    10112: Reaction.ACCOUNT,
    # Another request of the same key was quicker: this one was not looked at, and the next brings a larger nonce.
    10114: Reaction.RETRY,
    11000: Reaction.RATE_LIMIT,
    11010: Reaction.RATE_LIMIT,
    20060: _DOWN,
}
_DUPLICATE_ID = frozenset({-4116})
ACCOUNT_NUMBERS = frozenset(code for code, found in _BY_CODE.items() if found is Reaction.ACCOUNT)
"""The venues' numbers that are always of the account: the key, its rights, our address."""

REDUCE_ONLY_NUMBERS = frozenset({-4400, -4401, -4402, -4403})
"""The venue's numbers for an account that may only reduce."""

_SERVER_ERROR, _REQUEST_TIMEOUT = 500, 408


def reaction_to(failure: Failure) -> Reaction:
    """Return what to do about a failed request."""
    if not failure.left:
        return Reaction.DOWN
    found = _by_status(failure.status) or _by_code(failure) or _by_open_end(failure) or _BY_FAMILY[failure.family]
    return _settled(found, failure)


def _by_status(status: int | None) -> Reaction | None:
    if status in FORBIDDEN_STATUS:
        return Reaction.ACCOUNT
    return Reaction.RATE_LIMIT if status in LIMITED_STATUS else None


def _by_code(failure: Failure) -> Reaction | str | None:
    if failure.code in REDUCE_ONLY_NUMBERS:
        # Of an account that may only reduce, entries are refused, and reading is a matter of its rights.
        return Reaction.REFUSED if failure.sending else Reaction.ACCOUNT
    if failure.is_duplicate or failure.code in _DUPLICATE_ID:
        # An order of that id exists: ours, from a sending of which no answer came.
        return Reaction.UNKNOWN if failure.sending else Reaction.REFUSED
    return None if failure.code is None else _BY_CODE.get(failure.code)


def _by_open_end(failure: Failure) -> str | None:
    """Say that nothing is known: "execution status is unknown, NOT a failure", says the venue of every 5xx."""
    status = failure.status
    if status is None or failure.refuses_with_5xx:
        return None
    return _DOWN if status >= _SERVER_ERROR or status == _REQUEST_TIMEOUT else None


_BY_FAMILY: dict[Family, Reaction | str] = {
    Family.RATE: Reaction.RATE_LIMIT,
    Family.AUTHENTICATION: Reaction.ACCOUNT,
    Family.NOT_FOUND: Reaction.NOT_FOUND,
    Family.REFUSAL: Reaction.REFUSED,
    Family.NONCE: Reaction.CLOCK,
    Family.BOOK: Reaction.RETRY,
    Family.NO_ANSWER: _DOWN,
    Family.UNCLEAR: _UNCLEAR,
}


def _settled(found: Reaction | str, failure: Failure) -> Reaction:
    """Return what an end without proof means: of a sending that an order may exist, of a question to ask again."""
    if isinstance(found, Reaction):
        return found
    if failure.sending:
        return Reaction.UNKNOWN
    return Reaction.DOWN if found == _DOWN else Reaction.RETRY
