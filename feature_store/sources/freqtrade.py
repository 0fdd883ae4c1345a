"""
Candles that freqtrade downloaded: feather, parquet, json and json.gz files under user_data/data/<exchange>.

Files that are called as BTCUSDT_1m.json, with the same rows, are read too; their venue has to be told.
"""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError, UnknownTimeframeError
from feature_store.sources.importing import Part, Selection
from feature_store.sources.recorded import unified_name

ENDINGS = (".feather", ".parquet", ".json", ".json.gz")
_LARGEST_BYTES = 512 * 1024 * 1024
"""Ten years of 1m candles as json take about 400 MB."""
_NAME = re.compile(r"(?P<pair>[A-Za-z0-9_]+)-(?P<timeframe>\d+[a-zA-Z]{1,2})(?:-(?P<kind>[a-zA-Z_]+))?")
_SHORT_NAME = re.compile(r"(?P<symbol>[A-Z0-9]+)_(?P<timeframe>\d+[a-zA-Z]{1,2})\.json(\.gz)?")
LAYOUT = (
    "expected files as user_data/data/binance/BTC_USDT-5m.feather, futures/BTC_USDT_USDT-5m-futures.feather, or, with "
    "--venue, BTCUSDT_5m.json"
)
_REMEDY = "Download it again with freqtrade."
_Time = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
_Row = tuple[_Time, float, float, float, float, float]


@dataclass(frozen=True, slots=True)
class FreqtradeFolder:
    """
    A data folder of freqtrade, any folder above it, or a single file; `<PAIR>-<timeframe>[-futures].<ending>`.

    Where a venue is told, `<SYMBOL>_<timeframe>.json` too.
    """

    path: Path
    venue: str | None = None

    @property
    def origin(self) -> str:
        """The resolved path."""
        return str(self.path.resolve())

    @property
    def layout(self) -> str:
        """How the files are called."""
        return LAYOUT

    def missing(self, _parts: Sequence[Part]) -> Sequence[str]:
        """Return nothing: what is not there was not promised."""
        return ()

    def parts(self, selection: Selection) -> Sequence[Part]:
        """Return the candle files; mark prices, funding rates, trades and timeframes we lack are left out."""
        found = []
        for path in files_of(self.path):
            named = _series_of(path, self.venue)
            if named is not None and (isinstance(named, str) or selection.stored_as(named) is not None):
                status = path.stat()
                found.append(Part(str(path), f"{status.st_size}-{status.st_mtime_ns}"))
        return found

    def read(self, part: Part) -> Iterator[tuple[Series, CandleBlock]]:
        """Yield the one series of a file."""
        path = Path(part.name)
        series = _series_of(path, self.venue)
        if series is None or isinstance(series, str):
            raise BadInputError(f"{path}: {series or 'no candle file of freqtrade'}")
        block = candles_in(path)
        if len(block) == 0:
            raise BadInputError(f"{path} holds no candle")
        yield series, block


def candles_in(path: Path) -> CandleBlock:
    """
    Return the rows of a file, whatever they mean: freqtrade writes all it has in the columns of candles.

    Raises:
        BadInputError: They are no rows of times and numbers.
        CorruptFileError: The file is damaged.
    """
    return _json(path) if path.name.endswith((".json", ".json.gz")) else _columnar(path)


def is_named(name: str) -> bool:
    """Tell whether a file is called as freqtrade calls its candles."""
    return _NAME.fullmatch(_stem(name)) is not None


def files_of(path: Path) -> list[Path]:
    """Return the files that freqtrade may have written, in order."""
    if path.is_file():
        return [path.resolve()]
    return sorted(one for one in path.resolve().rglob("*") if one.is_file() and one.name.endswith(ENDINGS))


def _stem(name: str) -> str:
    return re.sub(r"\.(feather|parquet|json|json\.gz)$", "", name)


def _series_of(path: Path, venue: str | None) -> Series | str | None:
    """Return the series that a file's name states, None where it is none of ours, or what is wrong with the name."""
    short = _SHORT_NAME.fullmatch(path.name)
    if short is not None:
        return _short_named(short, venue)
    name = _NAME.fullmatch(_stem(path.name))
    if name is None or name["kind"] not in (None, "futures"):
        return None
    try:
        timeframe = Timeframe.parse(name["timeframe"])
    except UnknownTimeframeError:
        return None
    futures = name["kind"] == "futures"
    folder = path.parent.parent if path.parent.name == "futures" else path.parent
    match name["pair"].split("_"):
        case [base, quote] if not futures:
            return Series(folder.name, f"{base}/{quote}", timeframe)
        case [base, quote, settle] if futures:
            venue = "binanceusdm" if folder.name == "binance" and settle in ("USDT", "USDC") else folder.name
            return Series(venue, f"{base}/{quote}:{settle}", timeframe)
    return f"expected BASE_QUOTE-{timeframe} or BASE_QUOTE_SETTLE-{timeframe}-futures"


def _short_named(name: re.Match[str], venue: str | None) -> Series | str | None:
    try:
        timeframe = Timeframe.parse(name["timeframe"])
    except UnknownTimeframeError:
        return None
    if venue is None:
        return "its name does not say whose candles they are; say it with --venue"
    try:
        return Series(*unified_name(venue, name["symbol"]), timeframe)
    except BadInputError as error:
        return str(error)


def _columnar(path: Path) -> CandleBlock:
    form = path.suffix.removeprefix(".")
    try:
        with pa.OSFile(str(path), "rb") as file:
            table = pq.read_table(file) if form == "parquet" else pa.ipc.open_file(file).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole {form} file ({str(error)[:120]})", _REMEDY) from error
    needed = ("date", *COLUMNS)
    if set(table.column_names) != set(needed):
        raise BadInputError(f"{path} has the columns {', '.join(table.column_names)}; expected {', '.join(needed)}")
    try:
        times = _milliseconds(table["date"])
        values = np.column_stack([table[name].cast(pa.float64()).to_numpy() for name in COLUMNS])
    except (pa.ArrowException, ValueError, TypeError) as error:
        raise BadInputError(f"{path} holds something else than times and numbers ({str(error)[:120]})") from error
    return CandleBlock(times, values)


def _milliseconds(dates: Any) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    if pa.types.is_timestamp(dates.type):
        dates = dates.cast(pa.timestamp("ms", tz=dates.type.tz))
    elif not pa.types.is_integer(dates.type):
        raise TypeError(f"date is {dates.type}")
    if dates.null_count:
        raise ValueError("a date is missing")
    milliseconds: np.ndarray[tuple[int], np.dtype[np.int64]] = dates.cast(pa.int64()).to_numpy()
    return milliseconds


def _json(path: Path) -> CandleBlock:
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptFileError(path, f"not a whole file ({error})", _REMEDY) from error
    if len(content) > _LARGEST_BYTES:
        raise BadInputError(f"{path} unpacks to more than {_LARGEST_BYTES // 2**20} MiB; no candle file is that large")
    try:
        rows = msgspec.json.decode(content, type=list[_Row])
    except msgspec.ValidationError as error:
        raise BadInputError(
            f"{path}: expected rows of [time in ms, open, high, low, close, volume]: {error}"
        ) from error
    except msgspec.DecodeError as error:
        raise CorruptFileError(path, f"not whole JSON ({error})", _REMEDY) from error
    return CandleBlock.from_rows(rows)
