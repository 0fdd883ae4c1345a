"""Asking a web server for a bounded answer: patient with hiccups, obedient to rate limits, careful with keys."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import msgspec

from feature_store.context.source import SourceError
from feature_store.errors import BadInputError

LARGEST_BYTES = 8 * 1024 * 1024
_ATTEMPTS = 3
_TIMEOUT = aiohttp.ClientTimeout(total=30, connect=10)
_LEAST_PAUSE_MS = 60_000
_SHOWN = 80
_Form = TypeVar("_Form")


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server answered; `body` is whole."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True, slots=True)
class Web:
    """
    One server; errors that pass are asked about again, with growing pauses.

    `secrets` are headers with keys. They are sent to this server only, so a redirection is then refused; no message
    and no log holds them.
    """

    url: str
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)
    largest_bytes: int = LARGEST_BYTES
    pause: Callable[[float], Awaitable[None]] = asyncio.sleep

    def __post_init__(self) -> None:
        address = urlsplit(self.url)
        if address.scheme not in ("http", "https") or not address.hostname:
            raise BadInputError(f"Expected an address that begins with http:// or https://, found {self.url!r}")

    async def get(
        self,
        path: str = "",
        *,
        now_ms: int,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Answer:
        """
        Return the answer of one page: 200, or 304 where `headers` asked for what is new.

        Raises:
            SourceError: There was no such answer; it tells until when a rate limit wants us to wait.
        """
        address = f"{self.url.rstrip('/')}{path}" if path else self.url
        failure = ""
        for attempt in range(_ATTEMPTS):
            if attempt:
                await self.pause(2.0**attempt)
            try:
                answer = await self._ask(address, params or {}, {**(headers or {}), **self.secrets})
            except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
                failure = f"no whole answer ({type(error).__name__})"
                continue
            if answer.status < 500:
                return self._accepted(answer, now_ms)
            failure = f"status {answer.status}"
        raise SourceError(f"{self._host} failed {_ATTEMPTS} times: {failure}; it is asked again at the next run")

    async def _ask(self, address: str, params: Mapping[str, str], headers: Mapping[str, str]) -> Answer:
        async with (
            aiohttp.ClientSession(timeout=_TIMEOUT, headers={"User-Agent": "quantum-trader"}) as session,
            session.get(address, params=params, headers=headers, allow_redirects=not self.secrets) as answer,
        ):
            body = bytearray()
            async for chunk in answer.content.iter_chunked(64 * 1024):
                body += chunk
                if len(body) > self.largest_bytes:
                    raise SourceError(f"{self._host} answered with more than {self.largest_bytes // 1024} KiB")
            return Answer(answer.status, {key.lower(): value for key, value in answer.headers.items()}, bytes(body))

    def _accepted(self, answer: Answer, now_ms: int) -> Answer:
        match answer.status:
            case 200 | 304:
                return answer
            case 429:
                until_ms = not_before_ms(answer.headers, now_ms)
                wait = (until_ms - now_ms) // 1000
                raise SourceError(
                    f"{self._host} limits our rate; it is left alone for {wait} s", not_before_ms=until_ms
                )
            case 401 | 403:
                raise SourceError(f"{self._host} refuses us with status {answer.status}; check its key")
            case status if 300 <= status < 400:
                raise SourceError(f"{self._host} sends us elsewhere (status {status}); set its new address")
            case status:
                raise SourceError(f"{self._host} answered with status {status}")

    @property
    def _host(self) -> str:
        # A path or a query may hold a key.
        return urlsplit(self.url).netloc.rpartition("@")[2]

    def document(self, body: bytes, form: type[_Form]) -> _Form:
        """
        Read a JSON answer in the form that is expected.

        Raises:
            SourceError: It is something else.
        """
        try:
            return msgspec.json.decode(body, type=form, strict=False)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            start = body[:_SHOWN].decode("ascii", "replace")
            raise SourceError(f"{self._host} answered with another form ({error}), beginning {start!r}") from error


def not_before_ms(headers: Mapping[str, str], now_ms: int) -> int:
    """Return until when a rate limit asks us to wait; a minute where it does not say, a day at most."""
    wait_ms = _LEAST_PAUSE_MS
    after, reset = headers.get("retry-after", ""), headers.get("x-rate-limit-reset", "")
    if after.strip().isdecimal():
        wait_ms = _bounded(after) * 1000
    elif after:
        wait_ms = _moment_ms(after, now_ms + _LEAST_PAUSE_MS) - now_ms
    elif reset.strip().isdecimal():
        wait_ms = _bounded(reset) * 1000 - now_ms
    return now_ms + min(max(wait_ms, 1000), 86_400_000)


def _bounded(digits: str) -> int:
    return int(digits.strip()[:15])


def _moment_ms(text: str, default: int) -> int:
    try:
        return int(parsedate_to_datetime(text).timestamp() * 1000)
    except (ValueError, TypeError, OverflowError):
        return default


def folder_name(text: str) -> str:
    """Return a name that is fit for a folder."""
    return "".join(sign if sign.isascii() and (sign.isalnum() or sign in ".-") else "-" for sign in text).lower()


def optional(value: Any) -> str | None:
    """Return a text that says something, else None."""
    return value if isinstance(value, str) and value else None
