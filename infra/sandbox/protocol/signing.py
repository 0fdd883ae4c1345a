"""Who may ask: API key, signature and the age of a request."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import unquote_plus

from infra.sandbox.engine.errors import VenueError

MAX_RECV_WINDOW_MS = 60_000
DEFAULT_RECV_WINDOW_MS = 5_000
AHEAD_MS = 1_000


@dataclass(frozen=True, slots=True)
class Credentials:
    """The one API key this venue knows."""

    api_key: str
    api_secret: str

    def sign(self, payload: str) -> str:
        """Signature of a payload in hexadecimal."""
        return hmac.digest(self.api_secret.encode(), payload.encode(), "sha256").hex()


def check_key(credentials: Credentials, api_key: str | None) -> None:
    """Refuse a request without the right key."""
    if not api_key:
        raise VenueError(-2014, status=401)
    if api_key != credentials.api_key:
        raise VenueError(-2015, status=401)


def check_signature(credentials: Credentials, query: str, body: str) -> None:
    """
    Refuse a request whose signature is not that of query plus body.

    The live venue joins query and body without a separator; the signature itself may stand anywhere in either.
    """
    asked, in_query = _apart(query)
    sent, in_body = _apart(body)
    signature = in_query if in_body is None else in_body
    if not signature:
        raise VenueError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
    if not hmac.compare_digest(credentials.sign(asked + sent), signature):
        raise VenueError(-1022)


def check_payload(credentials: Credentials, values: Mapping[str, str]) -> None:
    """Refuse a request over a WebSocket whose signature is not that of its parameters, in the order of their names."""
    signature = values.get("signature")
    if not signature:
        raise VenueError(-1102, "Mandatory parameter 'signature' was not sent, was empty/null, or malformed.")
    payload = "&".join(f"{name}={values[name]}" for name in sorted(values) if name != "signature")
    if not hmac.compare_digest(credentials.sign(payload).encode(), signature.encode()):
        raise VenueError(-1022)


def _apart(raw: str) -> tuple[str, str | None]:
    """Return what was signed and the signature, None where there is none; of several, the last."""
    head, found, tail = raw.rpartition("&signature=")
    if found and "signature=" not in head and "&" not in tail:
        # Where clients put it, as a rule.
        return head, unquote_plus(tail)
    if "signature=" not in raw:
        return raw, None
    pairs = raw.split("&")
    signatures = [one.removeprefix("signature=") for one in pairs if one.startswith("signature=")]
    kept = "&".join(one for one in pairs if not one.startswith("signature="))
    return kept, unquote_plus(signatures[-1]) if signatures else None


@dataclass(frozen=True, slots=True)
class RequestClock:
    """The two clocks a request's timestamp may be read on."""

    venue_ms: int
    wall_ms: int
    speed: float
    # Whether the venue's time differs from the wall's, so that unmodified clients stamp with another clock.
    is_virtual: bool


def check_age(clock: RequestClock, timestamp_ms: int, recv_window_ms: int) -> None:
    """
    Refuse a request that is older than its window, or from the future.

    The window counts wall-clock time: on the venue's clock it is worth `speed` times as much.
    """
    if not 0 < recv_window_ms <= MAX_RECV_WINDOW_MS:
        raise VenueError(-1131, "recvWindow must be less than 60000.")
    scale = max(1.0, clock.speed)
    age = clock.venue_ms - timestamp_ms
    if -AHEAD_MS * scale < age <= recv_window_ms * scale:
        return
    wall_age = clock.wall_ms - timestamp_ms
    if clock.is_virtual and -AHEAD_MS < wall_age <= recv_window_ms:
        return
    if age < 0 and not (clock.is_virtual and wall_age > 0):
        raise VenueError(-1021, "Timestamp for this request was 1000ms ahead of the server's time.")
    raise VenueError(-1021)
