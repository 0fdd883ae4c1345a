"""
The emergency stop's latch: files of the home, which need no database, no registry and no worker to be obeyed.

Each stop is a file of its own, written to the disk before anything else is done; each reset names the stops that it
ends. Nothing is ever rewritten, so that a person and a worker cannot overwrite each other. A stop whose file cannot be
read is one all the same; a reset whose file cannot be read ends nothing.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import msgspec

from feature_store.files import replace_bytes
from feature_store.json_text import UNREADABLE
from inference.risk.emergency import Action, Evaluator

FOLDER = "emergency"
_STOP = re.compile(r"stop-([0-9a-z-]{1,80})\.json")
_RESET = re.compile(r"reset-([0-9a-z-]{1,80})\.json")
_KEY = re.compile(r"[0-9a-z-]{1,80}")
_MAX_BYTES = 64 * 1024
T = TypeVar("T")
MAX_REASON = 500


class StopOrder(msgspec.Struct, frozen=True, kw_only=True):
    """
    One emergency stop: who set it off, why, and what is to be done.

    `at` is ISO 8601 in UTC, `by` who asked: a person's name, or the worker's evaluator. `numbers` are those compared.
    """

    key: str
    evaluator: Evaluator
    reason: str
    actions: tuple[Action, ...]
    at: str = ""
    by: str = ""
    numbers: dict[str, str] = {}


class ResetOrder(msgspec.Struct, frozen=True, kw_only=True):
    """A person's word that trading may go on: the stops that it ends, why, and who said so."""

    key: str
    stops: tuple[str, ...]
    reason: str
    at: str = ""
    by: str = ""


@dataclass(frozen=True, slots=True)
class LatchFiles:
    """What lies in the folder: stops in the order of their keys, and resets."""

    stops: tuple[StopOrder, ...] = ()
    resets: tuple[ResetOrder, ...] = ()

    @property
    def standing(self) -> tuple[StopOrder, ...]:
        """The stops that no reset ends."""
        ended = {key for reset in self.resets for key in reset.stops}
        return tuple(one for one in self.stops if one.key not in ended)


class Latch:
    """The folder of one home. It is asked several times a second: files are read again only when names changed."""

    def __init__(self, home: Path) -> None:
        self.folder = home / FOLDER
        self._seen: tuple[tuple[str, ...], LatchFiles] = ((), LatchFiles())

    def stop(self, order: StopOrder) -> None:
        """
        Write a stop; it is on the disk when this returns.

        Raises:
            OSError: The folder cannot be written.
            ValueError: Its key is none.
        """
        self._write(f"stop-{_checked(order.key)}.json", msgspec.json.encode(order))

    def reset(self, order: ResetOrder) -> None:
        """
        Write a reset; it is on the disk when this returns.

        Raises:
            OSError: The folder cannot be written.
            ValueError: Its key is none.
        """
        self._write(f"reset-{_checked(order.key)}.json", msgspec.json.encode(order))

    def read(self) -> LatchFiles:
        """
        Return what lies there; a folder that is not there holds nothing.

        Raises:
            OSError: The folder is there and cannot be read: whether anything is latched is not known.
        """
        try:
            names = tuple(sorted(entry.name for entry in os.scandir(self.folder)))
        except FileNotFoundError:
            names = ()
        if names != self._seen[0]:
            self._seen = names, self._read_all(names)
        return self._seen[1]

    def remove(self, keys: Iterable[str]) -> None:
        """Take away stops and resets that a journal holds; what cannot be taken away stays and changes nothing."""
        for key in keys:
            for kind in ("stop", "reset"):
                path = self.folder / f"{kind}-{key}.json"
                try:
                    path.unlink(missing_ok=True)
                except OSError:
                    continue

    def _write(self, name: str, content: bytes) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        replace_bytes(self.folder / name, content)

    def _read_all(self, names: Iterable[str]) -> LatchFiles:
        stops, resets = [], []
        for name in names:
            if found := _STOP.fullmatch(name):
                stops.append(_stop_of(self.folder / name, found[1]))
            elif found := _RESET.fullmatch(name):
                reset = _reset_of(self.folder / name, found[1])
                if reset is not None:
                    resets.append(reset)
        return LatchFiles(stops=tuple(stops), resets=tuple(resets))


def key_of(at: str, source: str) -> str:
    """Return the key of a stop or reset from its moment and who asks: keys sort by time."""
    moment = "".join(letter for letter in at if letter.isdigit())[:17]
    words = re.sub(r"[^0-9a-z]+", "-", source.lower()).strip("-")
    return f"{moment}-{words}"[:80]


def _checked(key: str) -> str:
    if _KEY.fullmatch(key) is None:
        raise ValueError(f"A key is made of digits, small letters and hyphens, was {key!r}")
    return key


def _stop_of(path: Path, key: str) -> StopOrder:
    order = _decoded(path, StopOrder)
    if order is not None and order.key == key:
        return order
    # The name suffices: what cannot be read stops too.
    actions = (Action.CANCEL_ENTRIES, Action.KEEP_STOPS, Action.ALERT)
    reason = f"{path.name} cannot be read, and a stop that cannot be read is one"
    return StopOrder(key=key, evaluator=Evaluator.MANUAL, reason=reason, actions=actions)


def _reset_of(path: Path, key: str) -> ResetOrder | None:
    order = _decoded(path, ResetOrder)
    return order if order is not None and order.key == key else None


def _decoded(path: Path, kind: type[T]) -> T | None:
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > _MAX_BYTES:
            return None
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, *UNREADABLE):
        return None
