"""Recorded candles, read from Parquet or CSV."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from infra.sandbox.market.series import DAY_MS, INTERVALS, Floats, Ints

COLUMNS: Final = ("exchange", "symbol", "timeframe", "ts", "open", "high", "low", "close", "volume")
_NAMES: Final = ("exchange", "symbol", "timeframe")
_PRICES: Final = ("open", "high", "low", "close", "volume")
_QUOTES: Final = ("USDT", "USDC", "BUSD", "USD")
# Perpetuals before spot before others, when the same name was recorded at several venues.
_PREFERRED: Final = ("binance_usdm", "binance")


# Exchange, symbol and timeframe as recorded.
Source = tuple[str, str, str]


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
    # As what it was recorded.
    source: Source = ("", "", "")


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
    files = _files(path)
    chosen, offered = _choice(path, files, timeframe, exchange)
    length_ms = timeframe_ms(chosen)
    sources = _sources(offered, symbols, path)
    rows = _read_rows(files, set(sources.values()))
    series, dropped = [], 0
    for symbol, source in sources.items():
        recorded, lost = _clean(symbol, source, rows[source], length_ms)
        dropped += lost
        if len(recorded.open_time):
            series.append(recorded)
    if not series:
        raise RecordingError(f"{path} has no usable candle of {chosen}.")
    return Recording(length_ms, tuple(series), dropped)


def contents(path: Path) -> tuple[int, tuple[str, ...]]:
    """
    Return the timeframe, in milliseconds, and the instruments that a replay of a file or a folder would trade.

    Raises:
        RecordingError: Nothing there can be replayed.
    """
    chosen, offered = _choice(path, _files(path))
    return timeframe_ms(chosen), tuple(_sources(offered, (), path))


def timeframe_ms(timeframe: str) -> int:
    """
    Length of a timeframe such as 5m.

    Raises:
        RecordingError: It is not one, or longer than a day.
    """
    length = INTERVALS.get(timeframe, 0)
    if not 0 < length <= DAY_MS:
        raise RecordingError(f"Timeframe '{timeframe}' cannot be replayed, expected 1m to 1d.")
    return length


def _files(path: Path) -> list[Path]:
    if not path.exists():
        raise RecordingError(f"There is no recording at {path}; --replay expects a Parquet or CSV file, or a folder.")
    if path.is_file():
        missing = [one for one in COLUMNS if one not in _names(path)]
        if missing:
            raise RecordingError(f"{path} lacks the columns {', '.join(missing)}; expected {', '.join(COLUMNS)}.")
        return [path]
    found = sorted(one for one in path.iterdir() if one.suffix in {".parquet", ".csv"})
    candles = [one for one in found if set(COLUMNS) <= set(_names(one))]
    if not candles:
        raise RecordingError(f"{path} holds no Parquet or CSV file with the columns {', '.join(COLUMNS)}.")
    return candles


def _choice(
    path: Path, files: list[Path], timeframe: str | None = None, exchange: str | None = None
) -> tuple[str, set[Source]]:
    """Return the timeframe to replay and all that was recorded in it."""
    offered = {source for one in files for source in _offered(one)}
    if exchange is not None:
        offered = {one for one in offered if one[0] == exchange}
    chosen = timeframe or _default_timeframe(offered)
    offered = {one for one in offered if one[2] == chosen}
    if not offered:
        raise RecordingError(f"{path} has no candles of {chosen or 'any timeframe'} at {exchange or 'any venue'}.")
    return chosen, offered


def _names(path: Path) -> list[str]:
    try:
        if path.suffix == ".parquet":
            return list(pq.read_schema(path).names)
        with path.open(encoding="utf-8") as handle:
            return handle.readline().strip().split(",")
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> RecordingError:
    return RecordingError(f"{path} cannot be read, it may be damaged or cut short: {error}")


def _table(path: Path, columns: tuple[str, ...]) -> pa.Table:
    try:
        if path.suffix == ".parquet":
            table = pq.read_table(path, columns=list(columns))
        else:
            table = pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(include_columns=list(columns)))
        wanted = pa.schema([(one, _type(one)) for one in columns])
        return table.select(list(columns)).cast(wanted)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise _damaged(path, error) from error


def _type(column: str) -> pa.DataType:
    if column in _PRICES:
        return pa.float64()
    return pa.int64() if column == "ts" else pa.string()


def _offered(path: Path) -> set[Source]:
    groups = _table(path, _NAMES).group_by(list(_NAMES)).aggregate([]).to_pylist()
    return {(one["exchange"], one["symbol"], one["timeframe"]) for one in groups}


def _default_timeframe(offered: set[Source]) -> str:
    known = {one[2] for one in offered}
    if "5m" in known:
        return "5m"
    return min((one for one in INTERVALS if one in known), key=lambda one: INTERVALS[one] or 31 * DAY_MS, default="")


def _base(symbol: str) -> str | None:
    for quote in _QUOTES:
        if symbol.endswith(quote) and len(symbol) > len(quote):
            return symbol.removesuffix(quote)
    return None


def _sources(offered: set[Source], symbols: tuple[str, ...], path: Path) -> dict[str, Source]:
    """Which recording each instrument takes; recorded BTCUSD and BTCUSDT both trade as BTCUSDT."""

    def rank(source: Source) -> tuple[int, int, str]:
        exchange, symbol, _ = source
        place = _PREFERRED.index(exchange) if exchange in _PREFERRED else len(_PREFERRED)
        return place, 0 if symbol.endswith("USDT") else 1, exchange

    best: dict[str, Source] = {}
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


def _read_rows(files: list[Path], wanted: set[Source]) -> dict[Source, list[tuple[Ints, Floats]]]:
    rows: dict[Source, list[tuple[Ints, Floats]]] = {source: [] for source in wanted}
    symbols = sorted({source[1] for source in wanted})
    for path in files:
        if not wanted & _offered(path):
            continue
        table = _table(path, COLUMNS).filter(pc.field("symbol").isin(symbols))
        for source in sorted(wanted):
            exchange, symbol, timeframe = source
            chosen = table.filter(
                (pc.field("symbol") == symbol)
                & (pc.field("exchange") == exchange)
                & (pc.field("timeframe") == timeframe)
            )
            if chosen.num_rows:
                values = np.column_stack([chosen[one].to_numpy() for one in _PRICES])
                rows[source].append((chosen["ts"].to_numpy().astype(np.int64), values))
    return rows


def _clean(symbol: str, source: Source, rows: list[tuple[Ints, Floats]], length_ms: int) -> tuple[Recorded, int]:
    ts = np.concatenate([one[0] for one in rows])
    columns = np.concatenate([one[1] for one in rows])
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
    base = _base(source[1])
    assert base is not None
    return Recorded(symbol, base, ts[order], columns[order], source), int(len(ts) - sound.sum())
