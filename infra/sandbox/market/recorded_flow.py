"""
Recorded trades and books, read from the feature store's kinds where they lie beside recorded candles.

A folder of recordings may hold `trades`, `aggregate-trades` and `book` as `feature_store.kinds` writes them, of the
venue and the symbol of the candles. Rows that no market can have produced are refused rather than left out: a queue
served by half of a recording would look as good as one that was served by all of it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from feature_store.errors import BadInputError, CorruptFileError
from feature_store.kinds.definition import AGGREGATE_TRADES, BOOK, TRADES, Kind, Subject
from feature_store.kinds.partition import folder_of, names_between, names_in, path_of, read_partition
from feature_store.kinds.records import Records
from feature_store.kinds.store import KindStore
from infra.sandbox.market.recording import Recorded, Recording, RecordingError

Flags = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Flow:
    """What was recorded of an instrument beside its candles, in order of time; prices and quantities as recorded."""

    trades: Records | None = None
    books: Records | None = None


def read_flows(path: Path, recording: Recording) -> dict[str, Flow]:
    """
    Return trades and books of a recording's instruments, as far as the folder has them and candles were recorded.

    Raises:
        RecordingError: A file is damaged, or rows are out of order, not above zero, not finite, crossed or torn.
    """
    if not path.is_dir():
        return {}
    store = KindStore(path)
    known = {kind: store.subjects(kind) for kind in (TRADES, AGGREGATE_TRADES, BOOK)}
    flows = {}
    for one in recording.series:
        trades = _read(store, TRADES, known, one, recording) or _read(store, AGGREGATE_TRADES, known, one, recording)
        books = _read(store, BOOK, known, one, recording)
        if trades is not None:
            _refuse_impossible(trades, one.symbol)
        if books is not None:
            _refuse_impossible(books, one.symbol)
            _refuse_torn(books, one.symbol)
        if trades is not None or books is not None:
            flows[one.symbol] = Flow(trades, books)
    return flows


def begins_of(books: Records) -> NDArray[np.int64]:
    """Return the row at which each snapshot begins, and the count of rows."""
    new = (np.diff(books.time_ms) != 0) | (np.diff(books["update_id"]) != 0)
    return np.concatenate(([0], np.flatnonzero(new) + 1, [len(books)])).astype(np.int64)


def _read(
    store: KindStore, kind: Kind, known: Mapping[Kind, list[Subject]], one: Recorded, recording: Recording
) -> Records | None:
    subject = next((each for each in known[kind] if _is_of(each, one.source)), None)
    if subject is None:
        return None
    first, end = int(one.open_time[0]), int(one.open_time[-1]) + recording.timeframe_ms
    folder = folder_of(store.place, kind, subject)
    try:
        parts = [read_partition(path_of(folder, n), kind) for n in names_between(kind, names_in(folder), first, end)]
    except (BadInputError, CorruptFileError) as error:
        raise RecordingError(f"The recorded {kind} of {one.symbol} cannot be read: {error}") from error
    if not parts:
        return None
    stored = parts[0].concat(*parts[1:])
    # Before rows are cut by their times, the times have to be in order.
    _refuse(stored.records, np.append([False], np.diff(stored.records.time_ms) < 0), one.symbol, "times in order")
    rows = stored.latest().records.between(first, end)
    return rows if len(rows) else None


def _is_of(subject: Subject, source: tuple[str, str, str]) -> bool:
    """Whether a subject such as binanceusdm BTC/USDT:USDT is what was recorded as binance_usdm BTCUSDT."""
    names = [one.partition(":")[0].replace("/", "") for one in (subject.symbol, source[1])]
    venues = [one.replace("_", "").replace("-", "").lower() for one in (subject.venue, source[0])]
    return names[0] == names[1] and venues[0] == venues[1]


def _refuse_impossible(rows: Records, symbol: str) -> None:
    for column in ("price", "quantity"):
        values = rows[column]
        _refuse(rows, ~(np.isfinite(values) & (values > 0)), symbol, f"each {column} above 0", column)


def _refuse_torn(books: Records, symbol: str) -> None:
    """Refuse books whose bids rise, whose asks fall, or in which somebody would have traded."""
    begins = begins_of(books)
    number = np.repeat(np.arange(len(begins) - 1), np.diff(begins))
    is_bid, price = books["is_bid"], books["price"]
    follows = np.append([False], (np.diff(number) == 0) & (is_bid[1:] == is_bid[:-1]))
    worse = np.append([False], np.where(is_bid[1:], np.diff(price) < 0, np.diff(price) > 0))
    _refuse(books, follows & ~worse, symbol, "levels from the best to the worst", "price")
    bid = np.full(len(begins) - 1, -np.inf)
    np.maximum.at(bid, number[is_bid], price[is_bid])
    ask = np.full(len(begins) - 1, np.inf)
    np.minimum.at(ask, number[~is_bid], price[~is_bid])
    _refuse(books, (bid >= ask)[number] & is_bid, symbol, "the best bid below the best ask", "price")


def _refuse(rows: Records, bad: Flags, symbol: str, expected: str, column: str | None = None) -> None:
    if not bad.any():
        return
    place = int(np.argmax(bad))
    at = str(np.datetime64(int(rows.time_ms[place]), "ms")) + "Z"
    found = "" if column is None else f", found {column} {rows[column][place]}"
    raise RecordingError(f"The recorded {rows.kind} of {symbol}: expected {expected}{found} at {at}.")
