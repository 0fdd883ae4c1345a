"""Which kind of source a path or an address is."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from feature_store.errors import BadInputError
from feature_store.sources import freqtrade
from feature_store.sources.binance_archive import BinanceArchive
from feature_store.sources.columns import ColumnMap
from feature_store.sources.freqtrade import FreqtradeFolder
from feature_store.sources.importing import CandleSource, Selection
from feature_store.sources.mapped import MappedFiles
from feature_store.sources.recorded import ENDINGS as RECORDED
from feature_store.sources.recordings import Recordings

SourceKind = Literal["binance-archive", "freqtrade", "recording"]


def open_source(
    place: str,
    kind: SourceKind | None = None,
    *,
    selection: Selection,
    now_ms: int,
    days: int,
    columns: str | None = None,
) -> CandleSource:
    """
    Return the source of candles at a path or an address.

    Args:
        place: A file, a folder, or an address that begins with http.
        kind: What it is; recognised by the files in it, if None.
        selection: What is wanted of it; an address needs symbols and a timeframe.
        now_ms: The present.
        days: How far back an address is asked.
        columns: Which column of a recording is which of ours; called as ours are, if None.

    Raises:
        BadInputError: There is nothing of the kind.
    """
    if columns is not None and ("://" in place or kind not in (None, "recording")):
        raise BadInputError("Columns are told of recordings only: Parquet and CSV files in a folder")
    if "://" in place:
        if kind not in (None, "binance-archive"):
            raise BadInputError(f"Only a binance-archive is read from an address; copy {place} and name the folder")
        return BinanceArchive.at_address(place, selection, now_ms=now_ms, days=days)
    if not place.strip():
        raise BadInputError("The place to import from is empty; name a file, a folder or an address")
    path = Path(place).expanduser()
    if not path.exists():
        raise BadInputError(f"There is no file or folder {path}")
    if columns is not None:
        return MappedFiles(path, ColumnMap.parse(columns), selection)
    match kind or recognised(path):
        case "binance-archive":
            return BinanceArchive.in_folder(path, selection.venue)
        case "freqtrade":
            return FreqtradeFolder(path, selection.venue)
        case _:
            return Recordings(path, selection)


def _kind_of(name: str) -> SourceKind | None:
    if name.endswith(".zip"):
        return "binance-archive"
    # freqtrade writes Parquet too: there the name tells.
    if name.endswith(freqtrade.ENDINGS) and (not name.endswith(RECORDED) or freqtrade.is_named(name)):
        return "freqtrade"
    return "recording" if name.endswith(RECORDED) else None


def recognised(path: Path) -> SourceKind:
    """
    Return the one kind of which there are files.

    Raises:
        BadInputError: There are none, or of several kinds.
    """
    names = [path.name] if path.is_file() else [one.name for one in path.rglob("*") if one.is_file()]
    kinds = sorted({kind for name in names if (kind := _kind_of(name)) is not None})
    if len(kinds) == 1:
        return kinds[0]
    found = " and ".join(kinds) if kinds else "no candle file that we can read"
    raise BadInputError(f"{path} holds {found}; name one with --kind: {', '.join(get_args(SourceKind))}")
