"""Where the files of a bulk archive lie: in a folder, or behind an address."""

from __future__ import annotations

import http.client
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

from feature_store.errors import BadInputError, VenueUnavailableError

LARGEST_BYTES = 64 * 1024 * 1024
"""A month of 1m candles takes about 3 MB packed and 7 MB unpacked."""
_ATTEMPTS = 4
_NOT_THERE = (403, 404)


class ArchiveFiles(Protocol):
    """Files by their path below the archive's root, `data/spot/monthly/klines/…`."""

    @property
    def origin(self) -> str:
        """The root, as a path or an address."""

    def content(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""


@dataclass(frozen=True, slots=True)
class Folder:
    """An archive that was copied to disk."""

    root: Path

    @property
    def origin(self) -> str:
        """The resolved path."""
        return str(self.root.resolve())

    def content(self, name: str) -> bytes | None:
        """Return a file's bytes, or None where there is none."""
        try:
            with (self.root / name).open("rb") as file:
                return _within_bounds(file.read(LARGEST_BYTES + 1), name)
        except FileNotFoundError:
            return None


@dataclass(frozen=True, slots=True)
class Address:
    """An archive behind http or https; what fails on its way is asked for again."""

    url: str
    pause: Callable[[float], None] = time.sleep

    def __post_init__(self) -> None:
        if urlsplit(self.url).scheme not in ("http", "https"):
            raise BadInputError(f"Expected an address that begins with http:// or https://, found {self.url!r}")

    @property
    def origin(self) -> str:
        """The address."""
        return self.url.rstrip("/")

    def content(self, name: str) -> bytes | None:
        """
        Return a file's bytes, or None where there is none.

        Raises:
            VenueUnavailableError: The server did not answer, or not whole, after several attempts.
        """
        address = f"{self.origin}/{name}"
        for attempt in range(_ATTEMPTS):
            if attempt:
                self.pause(0.5 * 2**attempt)
            try:
                with urllib.request.urlopen(address, timeout=30) as answer:  # noqa: S310 - the scheme is checked above
                    return _within_bounds(_whole(answer), name)
            except urllib.error.HTTPError as error:
                if error.code in _NOT_THERE:
                    return None
                failure: Exception = error
            except (OSError, http.client.HTTPException) as error:
                failure = error
        raise VenueUnavailableError(
            f"{address} could not be read ({failure}). What was imported stays; run the same command again to go on"
        ) from failure


def _whole(answer: http.client.HTTPResponse) -> bytes:
    """Read an answer; a bounded read does not notice by itself that a connection broke."""
    content = answer.read(LARGEST_BYTES + 1)
    stated = answer.headers.get("Content-Length", "")
    if stated.isdigit() and len(content) < min(int(stated), LARGEST_BYTES):
        raise http.client.IncompleteRead(content, int(stated) - len(content))
    return content


def _within_bounds(content: bytes, name: str) -> bytes:
    if len(content) > LARGEST_BYTES:
        raise BadInputError(f"{name} is larger than {LARGEST_BYTES // 2**20} MiB; no archive of candles is")
    return content
