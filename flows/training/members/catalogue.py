"""
Which members there are: the files of this folder that define `MEMBER`.

Adding a member is adding a file. Names are read from the files without importing them, since torch and neuralforecast
take seconds and half a gigabyte, which no step but training should pay for.
"""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import flows.training.members as folder
from feature_store.errors import BadInputError

if TYPE_CHECKING:
    from flows.training.members.base import MemberSpec, MemberTrainer

_DEFINED = re.compile(r"^MEMBER\b", re.MULTILINE)


def names() -> tuple[str, ...]:
    """Return the names of all members there are, in alphabetical order."""
    found = set()
    for path in folder.__path__:
        for module in pkgutil.iter_modules([path]):
            if _DEFINED.search((Path(path) / f"{module.name}.py").read_text(encoding="utf-8")):
                found.add(module.name)
    return tuple(sorted(found))


def compared_names() -> tuple[str, ...]:
    """Return the names of the members that are always trained to be compared with; this imports all members."""
    return tuple(name for name in names() if spec(name).role == "compared")


def parse_members(text: str) -> tuple[str, ...]:
    """
    Read a comma list of members.

    Raises:
        BadInputError: One does not exist, is named twice, or none is named.
    """
    return checked(tuple(name.strip() for name in text.split(",") if name.strip()))


def checked(chosen: Sequence[str]) -> tuple[str, ...]:
    """
    Return chosen names as they are.

    Raises:
        BadInputError: One does not exist, is named twice, or none is named.
    """
    known = names()
    if not chosen:
        raise BadInputError(f"An ensemble needs at least one member; name some of {', '.join(known)}")
    for name in chosen:
        if name not in known:
            raise BadInputError(f"Unknown member {name!r}; choose from {', '.join(known)}")
    twice = sorted({name for name in chosen if list(chosen).count(name) > 1})
    if twice:
        raise BadInputError(f"A member is named once, {', '.join(twice)} was named twice")
    return tuple(chosen)


def spec(name: str) -> MemberSpec:
    """
    Import a member's file and return what it says of itself.

    Raises:
        BadInputError: There is no such member.
    """
    checked((name,))
    found: MemberSpec = importlib.import_module(f"{folder.__name__}.{name}").MEMBER
    return found


def trainer(name: str) -> MemberTrainer:
    """
    Return what fits a member.

    Raises:
        BadInputError: There is no such member.
    """
    return spec(name).fit
