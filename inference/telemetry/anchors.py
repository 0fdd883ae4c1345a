"""Anchors of a journal that are kept elsewhere, as a person who verifies it finds them."""

from __future__ import annotations

import asyncio
import os
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import msgspec

from inference.domain.errors import JournalError
from inference.journal.anchor import EXPERIMENT, AnchorTag, anchor_key, journal_name
from inference.journal.head import Head, read_head
from inference.journal.keeping import set_aside_beside
from inference.telemetry.registry_address import registry_address

_TIMEOUT = aiohttp.ClientTimeout(total=10, connect=2)


class _Tag(msgspec.Struct, frozen=True):
    key: str
    value: str


class _Experiment(msgspec.Struct, frozen=True):
    tags: tuple[_Tag, ...] = ()


class _Answer(msgspec.Struct, frozen=True):
    experiment: _Experiment


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchorPlaces:
    """
    Where anchors are looked for. A file that was `named` has to be there; one of the settings may not be there yet.

    `name` is what the journal is called in MLflow, where that was said.
    """

    named: Path | None = None
    of_settings: Path | None = None
    mlflow_url: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class KeptAnchors:
    """What was found by where, what was set aside at a restore, and in words what was looked for in vain."""

    heads: dict[str, Head] = field(default_factory=dict)
    not_compared: tuple[str, ...] = ()
    set_aside: dict[str, Head | None] = field(default_factory=dict)


def places_of(named: Path | None, *, own: bool, home: Path, mlflow_url: str | None) -> AnchorPlaces:
    """
    Return where to look, of a journal that is the home's `own`, or of another.

    A copy that lies elsewhere may end earlier, and is held against nothing but the file that is named.
    """
    if not own:
        return AnchorPlaces(named=named)
    file = os.environ.get("QT_JOURNAL_ANCHOR")
    return AnchorPlaces(
        named=named,
        of_settings=Path(file) if file and named is None else None,
        mlflow_url=registry_address(home, mlflow_url or os.environ.get("QT_MLFLOW_URL")),
        name=os.environ.get("QT_JOURNAL_NAME") or None,
    )


def anchors_of(path: Path, places: AnchorPlaces) -> KeptAnchors:
    """
    Return every anchor that is kept of a journal elsewhere; a server that does not answer keeps nothing else from it.

    Raises:
        JournalError: A file that was named is not there, or cannot be read.
    """
    heads: dict[str, Head] = {}
    aside: dict[str, Head | None] = {}
    missing: list[str] = []
    for file in (places.named, places.of_settings):
        if file is None:
            continue
        aside |= {str(one): _readable(one) for one in set_aside_beside(file)}
        head = read_head(file)
        if head is not None:
            heads[str(file)] = head
        elif file is places.named:
            raise JournalError(f"There is no anchor at {file}; QT_JOURNAL_ANCHOR tells a worker where to keep one")
        else:
            missing.append(f"there is no anchor at {file} yet (QT_JOURNAL_ANCHOR)")
    if places.mlflow_url is not None:
        where = f"in MLflow at {places.mlflow_url}"
        try:
            tag = asyncio.run(_in_mlflow(places.mlflow_url, anchor_key(journal_name(path, places.name))))
        except (aiohttp.ClientError, TimeoutError, ValueError, msgspec.MsgspecError) as error:
            missing.append(f"the anchor {where} cannot be read ({type(error).__name__})")
        else:
            if tag is not None:
                heads[where] = tag.head
    return KeptAnchors(heads, tuple(missing), aside)


def _readable(path: Path) -> Head | None:
    try:
        return read_head(path)
    except (JournalError, OSError):
        return None


async def _in_mlflow(url: str, key: str) -> AnchorTag | None:
    address = f"{url.rstrip('/')}/api/2.0/mlflow/experiments/get-by-name"
    async with (
        aiohttp.ClientSession(timeout=_TIMEOUT) as session,
        session.get(address, params={"experiment_name": EXPERIMENT}) as answer,
    ):
        if answer.status == 404:
            return None
        answer.raise_for_status()
        found = msgspec.json.decode(await answer.read(), type=_Answer)
    texts = [one.value for one in found.experiment.tags if one.key == key]
    return msgspec.json.decode(texts[0].encode(), type=AnchorTag) if texts else None
