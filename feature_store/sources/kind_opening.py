"""Which source of market data beside candles a path or an address is."""

from __future__ import annotations

from pathlib import Path

from feature_store.errors import BadInputError
from feature_store.kinds.definition import KINDS, Kind
from feature_store.sources.kind_archive import KindArchive
from feature_store.sources.kind_freqtrade import FreqtradeKinds
from feature_store.sources.kind_importing import KindSelection, KindSource
from feature_store.sources.kind_offers import TRADE_KINDS, means_all, named_kinds
from feature_store.sources.kind_recordings import KindRecordings
from feature_store.sources.opening import SourceKind, recognised


def kinds_to_import(text: str) -> tuple[Kind, ...]:
    """
    Return the kinds that a person named; `trades` are single and aggregated ones.

    Raises:
        BadInputError: A name is unknown, or none is given.
    """
    names = named_kinds(text)
    if means_all(text):
        return KINDS
    return tuple(kind for kind in KINDS if kind.name in names or (kind in TRADE_KINDS and TRADE_KINDS[0].name in names))


def open_kinds(place: str, kind: SourceKind | None, selection: KindSelection, *, now_ms: int, days: int) -> KindSource:
    """
    Return the source of market data at a path or an address.

    Raises:
        BadInputError: There is nothing of the kind.
    """
    if "://" in place:
        if kind not in (None, "binance-archive"):
            raise BadInputError(f"Only a binance-archive is read from an address; copy {place} and name the folder")
        return KindArchive.at_address(place, selection, now_ms=now_ms, days=days)
    if not place.strip():
        raise BadInputError("The place to import from is empty; name a file, a folder or an address")
    path = Path(place).expanduser()
    if not path.exists():
        raise BadInputError(f"There is no file or folder {path}")
    match kind or recognised(path):
        case "binance-archive":
            return KindArchive.in_folder(path)
        case "freqtrade":
            return FreqtradeKinds(path)
        case _:
            return KindRecordings(path)
