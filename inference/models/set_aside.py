"""Versions that may not trade in a home any more: files beside its bundles, which need no server to be obeyed."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from feature_store.files import replace_bytes
from feature_store.json_text import UNREADABLE

REJECTED = "rejected"
"""What the tag `status` says of a version that a rollback set aside."""
_FOLDER = "set-aside"
_DIGEST = re.compile(r"[0-9a-f]{64}")
_NUMBER = re.compile(r"[0-9A-Za-z]{1,20}")
_MAX_BYTES = 16 * 1024


class SetAside(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """
    A version that must not trade, and the cached one that takes its place.

    `digest` is of its bundle, `decided_at` ISO 8601 in UTC. `back_to` is the digest of the bundle that takes over,
    empty where none is named.
    """

    version: str
    digest: str
    decided_at: str = ""
    back_to: str = ""


def set_aside(bundles: Path, order: SetAside) -> None:
    """
    Note in a folder of bundles that a version may not trade; a second note keeps who takes over if it names nobody.

    Raises:
        OSError: The folder cannot be written.
        ValueError: Digest or number are not such.
    """
    path = _path(bundles, order.version, order.digest)
    if path is None:
        raise ValueError(f"A version has a number and a digest, was {order.version!r} and {order.digest!r}")
    known = found_aside(bundles, order.version, order.digest)
    if known is not None and not order.back_to:
        order = msgspec.structs.replace(order, back_to=known.back_to)
    replace_bytes(path, msgspec.json.encode(order))


def found_aside(bundles: Path, version: str, digest: str) -> SetAside | None:
    """
    Return the order that sets a version aside, None where there is none.

    The file's name suffices: what cannot be read sets aside too, without a time and without anybody to take over.
    """
    path = _path(bundles, version, digest)
    if path is None or not (path.exists() or path.is_symlink()):
        return None
    bare = SetAside(version=version, digest=digest)
    try:
        if not path.is_file() or path.is_symlink() or path.stat().st_size > _MAX_BYTES:
            return bare
        order = msgspec.json.decode(path.read_bytes(), type=SetAside)
    except (OSError, *UNREADABLE):
        return bare
    return order if (order.version, order.digest) == (version, digest) else bare


def let_again(bundles: Path, version: str, digest: str) -> None:
    """Forget that a version was set aside; nothing happens where it was not, or where it cannot be forgotten."""
    path = _path(bundles, version, digest)
    try:
        if path is not None:
            path.unlink(missing_ok=True)
    except OSError:
        return  # It is asked again each time; the registry's word stays the newer one.


def is_set_aside(order: SetAside | None, tags: Mapping[str, str]) -> bool:
    """
    Tell whether a version may not trade, by the order of this home and by the registry's tags.

    The tag `status` decides where it says `rejected`. An order of this home holds until the gates passed the version
    after it: the registry may not have heard of the order yet.
    """
    if tags.get("status") == REJECTED:
        return True
    if order is None:
        return False
    return tags.get("gate_verdict") != "passed" or not _is_after(tags.get("judged_at", ""), order.decided_at)


def _is_after(moment: str, other: str) -> bool:
    try:
        return datetime.fromisoformat(moment) > datetime.fromisoformat(other)
    except (ValueError, TypeError):
        return False  # One is no moment, or only one of them says of which zone.


def _path(bundles: Path, version: str, digest: str) -> Path | None:
    if _DIGEST.fullmatch(digest) is None or _NUMBER.fullmatch(version) is None:
        return None
    return bundles / _FOLDER / f"{digest}-{version}.json"
