"""Recorded candles, read from Parquet or CSV."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from infra.sandbox.market.series import Floats, Ints

COLUMNS: Final = ("exchange", "symbol", "timeframe", "ts", "open", "high", "low", "close", "volume")
_PRICES: Final = ("open", "high", "low", "close", "volume")
_QUOTES: Final = ("USDT", "USDC", "BUSD", "USD")
# Perpetuals before spot before others, when the same name was recorded at several venues.
_PREFERRED: Final = ("binance_usdm", "binance")
_MINUTES: Final = {"m": 1, "h": 60, "d": 1440}


class RecordingError(Exception):
    """A recording cannot be used; the message says what was expected and found."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """Candles of one symbol, oldest first, without duplicates."""

    symbol: str
    base: str
    open_time: Ints
    # Columns open, high, low, close, volume.
    values: Floats


@dataclass(frozen=True, slots=True)
class Recording:
    """Candles of one timeframe."""

    timeframe_ms: int
    series: tuple[Recorded, ...]
    # Rows that no market can have produced, such as a low above the high.
    dropped: int


def read_recording(
    path: Path, *, symbols: tuple[str, ...] = (), timeframe: str | None = None, exchange: str | None = None
) -> Recording:
    """
    Read candles from a file or from every file of a folder.

    Raises:
        RecordingError: Nothing usable is there, or a named symbol is not.
    """
    tables = list(_tables(path))
    offered = _offered(tables)
    if exchange is not None:
        offered = {one for one in offered if one[0] == exchange}
    chosen_timeframe = timeframe or _default_timeframe(offered)
    offered = {one for one in offered if one[2] == chosen_timeframe}
    if not offered:
        raise RecordingError(
            f"{path} has no candles of {chosen_timeframe or 'any timeframe'} at {exchange or 'any venue'}."
        )
    series, dropped = [], 0
    for venue_symbol, source in _sources(offered, symbols, path).items():
        recorded, lost = _read_series(tables, venue_symbol, source, timeframe_ms(chosen_timeframe))
        dropped += lost
        if len(recorded.open_time):
            series.append(recorded)
    if not series:
        raise RecordingError(f"{path} has no usable candle of {chosen_timeframe}.")
    return Recording(timeframe_ms(chosen_timeframe), tuple(series), dropped)


def timeframe_ms(timeframe: str) -> int:
    """
    Length of a timeframe such as 5m.

    Raises:
        RecordingError: It is not one, or longer than a day.
    """
    count, unit = timeframe[:-1], timeframe[-1:]
    if not count.isdigit() or unit not in _MINUTES or not 0 < int(count) * _MINUTES[unit] <= 1440:  # noqa: PLR2004
        raise RecordingError(f"Timeframe '{timeframe}' cannot be replayed, expected 1m to 1d.")
    return int(count) * _MINUTES[unit] * 60_000


def _tables(path: Path) -> Iterator[pa.Table]:
    if not path.exists():
        raise RecordingError(f"There is no recording at {path}; --replay expects a Parquet or CSV file, or a folder.")
    if path.is_file():
        yield _table(path)
        return
    found = sorted(one for one in path.iterdir() if one.suffix in {".parquet", ".csv"})
    candles = [one for one in found if set(COLUMNS) <= set(_names(one))]
    if not candles:
        raise RecordingError(f"{path} holds no Parquet or CSV file with the columns {', '.join(COLUMNS)}.")
    for one in candles:
        yield _table(one)


def _names(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8") as handle:
            return handle.readline().strip().split(",")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise RecordingError(f"{path} cannot be read, it may be damaged or cut short: {error}") from error


def _table(path: Path) -> pa.Table:
    missing = [one for one in COLUMNS if one not in _names(path)]
    if missing:
        raise RecordingError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}.")
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=list(COLUMNS))
        else:
            options = pa.csv.ConvertOptions(include_columns=list(COLUMNS))
            table = pa.csv.read_csv(path, convert_options=options)
        wanted = pa.schema([(one, _type(one)) for one in COLUMNS])
        return table.select(list(COLUMNS)).cast(wanted).unify_dictionaries()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RecordingError(f"{path} cannot be read, it may be damaged or cut short: {error}") from error


def _type(column: str) -> pa.DataType:
    if column in _PRICES:
        return pa.float64()
    return pa.int64() if column == "ts" else pa.dictionary(pa.int32(), pa.string())


def _offered(tables: list[pa.Table]) -> set[tuple[str, str, str]]:
    offered: set[tuple[str, str, str]] = set()
    for table in tables:
        groups = table.select(["exchange", "symbol", "timeframe"]).group_by(["exchange", "symbol", "timeframe"])
        offered.update((r["exchange"], r["symbol"], r["timeframe"]) for r in groups.aggregate([]).to_pylist())
    return offered


def _default_timeframe(offered: set[tuple[str, str, str]]) -> str:
    known = {one[2] for one in offered}
    if "5m" in known:
        return "5m"
    return min(known, key=timeframe_ms, default="")


def _base(symbol: str) -> str | None:
    for quote in _QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol.removesuffix(quote)
    return None


def _sources(
    offered: set[tuple[str, str, str]], symbols: tuple[str, ...], path: Path
) -> dict[str, tuple[str, str, str]]:
    """Which recording each instrument takes; recorded BTCUSD and BTCUSDT both trade as BTCUSDT."""

    def rank(source: tuple[str, str, str]) -> tuple[int, int, str]:
        exchange, symbol, _ = source
        place = _PREFERRED.index(exchange) if exchange in _PREFERRED else len(_PREFERRED)
        return place, 0 if symbol.endswith("USDT") else 1, exchange

    best: dict[str, tuple[str, str, str]] = {}
    for source in sorted(offered, key=rank):
        base = _base(source[1])
        if base is not None:
            best.setdefault(f"{base}USDT", source)
    if not symbols:
        return dict(sorted(best.items()))
    for one in symbols:
        if f"{_base(one)}USDT" not in best:
            raise RecordingError(f"{path} has no candles of '{one}'; it has {', '.join(sorted(best))}.")
    return {f"{_base(one)}USDT": best[f"{_base(one)}USDT"] for one in symbols}


def _read_series(
    tables: list[pa.Table], symbol: str, source: tuple[str, str, str], length_ms: int
) -> tuple[Recorded, int]:
    exchange, native, timeframe = source
    times: list[Any] = []
    values: list[Any] = []
    for table in tables:
        mask = pc.and_(
            pc.and_(pc.equal(table["exchange"], exchange), pc.equal(table["symbol"], native)),
            pc.equal(table["timeframe"], timeframe),
        )
        part = table.filter(mask)
        times.append(part["ts"].to_numpy())
        values.append(np.column_stack([part[one].to_numpy() for one in _PRICES]))
    ts = np.concatenate(times).astype(np.int64)
    columns = np.concatenate(values)
    opened, high, low, close, volume = columns.T
    sound = (
        np.isfinite(columns).all(axis=1)
        & (low > 0)
        & (high >= np.maximum(opened, close))
        & (low <= np.minimum(opened, close))
        & (volume >= 0)
        & (ts % length_ms == 0)
    )
    # The last row of a time wins, as a correction would.
    order = np.argsort(ts, kind="stable")
    order = order[sound[order]]
    last = np.concatenate((np.diff(ts[order]) > 0, np.ones(min(1, len(order)), bool)))
    order = order[last]
    base = _base(native)
    assert base is not None
    return Recorded(symbol, base, ts[order], columns[order]), int(len(ts) - sound.sum())
