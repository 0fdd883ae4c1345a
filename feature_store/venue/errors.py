"""What a venue's error means for us: one class for each reaction."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import Any

import aiohttp

from feature_store.errors import QuantumError, VenueUnavailableError
from feature_store.venue.answers import Answer, answer_of, banned_for_s, plain_number
from feature_store.venue.ccxt_package import ccxt
from feature_store.venue.reactions import Failure, Family, Reaction, reaction_to

LOCAL_OPTION = "isLocalExchange"
"""Our note among a client's options: whether QT_VENUE_URL says where it sends its requests."""

_CODE = re.compile(r'"code"\s*:\s*"?(-?\d+)')
_STATUS = re.compile(r"https?://\S+ (\d{3})\b")
# Spot has one code for every new order that it refuses, one whose id is taken among them.
_NEW_ORDER_REJECTED, _DUPLICATE_WORDS = -2010, "duplicate order"

# Bitfinex answers an error as an array. One number is for nearly everything there, a key without rights and an order
# that is refused alike; ccxt takes all of it for the key.
_ERROR_ARRAY = re.compile(r'\s*\[\s*"error"\s*,\s*"?(\d+)')
_GENERIC, _OF_THE_KEY = 10_001, re.compile(r"permission|api_?key|\bip\b", re.IGNORECASE)
_DUPLICATE_CID, _NO_ORDER = "duplicate cid", "order not found"
_DEFAULT_RETRY_AFTER_SECONDS = {429: 5.0, 418: 120.0}
_REFUSES_WITH_5XX = "bitfinex"
_LONGEST_BAN_SECONDS = 3 * 86_400.0
# Of a connection that was never made, nothing can have been sent.
_NOT_CONNECTED = (
    aiohttp.ClientConnectorError,
    aiohttp.ConnectionTimeoutError,
    ConnectionRefusedError,
    socket.gaierror,
)


class VenueError(QuantumError):
    """The venue, or the way to it, failed; `code` is its own number where it gave one, a word where we refused."""

    def __init__(self, message: str, *, code: int | str | None = None) -> None:
        super().__init__(message)
        self.code = code


class RetryableError(VenueError):
    """Nothing happened; asking again is safe."""


class WithheldError(RetryableError):
    """It was kept back before it left us; the venue knows nothing of it and had no part in it."""


class RateLimitedError(RetryableError):
    """We asked too often: no request at all before `retry_after_seconds` have passed."""

    def __init__(self, message: str, *, code: int | None = None, retry_after_seconds: float) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class VenueDownError(RetryableError, VenueUnavailableError):
    """The venue does not answer, or says that it is under maintenance; nothing happened."""

    def __init__(self, message: str, *, code: int | None = None, retry_after_seconds: float | None = None) -> None:
        super().__init__(message, code=code)
        self.retry_after_seconds = retry_after_seconds


class ClockError(VenueError):
    """The venue refused our timestamp: measure the offset again, then retry."""


class AccountError(VenueError):
    """The key, its rights or our address are refused; asking again cannot help."""


class RequestRefusedError(VenueError):
    """The venue understood the request and refused it."""


class OrderNotFoundError(RequestRefusedError):
    """The venue does not know the order; right after sending, this proves nothing."""


class OrderRefusedError(RequestRefusedError):
    """The venue proved that it did not accept the order."""


class OutcomeUnknownError(VenueError):
    """The order may exist. Query it; resend only once it provably cannot execute."""


_MEANINGS: dict[Reaction, tuple[type[VenueError], str]] = {
    Reaction.RETRY: (RetryableError, "The venue gave no usable answer, and nothing happened; ask again later"),
    Reaction.REFUSED: (RequestRefusedError, "The venue refused the request"),
    Reaction.NOT_FOUND: (OrderNotFoundError, "The venue does not know the order"),
    Reaction.UNKNOWN: (OutcomeUnknownError, "No proof either way, the order may exist; query it"),
    Reaction.ACCOUNT: (
        AccountError,
        "The venue refuses this key, its rights or this address; check QT_API_KEY, QT_API_SECRET and their rights",
    ),
    Reaction.CLOCK: (ClockError, "The venue refused our timestamp; measure the clock offset again"),
}


class NotSentError(ccxt.ExchangeNotAvailable):  # type: ignore[misc]  # ccxt has no types
    """
    A request of ours that we kept back ourselves: nothing was sent, and `ours` says why.

    It is one of ccxt's, since it is raised inside ccxt: whoever calls ccxt is ready for those.
    """

    def __init__(self, ours: VenueError) -> None:
        super().__init__(str(ours))
        self.ours = ours


def translate(error: BaseException, *, sending: bool = False, exchange: Any = None) -> QuantumError:
    """
    Return our error for one that ccxt, or the network below it, raised.

    Args:
        error: What was raised; an error of ours is returned as it is.
        sending: Whether the request could have created or changed an order.
        exchange: The ccxt exchange, for the headers of its last answer.
    """
    if isinstance(error, QuantumError):
        return error
    if isinstance(error, NotSentError):
        return error.ours
    text = str(error) or type(error).__name__
    found = failure_of(error, sending=sending, exchange=exchange)
    reaction = reaction_to(found)
    code, said = found.code, text[:300]
    if reaction is Reaction.RATE_LIMIT:
        wait = _retry_after_seconds(text, error, found.status, exchange)
        return RateLimitedError(f"Asked too often, wait {wait:.0f} s ({said})", code=code, retry_after_seconds=wait)
    if reaction is Reaction.DOWN:
        return VenueDownError(f"The venue does not answer; {_way_to(exchange)} ({said})", code=code)
    if reaction is Reaction.REFUSED and sending:
        return OrderRefusedError(f"The venue refused the order ({said})", code=code)
    make, sentence = _MEANINGS[reaction]
    return make(f"{sentence} ({said})", code=code)


def failure_of(error: BaseException, *, sending: bool = False, exchange: Any = None) -> Failure:
    """Return what is known of a request from the error that ccxt, or the network below it, raised."""
    text = str(error) or type(error).__name__
    answer = answer_of(error)
    told = _first(_STATUS, text)
    is_array = str(getattr(exchange, "id", "")).startswith(_REFUSES_WITH_5XX)
    code = _number(_ERROR_ARRAY, answer.begins if answer is not None else text) if is_array else _number(_CODE, text)
    words = text.lower()
    return Failure(
        family=_family_of(error) if code != _GENERIC else _family_by_words(words),
        code=code,
        status=answer.status if answer is not None else (None if told is None else int(told)),
        sending=sending,
        left=not _never_connected(error),
        is_duplicate=(code == _NEW_ORDER_REJECTED and _DUPLICATE_WORDS in words)
        or (code == _GENERIC and _DUPLICATE_CID in words),
        # A page of HTML under the status 500 is no refusal there either.
        refuses_with_5xx=is_array and (answer is None or code is not None),
    )


def _family_by_words(words: str) -> Family:
    if _OF_THE_KEY.search(words):
        return Family.AUTHENTICATION
    return Family.NOT_FOUND if _NO_ORDER in words else Family.REFUSAL


def _family_of(error: BaseException) -> Family:
    if isinstance(error, ccxt.ExchangeError) and isinstance(error.__cause__, aiohttp.ClientError):
        # An answer that broke off: ccxt calls it a refusal, and it proves nothing.
        return Family.NO_ANSWER
    return next((family for kinds, family in _families() if isinstance(error, kinds)), Family.UNCLEAR)


def _families() -> tuple[tuple[Any, Family], ...]:
    # The first that fits: of ccxt's classes some stand below others.
    return (
        ((ccxt.DDoSProtection, ccxt.RateLimitExceeded), Family.RATE),
        (ccxt.AuthenticationError, Family.AUTHENTICATION),
        (ccxt.OrderNotFound, Family.NOT_FOUND),
        (ccxt.ExchangeError, Family.REFUSAL),
        (ccxt.ChecksumError, Family.BOOK),
        (ccxt.InvalidNonce, Family.NONCE),
        ((ccxt.NetworkError, OSError, asyncio.TimeoutError, aiohttp.ClientError), Family.NO_ANSWER),
    )


def _way_to(exchange: Any) -> str:
    """Say what to look at when no answer comes: only the local exchange is where QT_VENUE_URL says."""
    if (getattr(exchange, "options", None) or {}).get(LOCAL_OPTION, True):
        return "check QT_VENUE_URL and the network"
    return "check the network; 'qtctl doctor' tells what it finds on the way there"


def _never_connected(error: BaseException) -> bool:
    return isinstance(error.__cause__ or error, _NOT_CONNECTED)


def _retry_after_seconds(text: str, error: BaseException, status: int | None, exchange: Any) -> float:
    answer = answer_of(error) or Answer(0, getattr(exchange, "last_response_headers", None) or {})
    told = plain_number(answer.header("Retry-After"))
    if told is not None:
        return min(told, _LONGEST_BAN_SECONDS)
    banned = None if exchange is None else banned_for_s(text, float(exchange.milliseconds()))
    if banned is not None:
        return min(banned, _LONGEST_BAN_SECONDS)
    return _DEFAULT_RETRY_AFTER_SECONDS.get(status or 0, 5.0)


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return None if found is None else found.group(1)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = _first(pattern, text)
    return None if found is None else int(found)
