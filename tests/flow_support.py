"""A made-up recording of two minutes: candles, and the trades and books that lie beside them in a lake."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from feature_store.kinds.definition import BOOK, TRADES, Kind, Subject
from feature_store.kinds.partition import folder_of, path_of, stretches, to_table
from feature_store.kinds.records import KnownRecords, Records
from feature_store.kinds.store import KindStore
from infra.sandbox.market.recording import COLUMNS

START_MS = 1_767_600_000_000
MINUTE_MS = 60_000
SOL = Subject("binanceusdm", "SOL/USDT:USDT")
ARRIVED_MS = START_MS + 86_400_000

Row = tuple[int, float, float, bool]
"""A trade: milliseconds after the start, price, quantity, whether the seller took."""

TRADED: tuple[Row, ...] = (
    (1_000, 100.0, 2.0, False),
    (4_500, 100.1, 1.0, False),
    (12_000, 99.9, 3.0, True),
    (13_000, 99.8, 4.0, True),
    (26_000, 99.8, 5.0, True),
    (41_000, 99.9, 2.0, False),
    (58_500, 100.0, 1.0, False),
    (61_000, 100.1, 2.0, False),
    (75_000, 99.8, 9.0, True),
    (88_000, 99.7, 2.0, True),
    (101_000, 99.9, 1.0, False),
    (119_500, 100.2, 3.0, False),
)


@dataclass(frozen=True, slots=True)
class Shown:
    """A book: milliseconds after the start, bids and asks, best first."""

    at_ms: int
    bids: tuple[tuple[float, float], ...]
    asks: tuple[tuple[float, float], ...]


BOOKS: tuple[Shown, ...] = (
    Shown(500, ((99.9, 5.0), (99.8, 10.0), (99.7, 40.0)), ((100.0, 3.0), (100.1, 6.0), (100.3, 50.0))),
    Shown(19_000, ((99.8, 7.0), (99.7, 41.0), (99.5, 20.0)), ((99.9, 4.0), (100.1, 8.0), (100.3, 50.0))),
    Shown(62_000, ((99.8, 8.0), (99.7, 12.0), (99.6, 20.0)), ((100.0, 4.0), (100.1, 5.0), (100.3, 50.0))),
    Shown(92_000, ((99.7, 3.0), (99.6, 12.0), (99.5, 20.0)), ((99.9, 4.0), (100.1, 5.0), (100.3, 50.0))),
)


def candles_of(traded: tuple[Row, ...]) -> list[tuple[Any, ...]]:
    """Return the rows of the minutes that trades make up."""
    rows = []
    for minute in sorted({at // MINUTE_MS for at, *_ in traded}):
        prices = [price for at, price, *_ in traded if at // MINUTE_MS == minute]
        volume = sum(quantity for at, _, quantity, _ in traded if at // MINUTE_MS == minute)
        first = START_MS + minute * MINUTE_MS
        rows.append(
            ("binance_usdm", "SOLUSDT", "1m", first, prices[0], max(prices), min(prices), prices[-1], volume)
        )  # fmt: skip
    return rows


def trades_of(traded: tuple[Row, ...]) -> Records:
    """Return trades as the lake holds them."""
    return Records.of(
        TRADES,
        [START_MS + at for at, *_ in traded],
        trade_id=[7_000_000 + number for number in range(len(traded))],
        price=[price for _, price, *_ in traded],
        quantity=[quantity for _, _, quantity, _ in traded],
        is_buyer_maker=[sold for *_, sold in traded],
    )


def books_of(shown: tuple[Shown, ...]) -> Records:
    """Return books as the lake holds them."""
    rows = [
        (START_MS + one.at_ms, number, is_bid, level, price, quantity)
        for number, one in enumerate(shown, start=1)
        for is_bid, side in ((False, one.asks), (True, one.bids))
        for level, (price, quantity) in enumerate(side)
    ]
    times, numbers, is_bid, level, price, quantity = (list(column) for column in zip(*rows, strict=True))
    return Records.of(BOOK, times, update_id=numbers, is_bid=is_bid, level=level, price=price, quantity=quantity)


def write_candles(folder: Path, traded: tuple[Row, ...] = TRADED) -> None:
    """
    Write the minutes of a recording, an hour of quiet ones before them.

    A venue begins inside its recording: what is traded on has to have a past.
    """
    quiet = [
        ("binance_usdm", "SOLUSDT", "1m", START_MS - k * MINUTE_MS, 100.0, 100.0, 100.0, 100.0, 6.0)
        for k in range(60, 0, -1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    rows = [*quiet, *candles_of(traded)]
    table = pa.table({name: list(column) for name, column in zip(COLUMNS, zip(*rows, strict=True), strict=True)})
    pq.write_table(table, folder / "candles.parquet")


def write_recording(folder: Path) -> Path:
    """Write the recording by the feature store's own writers, and return its folder."""
    write_candles(folder)
    store = KindStore(folder)
    store.append(SOL, trades_of(TRADED), arrived_ms=ARRIVED_MS)
    store.append(SOL, books_of(BOOKS), arrived_ms=ARRIVED_MS)
    return folder


def write_unchecked(folder: Path, kind: Kind, records: Records) -> None:
    """Write rows of a kind as no writer of ours would: whatever they say, in whatever order."""
    for name, part in stretches(kind, records):
        rows = records.take(part)
        known = KnownRecords(rows, np.full(len(rows), ARRIVED_MS), np.zeros(len(rows), np.int32))
        place = folder_of(folder, kind, SOL)
        assert isinstance(place, Path)
        place.mkdir(parents=True, exist_ok=True)
        pq.write_table(to_table(known), str(path_of(place, name)))
