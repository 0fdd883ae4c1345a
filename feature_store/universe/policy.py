"""Reading a universe's rules: the policy from TOML, and the versioned lists of layer-1, layer-2 and megacap assets."""

from __future__ import annotations

import hashlib
from datetime import UTC, date, datetime
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from feature_store.errors import BadInputError
from feature_store.universe.selection import AssetClass, AssetLists, ListedAsset, Mode, UniversePolicy

T = TypeVar("T")


class _Dated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    asset: str
    since: date | None = None
    until: date | None = None


class _List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    always: list[str] = []
    dated: list[_Dated] = []


class _Lists(
    msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"layer_1": "layer-1", "layer_2": "layer-2"}
):
    version: str
    source: str
    layer_1: _List
    layer_2: _List
    megacap: _List


class _Filters(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    min_volume_24h: float | None = None
    min_liquidity: float | None = None
    min_age_days: float | None = None
    max_silence_minutes: float | None = None
    blacklist: list[str] | None = None
    whitelist: list[str] | None = None
    quotes: list[str] | None = None


class _Policy(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    mode: Mode | None = None
    max_symbols: int | None = None
    symbols: list[str] | None = None
    filters: _Filters = _Filters()
    lists: str | None = None


class _File(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    universe: _Policy = _Policy()


class Rules(msgspec.Struct, frozen=True):
    """A policy with the lists that it is applied with."""

    policy: UniversePolicy
    lists: AssetLists

    @property
    def fingerprint(self) -> str:
        """A digest over every rule and every list entry: universes made by the same rules share it."""
        return hashlib.sha256(msgspec.json.encode(self, order="deterministic")).hexdigest()


def read_rules(path: Path | None = None) -> Rules:
    """
    Return the rules of a TOML file, or without one the defaults; what the file leaves out keeps its default.

    The file has a table `universe` with mode, max_symbols, symbols and lists (another file of lists, beside it), and a
    table `universe.filters` with the thresholds, blacklist, whitelist and quotes.

    Raises:
        BadInputError: A file cannot be read, or says something unknown or impossible.
    """
    if path is None:
        return Rules(UniversePolicy(), default_lists())
    chosen = _decode(_text(path), _File, str(path)).universe
    values: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value
        for part in (chosen, chosen.filters)
        for name, value in msgspec.structs.asdict(part).items()
        if value is not None and name not in ("filters", "lists")
    }
    lists = default_lists() if chosen.lists is None else read_lists(path.parent / chosen.lists)
    try:
        return Rules(UniversePolicy(**values), lists)
    except BadInputError as error:
        raise BadInputError(f"Unusable universe policy {path}: {error}") from None


@cache
def default_lists() -> AssetLists:
    """Return the lists that come with this version."""
    return _lists((resources.files("feature_store.universe") / "lists.toml").read_text(encoding="utf-8"), "lists.toml")


def read_lists(path: Path) -> AssetLists:
    """
    Return the lists of a TOML file of the form of `lists.toml`.

    Raises:
        BadInputError: It cannot be read, or says something unknown.
    """
    return _lists(_text(path), str(path))


def _lists(text: str, name: str) -> AssetLists:
    read = _decode(text, _Lists, name)
    parts = {AssetClass.LAYER_1: read.layer_1, AssetClass.LAYER_2: read.layer_2, AssetClass.MEGACAP: read.megacap}
    members = {}
    for asset_class, one in parts.items():
        always = [ListedAsset(asset) for asset in one.always]
        dated = [ListedAsset(entry.asset, _ms(entry.since), _ms(entry.until)) for entry in one.dated]
        members[asset_class] = tuple(sorted([*always, *dated], key=lambda entry: (entry.asset, entry.since_ms or 0)))
    return AssetLists(read.version, members)


def _ms(day: date | None) -> int | None:
    return None if day is None else int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp() * 1000)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError(f"Cannot read {path} ({error}); QT_UNIVERSE names a TOML file of universe rules") from None


def _decode(text: str, form: type[T], name: str) -> T:
    try:
        return msgspec.toml.decode(text, type=form)
    except msgspec.DecodeError as error:  # ValidationError is one of them.
        raise BadInputError(f"{name} is not what universe rules look like: {error}") from None
