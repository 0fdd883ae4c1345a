"""The bundle's folder: regular files of bounded size under the names of the manifest, and nothing else."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from pathlib import Path

from inference.models.inspection.refusal import Fault, InspectionError, require

_MAX_ENTRIES = 256


def read_regular(path: Path, name: str, limit: int) -> bytes:
    """
    Return the bytes of a regular file, at most `limit` of them; links are not followed, pipes and devices not read.

    Raises:
        InspectionError: There is no such file, it is no regular file, or it is larger.
    """
    try:
        # Not blocking: opening a pipe would wait for its writer.
        descriptor = os.open(path / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        if (path / name).is_symlink():
            raise InspectionError(
                Fault.NO_REGULAR_FILE, f"Bundle {path} needs a regular file {name}, found a link"
            ) from error
        raise InspectionError(
            Fault.UNREADABLE, f"Bundle {path} has no readable {name}: {error.strerror or error}"
        ) from error
    try:
        status = os.fstat(descriptor)
        require(
            stat.S_ISREG(status.st_mode),
            Fault.NO_REGULAR_FILE,
            f"Bundle {path} needs a regular file {name}, found something else",
        )
        require(
            status.st_size <= limit,
            Fault.OVERSIZE,
            f"Bundle {path} has a {name} of {status.st_size} bytes, at most {limit} were expected",
        )
        # One byte more than allowed: a file that grows meanwhile is noticed by its digest.
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(limit + 1)
    except OSError as error:
        raise InspectionError(Fault.UNREADABLE, f"Bundle {path}: {name} cannot be read: {error}") from error
    finally:
        os.close(descriptor)


def check_nothing_else(path: Path, names: Collection[str]) -> None:
    """
    Refuse a folder that holds anything which the manifest does not name; what is missing shows when it is read.

    Raises:
        InspectionError: There is such an entry, or the folder cannot be listed.
    """
    try:
        with os.scandir(path) as entries:
            found = [entry.name for entry, _ in zip(entries, range(_MAX_ENTRIES), strict=False)]
    except OSError as error:
        raise InspectionError(Fault.UNREADABLE, f"Bundle {path} cannot be listed: {error.strerror or error}") from error
    extra = sorted(set(found) - set(names))
    require(
        not extra,
        Fault.UNEXPECTED_FILE,
        lambda: f"Bundle {path} holds what its manifest does not name: {', '.join(map(repr, extra[:5]))}",
    )
