"""Binance's public bulk archives of funding rates, mark and index candles, and aggregate trades."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

import pyarrow as pa
import pyarrow.csv

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError, UnknownTimeframeError
from feature_store.kinds.definition import AGGREGATE_TRADES, FUNDING, INDEX, MARK, OPEN_INTEREST, Kind, Subject
from feature_store.kinds.records import Records
from feature_store.sources.archive_files import Address, ArchiveFiles, Folder
from feature_store.sources.archive_zips import checksum_in, days_of, months_from, period_of, unpacked, verified
from feature_store.sources.importing import Part
from feature_store.sources.kind_importing import Held, KindSelection
from feature_store.sources.recorded import unified_name

LARGEST_UNPACKED = 1024 * 1024 * 1024
"""A busy day's trades of the busiest instrument unpack to a tenth of this; of trades no whole months are read."""
_PATH = re.compile(
    r"(?:.*/)?(?P<market>spot|futures/um)/(?P<every>daily|monthly)/(?P<kind>[A-Za-z]+)/(?P<symbol>[^/]+)/"
    r"(?:(?P<timeframe>[^/]+)/)?(?P<stem>[^/]+-(?P<period>\d{4}-\d{2}(?:-\d{2})?))\.zip"
)
_KINDS = {
    "fundingRate": FUNDING,
    "markPriceKlines": MARK,
    "indexPriceKlines": INDEX,
    "metrics": OPEN_INTEREST,
    "aggTrades": AGGREGATE_TRADES,
}
_FOLDERS = {kind: folder for folder, kind in _KINDS.items()}
_MARKETS = {"spot": "binance", "futures/um": "binance_usdm"}
_COLUMNS = {
    FUNDING: ("calc_time", "funding_interval_hours", "last_funding_rate"),
    MARK: ("open_time", "open", "high", "low", "close", *map(str, range(7))),
    INDEX: ("open_time", "open", "high", "low", "close", *map(str, range(7))),
    OPEN_INTEREST: ("create_time", "symbol", "sum_open_interest", "sum_open_interest_value"),
    AGGREGATE_TRADES: ("agg_trade_id", "price", "quantity", "first_id", "last_id", "transact_time", "is_buyer_maker"),
}
_MICROSECONDS_FROM = 100_000_000_000_000
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Archive:
    """What the path of an archive says that it holds."""

    path: str
    kind: Kind
    subject: Subject
    stem: str
    begin_ms: int
    end_ms: int
    monthly: bool

    @classmethod
    def of(cls, path: str) -> Self | None:
        """
        Read a path; None where it is no archive of a kind that we read.

        Raises:
            BadInputError: Folders and file name disagree, or the symbol is not one we can name.
        """
        found = _PATH.fullmatch(path)
        kind = None if found is None else _KINDS.get(found["kind"])
        if found is None or kind is None:
            return None
        try:
            timeframe = None if found["timeframe"] is None else Timeframe.parse(found["timeframe"])
        except UnknownTimeframeError:
            return None
        if kind is OPEN_INTEREST:
            timeframe = Timeframe.M5
        middle = found["timeframe"] or found["kind"]
        expected = f"{found['symbol']}-{middle}-{found['period']}"
        if found["stem"] != expected or kind.has_timeframe != (timeframe is not None):
            raise BadInputError(f"{path}: expected the file {expected}.zip in this folder")
        venue, symbol = unified_name(_MARKETS[found["market"]], found["symbol"])
        monthly = found["every"] == "monthly"
        begin_ms, end_ms = period_of(found["period"], path, monthly=monthly)
        return cls(path, kind, Subject(venue, symbol, timeframe), expected, begin_ms, end_ms, monthly)


@dataclass(frozen=True, slots=True)
class KindArchive:
    """An archive in the layout of data.binance.vision; where it lists nothing, the days to look for are told."""

    files: ArchiveFiles
    paths: tuple[str, ...]

    @classmethod
    def in_folder(cls, root: Path) -> Self:
        """Return the archive of a folder, wherever in the layout it begins."""
        top = root.resolve()
        found = [top] if top.is_file() else top.rglob("*.zip")
        return cls(Folder(top), tuple(sorted(map(str, found))))

    @classmethod
    def at_address(cls, url: str, selection: KindSelection, *, now_ms: int, days: int) -> Self:
        """
        Return the archive behind an address: whole months first, and days of those months that are not published.

        Raises:
            BadInputError: The address is not http, or no symbols are chosen: it lists none itself.
        """
        if selection.symbols is None or selection.timeframe is None:
            raise BadInputError("An address cannot be listed; name what you want with --symbols and --timeframe")
        today = datetime.fromtimestamp(now_ms / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        paths: list[str] = []
        for kind in (one for one in selection.kinds if one in _FOLDERS):
            for symbol in selection.symbols:
                for month in months_from(today - timedelta(days=days), today):
                    # Of trades and counts there are days only, or months too large to be read at once.
                    if kind not in (AGGREGATE_TRADES, OPEN_INTEREST):
                        paths.append(_path(kind, symbol, selection.timeframe, "monthly", f"{month:%Y-%m}"))
                    if kind is not FUNDING:
                        paths += [
                            _path(kind, symbol, selection.timeframe, "daily", f"{day:%Y-%m-%d}")
                            for day in days_of(month, today)
                        ]
        return cls(Address(url), tuple(paths))

    @property
    def origin(self) -> str:
        """Path or address."""
        return self.files.origin

    def parts(self, selection: KindSelection) -> Sequence[Part]:
        """Return the archives that are there; a day is left out where its whole month is there too."""
        whole: list[str] = []
        rest: list[str] = []
        for path in self.paths:
            try:
                archive = _Archive.of(path)
            except BadInputError:
                rest.append(path)  # Reading it says what is wrong.
                continue
            if archive is not None and selection.stored_as(archive.kind, archive.subject) is not None:
                # A month of trades is not read, so it stands for none of its days.
                is_whole = archive.monthly and archive.kind is not AGGREGATE_TRADES
                (whole if is_whole else rest).append(path)
        there = self._there(whole)
        covered = {_month_key(part.name) for part in there}
        return [*there, *self._there([path for path in rest if _month_key(path) not in covered])]

    def read(self, part: Part) -> Iterator[Held]:
        """Yield what an archive holds whose checksum holds."""
        archive = _Archive.of(part.name)
        if archive is None:
            raise BadInputError(f"{part.name}: no archive of market data that we read")
        if archive.kind is AGGREGATE_TRADES and archive.monthly:
            raise BadInputError(f"{part.name}: a month of trades is too large to be read at once; get its days")
        content = verified(self.files, part)
        text = unpacked(content, archive.path, f"{archive.stem}.csv", LARGEST_UNPACKED)
        records = _READ[archive.kind](_table(text, archive))
        _refuse_other_times(records, archive)
        yield Held(archive.subject, records)

    def _there(self, paths: Sequence[str]) -> list[Part]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            checksums = pool.map(lambda path: self.files.content(f"{path}.CHECKSUM"), paths)
            listed = isinstance(self.files, Folder)
            return [
                Part(path, checksum_in(text or b""), published=True)
                for path, text in zip(paths, checksums, strict=True)
                if listed or text is not None
            ]


def _table(text: bytes, archive: _Archive) -> pa.Table:
    """Read a csv with or without a header; more columns than are known are left out."""
    if not text.strip():
        raise BadInputError(f"{archive.path} holds no row")
    names = _COLUMNS[archive.kind]
    first = text[: text.find(b"\n") if b"\n" in text else None].strip()
    width = first.count(b",") + 1
    if width < len(names):
        raise BadInputError(f"{archive.path}: expected the columns {', '.join(names)}, found {width} columns")
    header = first[:1].isalpha()
    given = [*names, *[f"more_{place}" for place in range(width - len(names))]]
    try:
        table = pyarrow.csv.read_csv(
            io.BytesIO(text),
            read_options=pyarrow.csv.ReadOptions(column_names=given, skip_rows=int(header)),
            convert_options=pyarrow.csv.ConvertOptions(include_columns=list(names)),
        )
    except (pa.ArrowException, ValueError) as error:
        raise BadInputError(f"{archive.path}: not a table of {', '.join(names)} ({str(error)[:120]})") from error
    if header and first.split(b",")[0].decode("ascii", "replace") != names[0]:
        raise BadInputError(f"{archive.path}: expected {names[0]} as its first column, found {first[:40]!r}")
    if len(table) == 0:
        raise BadInputError(f"{archive.path} holds no row")
    return table


def _funding(table: pa.Table) -> Records:
    times = _times(table["calc_time"]) // FUNDING.grid_ms * FUNDING.grid_ms
    return Records.of(FUNDING, times, funding_rate=_numbers(table["last_funding_rate"]))


def _prices(kind: Kind, table: pa.Table) -> Records:
    columns = {name: _numbers(table[name]) for name in ("open", "high", "low", "close")}
    return Records.of(kind, _times(table["open_time"]), **columns)


def _interest(table: pa.Table) -> Records:
    times = table["create_time"]
    if pa.types.is_timestamp(times.type):
        stamps = times.cast(pa.timestamp("ms")).cast(pa.int64()).to_numpy()
    else:
        stamps = _times(times)
    return Records.of(
        OPEN_INTEREST,
        stamps,
        open_interest=_numbers(table["sum_open_interest"]),
        open_interest_value=_numbers(table["sum_open_interest_value"]),
    )


def _trades(table: pa.Table) -> Records:
    maker = table["is_buyer_maker"]
    if not pa.types.is_boolean(maker.type):
        raise BadInputError(f"expected true or false, found {maker.type}")
    return Records.of(
        AGGREGATE_TRADES,
        _times(table["transact_time"]),
        trade_id=_whole(table["agg_trade_id"]),
        price=_numbers(table["price"]),
        quantity=_numbers(table["quantity"]),
        is_buyer_maker=maker.to_numpy(),
    )


_READ: dict[Kind, Any] = {
    FUNDING: _funding,
    MARK: lambda table: _prices(MARK, table),
    INDEX: lambda table: _prices(INDEX, table),
    OPEN_INTEREST: _interest,
    AGGREGATE_TRADES: _trades,
}


def _times(column: Any) -> Any:
    times = _whole(column)
    # Spot has been archived in microseconds since 2025. Seconds are left to the store, which names them.
    return times // 1000 if times[0] >= _MICROSECONDS_FROM else times


def _whole(column: Any) -> Any:
    if not pa.types.is_integer(column.type) or column.null_count:
        raise BadInputError(f"expected whole numbers, found {column.type}")
    return column.to_numpy()


def _numbers(column: Any) -> Any:
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type)):
        raise BadInputError(f"expected numbers, found {column.type}")
    return column.cast(pa.float64()).to_numpy()


def _refuse_other_times(records: Records, archive: _Archive) -> None:
    times = records.time_ms
    if times.min() < 100_000_000_000:
        return  # The store says that these are seconds.
    # Counts are stamped at the end of their period, so that of midnight belongs to the day before.
    late = 1 if archive.kind is OPEN_INTEREST else 0
    if times.min() < archive.begin_ms or times.max() >= archive.end_ms + late:
        raise BadInputError(f"{archive.path}: rows from outside the period in its name")


def _path(kind: Kind, symbol: str, timeframe: Timeframe, every: str, period: str) -> str:
    """Return where the archive of a unified symbol lies; one with a settlement currency is a perpetual's."""
    pair, _, settle = symbol.partition(":")
    market, native = "futures/um" if settle else "spot", pair.replace("/", "")
    folder = _FOLDERS[kind]
    if kind in (MARK, INDEX):
        return f"data/{market}/{every}/{folder}/{native}/{timeframe}/{native}-{timeframe}-{period}.zip"
    return f"data/{market}/{every}/{folder}/{native}/{native}-{folder}-{period}.zip"


def _month_key(path: str) -> str:
    """Return what a month and its days have in common."""
    found = _PATH.fullmatch(path)
    if found is None:
        return ""
    return f"{found['market']}/{found['kind']}/{found['symbol']}/{found['timeframe']}/{found['period'][:7]}"
