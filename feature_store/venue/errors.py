"""What a venue's error means for us: one class for each reaction."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp

from feature_store.errors import QuantumError, VenueUnavailableError
from feature_store.venue.ccxt_package import ccxt

LOCAL_OPTION = "isLocalExchange"
"""Our note among a client's options: whether QT_VENUE_URL says where it sends its requests."""

_CODE = re.compile(r'"code"\s*:\s*"?(-?\d+)')
_STATUS = re.compile(r"https?://\S+ (\d{3})\b")
_BANNED_UNTIL = re.compile(r"banned until (\d{13})")

_DEFAULT_RETRY_AFTER_SECONDS = {"429": 5.0, "418": 120.0}
_FORBIDDEN = {"403", "451"}
_OVERLOADED = -1008  # "Server is currently overloaded": proved not executed.
_WRONG_KEY = {-1002, -1022, -2008, -2014, -2015}
_DUPLICATE_ID = -4116  # The order is there already.
_REDUCE_ONLY_MODE = -4400


class VenueError(QuantumError):
    """The venue, or the way to it, failed; `code` is the venue's own number where it gave one."""

    def __init__(self, message: str, *, code: int | None = None) -> None:
        super().__init__(message)
        self.code = code


class RetryableError(VenueError):
    """Nothing happened; asking again is safe."""


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
    text = str(error) or type(error).__name__
    code, status = _number(_CODE, text), _first(_STATUS, text)
    if code in _WRONG_KEY or status in _FORBIDDEN:
        return AccountError(
            f"The venue refuses this key or address ({text[:300]}); check QT_API_KEY, QT_API_SECRET and their rights",
            code=code,
        )
    if isinstance(error, ccxt.DDoSProtection | ccxt.RateLimitExceeded):
        wait = _retry_after_seconds(text, status, exchange)
        return RateLimitedError(
            f"Asked too often, wait {wait:.0f} s ({text[:300]})", code=code, retry_after_seconds=wait
        )
    if isinstance(error, ccxt.ExchangeError):
        return _refusal(error, text, code, sending=sending)
    return _failure(error, text, code, sending=sending, way=_way_to(exchange))


def _refusal(error: ccxt.ExchangeError, text: str, code: int | None, *, sending: bool) -> VenueError:
    if sending and code == _DUPLICATE_ID:
        return OutcomeUnknownError(f"An order with this client order id exists; query it ({text[:300]})", code=code)
    if isinstance(error, ccxt.AuthenticationError) and not (sending and code == _REDUCE_ONLY_MODE):
        return AccountError(f"The venue refuses the account ({text[:300]}); check the key and its rights", code=code)
    if isinstance(error, ccxt.OrderNotFound):
        return OrderNotFoundError(f"The venue does not know the order ({text[:300]})", code=code)
    if sending:
        return OrderRefusedError(f"The venue refused the order ({text[:300]})", code=code)
    return RequestRefusedError(f"The venue refused the request ({text[:300]})", code=code)


def _failure(error: BaseException, text: str, code: int | None, *, sending: bool, way: str) -> VenueError:
    if isinstance(error, ccxt.ChecksumError):
        return RetryableError(f"The order book did not add up; wait a moment and subscribe again ({text[:300]})")
    if isinstance(error, ccxt.InvalidNonce):
        return ClockError(f"The venue refused our timestamp; measure the clock offset again ({text[:300]})", code=code)
    if code == _OVERLOADED:
        return RetryableError(f"The venue is overloaded and did nothing ({text[:300]})", code=code)
    if sending and not _never_connected(error):
        return OutcomeUnknownError(f"No proof either way, the order may exist; query it ({text[:300]})", code=code)
    if isinstance(error, ccxt.NetworkError | OSError | asyncio.TimeoutError | aiohttp.ClientError):
        return VenueDownError(f"The venue does not answer; {way} ({text[:300]})", code=code)
    return RetryableError(f"The venue gave no usable answer ({text[:300]})", code=code)


def _way_to(exchange: Any) -> str:
    """Say what to look at when no answer comes: only the local exchange is where QT_VENUE_URL says."""
    if (getattr(exchange, "options", None) or {}).get(LOCAL_OPTION, True):
        return "check QT_VENUE_URL and the network"
    return "check the network; 'qtctl doctor' tells what it finds on the way there"


def _never_connected(error: BaseException) -> bool:
    return isinstance(error.__cause__ or error, aiohttp.ClientConnectorError | ConnectionRefusedError)


def _retry_after_seconds(text: str, status: str | None, exchange: Any) -> float:
    headers = getattr(exchange, "last_response_headers", None) or {}
    for name, value in headers.items():
        if name.lower() == "retry-after" and str(value).replace(".", "", 1).isdigit():
            return float(value)
    until_ms = _number(_BANNED_UNTIL, text)
    if until_ms is not None and exchange is not None:
        return max(1.0, (until_ms - float(exchange.milliseconds())) / 1000)
    return _DEFAULT_RETRY_AFTER_SECONDS.get(status or "", 5.0)


def _first(pattern: re.Pattern[str], text: str) -> str | None:
    found = pattern.search(text)
    return None if found is None else found.group(1)


def _number(pattern: re.Pattern[str], text: str) -> int | None:
    found = _first(pattern, text)
    return None if found is None else int(found)
