"""What changes an account leaves this process only while it is the account's one writer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from feature_store.venue.errors import WithheldError
from feature_store.venue.requests import Endpoint, Urgency, kind_of

# A stream's key is everybody's who knows the account, and renewing it changes nothing.
_HARMLESS = frozenset({"listenKey"})
# Whatever is private is a POST at Bitfinex, what is only read too.
_READS = "auth/r/"


class NotTheWriterError(WithheldError):
    """Another process may trade this account, or we cannot tell; nothing was sent."""


class EntriesBarredError(WithheldError):
    """No entry may leave any more; this one was not sent."""


class PrivateRequestError(WithheldError):
    """A client that has no account was about to make a request for one; nothing was sent."""


def refuse_private(exchange: Any) -> None:
    """Let a ccxt client make public requests only; what would need an account, streams of one included, is not sent."""
    sign = exchange.sign

    def sign_if_public(path: Any, api: Any = "public", method: Any = "GET", *rest: Any, **named: Any) -> Any:
        if kind_of(str(path), api, str(method), None).endpoint is not Endpoint.MARKET:
            raise PrivateRequestError(f"Nothing was sent: {path} is private, and paper trading asks nothing private")
        return sign(path, api, method, *rest, **named)

    exchange.sign = sign_if_public


def guard_writes(exchange: Any, check: Callable[[Urgency], str]) -> None:
    """
    Let `check` refuse every request of a ccxt client that would change the account; it returns why, or nothing.

    It is told how urgent the request is: what can only reduce risk is.

    It is asked once the request carries its timestamp: whatever holds the process up from then on, the venue refuses
    a request that comes later than its window, by which time nobody else trades yet.
    """
    sign = exchange.sign

    def sign_and_check(path: Any, api: Any = "public", method: Any = "GET", *rest: Any, **named: Any) -> Any:
        request = sign(path, api, method, *rest, **named)
        if method != "GET" and "rivate" in str(api) and path not in _HARMLESS and not str(path).startswith(_READS):
            params = rest[0] if rest else named.get("params")
            if reason := check(kind_of(str(path), api, str(method), params).urgency):
                raise NotTheWriterError(f"Nothing was sent: {reason}")
        return request

    exchange.sign = sign_and_check


def guard_entries(exchange: Any, why_barred: Callable[[], str]) -> None:
    """
    Let `why_barred` refuse every order of a ccxt client that is not sure to reduce; it returns why, or nothing.

    It is asked as the request is signed, after all that may have to be waited for: the venue's clock, leverage, room
    in a rate budget. What stops entries meanwhile stops this one.
    """
    sign = exchange.sign

    def sign_and_check(path: Any, api: Any = "public", method: Any = "GET", *rest: Any, **named: Any) -> Any:
        request = sign(path, api, method, *rest, **named)
        kind = kind_of(str(path), api, str(method), rest[0] if rest else named.get("params"))
        is_entry = kind.endpoint is Endpoint.ORDER and kind.urgency is not Urgency.URGENT
        if is_entry and (reason := why_barred()):
            raise EntriesBarredError(f"Nothing was sent: {reason}")
        return request

    exchange.sign = sign_and_check
