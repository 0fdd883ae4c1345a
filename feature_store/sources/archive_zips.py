"""The zip files of a bulk archive: their checksums, what is in them, and the months and days in their names."""

from __future__ import annotations

import hashlib
import io
import re
import zipfile
import zlib
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from feature_store.errors import BadInputError
from feature_store.sources.archive_files import ArchiveFiles
from feature_store.sources.importing import Part


def checksum_in(text: bytes) -> str:
    """Return the SHA-256 of a checksum file, in the form that sha256sum writes; empty where it has none."""
    words = text.split()
    return words[0].decode().lower() if words and re.fullmatch(rb"[0-9a-fA-F]{64}", words[0]) else ""


def verified(files: ArchiveFiles, part: Part) -> bytes:
    """
    Return the bytes of an archive whose checksum holds.

    Raises:
        BadInputError: There is no checksum, no archive, or they do not belong together.
    """
    if not part.fingerprint:
        raise BadInputError(f"{part.name}: there is no usable {Path(part.name).name}.CHECKSUM beside it; get it too")
    content = files.content(part.name)
    if content is None:
        raise BadInputError(f"{part.name}: there is a checksum but no archive; get it again")
    found = hashlib.sha256(content).hexdigest()
    if found != part.fingerprint:
        raise BadInputError(
            f"{part.name}: its checksum is {found[:12]}…, expected {part.fingerprint[:12]}…; get it again"
        )
    return content


def unpacked(content: bytes, path: str, expected: str, largest: int) -> bytes:
    """
    Return the one file of a zip; nothing is ever written under a name that the zip states.

    Raises:
        BadInputError: It is no whole zip, holds something else, or unpacks to more than is read at once.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as packed:
            names = packed.namelist()
            if names != [expected]:
                raise BadInputError(f"{path}: expected {expected} in it and nothing else, found {names[:3]}")
            with packed.open(names[0]) as file:
                text = file.read(largest + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError, OSError) as error:
        raise BadInputError(f"{path}: not a whole zip file ({error}); get it again") from error
    if len(text) > largest:
        raise BadInputError(f"{path}: unpacks to more than {largest // 2**20} MiB; no month of candles does")
    return text


def period_of(text: str, path: str, *, monthly: bool) -> tuple[int, int]:
    """
    Return when the month or day of a name begins and ends, in milliseconds.

    Raises:
        BadInputError: It is none.
    """
    try:
        begin = datetime.strptime(text, "%Y-%m" if monthly else "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise BadInputError(f"{path}: expected a {'month' if monthly else 'day'} at the end of its name") from error
    end = _next_month(begin) if monthly else begin + timedelta(days=1)
    return int(begin.timestamp() * 1000), int(end.timestamp() * 1000)


def months_from(begin: datetime, end: datetime) -> Iterator[datetime]:
    """Return the months that begin before a moment, from that of another on."""
    month = begin.replace(day=1)
    while month < end:
        yield month
        month = _next_month(month)


def days_of(month: datetime, today: datetime) -> Iterator[datetime]:
    """Return the days of a month that are over."""
    day = month
    while day < min(_next_month(month), today):
        yield day
        day += timedelta(days=1)


def _next_month(moment: datetime) -> datetime:
    return (moment.replace(day=1) + timedelta(days=32)).replace(day=1)
