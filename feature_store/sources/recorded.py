"""Recorded candles, as Parquet or CSV files, into the lake."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import numpy as np

from feature_store.candle import COLUMNS, CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, CorruptFileError
from feature_store.lake import CandleLake
from feature_store.partitions import runs
from feature_store.queries import query

NEEDED = ("exchange", "symbol", "timeframe", "ts", *COLUMNS)
_QUOTES = ("USDT", "USDC", "BUSD", "USD", "BTC", "ETH", "EUR")
_SWAP_VENUES = ("binance_usdm", "binanceusdm")

ENDINGS = (".parquet", ".csv")

Naming = Callable[[str, str], tuple[str, str]]


class LacksColumnsError(BadInputError):
    """A recording does not have all of the columns that a recording has."""


@dataclass(frozen=True, slots=True)
class Imported:
    """What one file brought."""

    path: Path
    rows: int
    appended: int
    series: tuple[Series, ...]


def unified_name(exchange: str, symbol: str) -> tuple[str, str]:
    """
    Return our venue and the unified symbol for a recorded name: `BTC/USDT:USDT` for a perpetual's `BTCUSDT`.

    Raises:
        BadInputError: The symbol does not end in a quote currency that we know.
    """
    if "/" in symbol:
        return ("binanceusdm" if exchange in _SWAP_VENUES else exchange), symbol
    quote = next((one for one in _QUOTES if symbol.endswith(one) and len(symbol) > len(one)), None)
    if quote is None:
        raise BadInputError(f"Cannot tell base and quote of {symbol!r}; write it as BASE/QUOTE in the file")
    unified = f"{symbol[: -len(quote)]}/{quote}"
    if exchange in _SWAP_VENUES:
        return "binanceusdm", f"{unified}:{quote}"
    return exchange, unified


def import_file(
    lake: CandleLake,
    path: Path,
    *,
    venue: str | None = None,
    naming: Naming = unified_name,
    progress: Callable[[Series, int], None] | None = None,
) -> Imported:
    """
    Append every series of a recorded file to the lake.

    Args:
        lake: Where the candles go.
        path: A Parquet or CSV file with the columns of `NEEDED`; `ts` is the open time in UTC milliseconds.
        venue: Store them under this venue instead of the recorded one.
        naming: Venue and unified symbol for a recorded exchange and symbol.
        progress: Told of each series and its candles.

    Raises:
        BadInputError: A column is missing, or a candle is impossible; what came before it is stored.
        CorruptFileError: The file cannot be read.
    """
    rows = appended = 0
    found = []
    for recorded, block in read_file(path):
        name, symbol = naming(recorded.venue, recorded.symbol)
        series = Series(venue or name, symbol, recorded.timeframe)
        rows += len(block)
        appended += lake.append(series, block)
        found.append(series)
        if progress is not None:
            progress(series, len(block))
    return Imported(path, rows, appended, tuple(found))


def read_file(path: Path) -> Iterator[tuple[Series, CandleBlock]]:
    """
    Yield each series of a recorded file under its recorded names, oldest first.

    Raises:
        LacksColumnsError: A column is missing.
        BadInputError: A row says no number, or the ending is neither .parquet nor .csv.
        CorruptFileError: The file cannot be read.
    """
    reader = {".parquet": "recorded_parquet", ".csv": "recorded_csv"}.get(path.suffix)
    if reader is None:
        raise BadInputError(f"Expected a .parquet or .csv file, found {path}")
    table = _table(path, reader)
    missing = [name for name in NEEDED if name not in table.column_names]
    if missing:
        raise LacksColumnsError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(NEEDED)}")
    empty = [name for name in NEEDED[:4] if table[name].null_count]
    if empty:
        raise BadInputError(f"{path} has rows without {' and '.join(empty)}; every row needs them")
    keys = list(zip(*(table[name].to_pylist() for name in NEEDED[:3]), strict=True))
    for begin, end in runs(keys):
        part = table.slice(begin, end - begin)
        try:
            values = np.column_stack([part[name].to_numpy().astype(np.float64) for name in COLUMNS])
        except (TypeError, ValueError) as error:
            raise BadInputError(f"{path} holds something else than numbers in a price or volume: {error}") from error
        venue, symbol, timeframe = keys[begin]
        yield Series(venue, symbol, Timeframe.parse(timeframe)), CandleBlock(part["ts"].to_numpy(), values)


def files_of(path: Path) -> list[Path]:
    """Return the files that may be recordings, in order."""
    if path.is_file():
        return [path.resolve()]
    return sorted(one for one in path.resolve().rglob("*") if one.is_file() and one.suffix in ENDINGS)


def _table(path: Path, reader: str) -> Any:
    if not path.exists():
        raise BadInputError(f"There is no file {path}")
    with duckdb.connect() as connection:
        try:
            return connection.sql(query(reader), params={"path": str(path)}).to_arrow_table()
        except duckdb.BinderException as error:
            raise LacksColumnsError(
                f"{path} lacks a column; expected {', '.join(NEEDED)}; 'qtctl ingest' takes others with --columns"
            ) from error
        except duckdb.Error as error:
            raise CorruptFileError(path, str(error).splitlines()[0][:200], "Get the file again.") from error


def import_files(lake: CandleLake, paths: Iterable[Path], *, venue: str | None = None) -> list[Imported]:
    """Append several recorded files to the lake."""
    return [import_file(lake, path, venue=venue) for path in paths]
