"""Recordings of funding rates, trades and books: Parquet or CSV files that tell their kind by their columns."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from feature_store.errors import BadInputError, CorruptFileError
from feature_store.kinds.definition import BOOK, FUNDING, TRADES, Subject
from feature_store.kinds.records import Records
from feature_store.partitions import runs
from feature_store.sources.book_rebuilding import Change, rebuilt
from feature_store.sources.importing import Part
from feature_store.sources.kind_importing import Held, KindSelection
from feature_store.sources.recorded import files_of, unified_name

_FUNDING = ("exchange", "symbol", "ts", "funding_rate")
_TRADES = ("exchange", "symbol", "ts", "trade_id", "price", "qty")
_SNAPSHOT = ("exchange", "symbol", "ts", "ts_local_ns", "last_update_id", "side", "price", "qty")
_CHANGES = (*_SNAPSHOT, "first_update_id", "prev_update_id")
_SIDES = {"b": True, "bid": True, "buy": True, "a": False, "ask": False, "sell": False}
_REMEDY = "Get the file again."


@dataclass(frozen=True, slots=True)
class KindRecordings:
    """One recording, or a folder of them; those of candles and of other things are left out."""

    path: Path

    @property
    def origin(self) -> str:
        """The resolved path."""
        return str(self.path.resolve())

    def parts(self, selection: KindSelection) -> Sequence[Part]:
        """Return the files of a selected kind; which instruments they hold is known when they are read."""
        found = []
        for path in files_of(self.path):
            kind = _kind(_columns(path))
            if kind is None or kind in selection.kinds:
                status = path.stat()
                part = Part(str(path), f"{status.st_size}-{status.st_mtime_ns}")
                if kind is not None or self.path.is_file():
                    found.append(part)
        return found

    def read(self, part: Part) -> Iterator[Held]:
        """Yield the instruments of a recording under unified names."""
        path = Path(part.name)
        table = _table(path)
        kind = _kind(tuple(table.column_names))
        if set(table.column_names) >= set(_CHANGES):
            yield from _rebuilt(path, table)
            return
        if kind is None:
            raise BadInputError(
                f"{path}: expected the columns {', '.join(_FUNDING)} or {', '.join(_TRADES)} or "
                f"{', '.join(_SNAPSHOT)}, or the last with {', '.join(_CHANGES[-2:])}; "
                f"found {', '.join(table.column_names)}"
            )
        lacking = [name for name in ("exchange", "symbol", "ts") if table[name].null_count]
        if lacking:
            raise BadInputError(f"{path} has rows without {' and '.join(lacking)}; every row needs them")
        table = table.sort_by([("exchange", "ascending"), ("symbol", "ascending"), ("ts", "ascending")])
        keys = list(zip(table["exchange"].to_pylist(), table["symbol"].to_pylist(), strict=True))
        for begin, end in runs(keys):
            venue, symbol = unified_name(*map(str, keys[begin]))
            try:
                yield _HELD[kind](Subject(venue, symbol), table.slice(begin, end - begin))
            except (pa.ArrowException, TypeError, ValueError) as error:
                raise BadInputError(f"{path} holds something else than times and numbers ({error})") from error


def _kind(columns: Sequence[str]) -> Any:
    names = set(columns)
    if names >= set(_FUNDING):
        return FUNDING
    if names >= set(_TRADES) and names & {"buyer_is_maker", "side"}:
        return TRADES
    return BOOK if names >= set(_SNAPSHOT) else None


def _columns(path: Path) -> tuple[str, ...]:
    try:
        if path.suffix == ".parquet":
            return tuple(pq.read_schema(path).names)
        with path.open(encoding="utf-8") as file:
            return tuple(next(csv.reader([file.readline()]), []))
    except (pa.ArrowException, OSError, ValueError, csv.Error):
        return ()


def _table(path: Path) -> pa.Table:
    try:
        return pq.read_table(path) if path.suffix == ".parquet" else pyarrow.csv.read_csv(path)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole recording ({str(error).splitlines()[0][:120]})", _REMEDY) from error


def _funding(subject: Subject, table: pa.Table) -> Held:
    times = _times(table["ts"]) // FUNDING.grid_ms * FUNDING.grid_ms
    return Held(subject, Records.of(FUNDING, times, funding_rate=table["funding_rate"].to_numpy()))


def _trades(subject: Subject, table: pa.Table) -> Held:
    # The side is the taker's: a seller takes what a buyer made.
    told = "buyer_is_maker" in table.column_names
    maker = table["buyer_is_maker"].to_numpy() if told else ~_is_bid(table["side"])
    records = Records.of(
        TRADES,
        _times(table["ts"]),
        trade_id=table["trade_id"].cast(pa.int64()).to_numpy(),
        price=table["price"].to_numpy(),
        quantity=table["qty"].to_numpy(),
        is_buyer_maker=maker,
    )
    return Held(subject, records)


def _snapshots(subject: Subject, table: pa.Table) -> Held:
    times, local_ns = _times(table["ts"]), table["ts_local_ns"].cast(pa.int64()).to_numpy()
    update_id = table["last_update_id"].cast(pa.int64()).to_numpy()
    is_bid, price = _is_bid(table["side"]), table["price"].to_numpy()
    # The best level first: the highest bid, the lowest ask.
    order = np.lexsort((np.where(is_bid, -price, price), is_bid, update_id, times))
    same = [array[order][1:] == array[order][:-1] for array in (times, update_id, is_bid)]
    begins = np.append([True], ~np.logical_and.reduce(same))
    place = np.arange(len(order))
    level = place - np.maximum.accumulate(np.where(begins, place, 0))
    records = Records.of(
        BOOK,
        times[order],
        update_id=update_id[order],
        is_bid=is_bid[order],
        level=level,
        price=price[order],
        quantity=table["qty"].to_numpy()[order],
    )
    # The recorder's clock may be behind the venue's: nothing is known before it was.
    return Held(subject, records, np.maximum(times, -(-local_ns // 1_000_000))[order])


def _rebuilt(path: Path, changes: pa.Table) -> Iterator[Held]:
    """Yield snapshots of the books that a recording of changes tells, from the snapshots recorded beside it on."""
    for exchange, symbol in sorted(
        set(zip(*(changes[name].to_pylist() for name in ("exchange", "symbol")), strict=True))
    ):
        base = _snapshot_beside(path, exchange, symbol)
        if base is None:
            raise BadInputError(
                f"{path}: there is no snapshot of the book of {symbol} at {exchange} recorded beside it"
            )
        base_id, levels = base
        mine = _of(changes, exchange, symbol).sort_by([("last_update_id", "ascending")])
        taken = list(rebuilt(base_id, levels, _changes_in(mine)))
        sides = [(one, is_bid, side) for one in taken for is_bid, side in ((True, one.bids), (False, one.asks))]
        rows = [(one, is_bid, level, row) for one, is_bid, side in sides for level, row in enumerate(side)]
        venue, name = unified_name(str(exchange), str(symbol))
        records = Records.of(
            BOOK,
            [one.time_ms for one, _, _, _ in rows],
            update_id=[one.update_id for one, _, _, _ in rows],
            is_bid=[is_bid for _, is_bid, _, _ in rows],
            level=[level for _, _, level, _ in rows],
            price=[price for _, _, _, (price, _) in rows],
            quantity=[quantity for _, _, _, (_, quantity) in rows],
        )
        arrived = np.array([max(one.time_ms, one.arrived_ms) for one, _, _, _ in rows], np.int64)
        yield Held(Subject(venue, name), records, arrived)


def _changes_in(table: pa.Table) -> list[Change]:
    names = ("ts", "ts_local_ns", "first_update_id", "last_update_id", "prev_update_id", "price", "qty")
    columns = [table[name].to_pylist() for name in names]
    rows = list(zip(*columns, _is_bid(table["side"]).tolist(), strict=True))
    found = []
    for begin, end in runs(columns[3]):
        time_ms, local_ns, first_id, last_id, after_id = rows[begin][:5]
        levels = [(is_bid, price, quantity) for *_, price, quantity, is_bid in rows[begin:end]]
        # Where a venue does not name the change before, its numbers follow each other.
        after = after_id if after_id is not None and after_id >= 0 else first_id - 1
        found.append(Change(time_ms, -(-local_ns // 1_000_000), after, last_id, levels))
    return found


def _snapshot_beside(path: Path, exchange: str, symbol: str) -> tuple[int, list[tuple[bool, float, float]]] | None:
    """Return the first snapshot of a book that is recorded in the same folder, with its number."""
    for other in files_of(path.parent):
        names = set(_columns(other))
        if not names >= set(_SNAPSHOT) or names >= set(_CHANGES):
            continue
        table = _of(_table(other), exchange, symbol)
        if len(table):
            numbers = table["last_update_id"].cast(pa.int64()).to_numpy()
            first = np.flatnonzero(numbers == numbers.min())
            columns = [_is_bid(table["side"]), table["price"].to_numpy(), table["qty"].to_numpy()]
            return int(numbers.min()), list(zip(*[column[first].tolist() for column in columns], strict=True))
    return None


def _of(table: pa.Table, exchange: str, symbol: str) -> pa.Table:
    mine = [
        place
        for place, key in enumerate(zip(table["exchange"].to_pylist(), table["symbol"].to_pylist(), strict=True))
        if key == (exchange, symbol)
    ]
    return table.take(pa.array(mine, pa.int64()))


_HELD: dict[Any, Any] = {FUNDING: _funding, TRADES: _trades, BOOK: _snapshots}


def _times(column: Any) -> Any:
    if not pa.types.is_integer(column.type):
        raise BadInputError(f"ts has to be whole milliseconds, found {column.type}")
    return column.cast(pa.int64()).to_numpy()


def _is_bid(column: Any) -> Any:
    words = [str(word).lower() for word in column.to_pylist()]
    unknown = next((word for word in words if word not in _SIDES), None)
    if unknown is not None:
        raise BadInputError(f"side has to be one of {', '.join(_SIDES)}, found {unknown!r}")
    return np.array([_SIDES[word] for word in words], np.bool_)
