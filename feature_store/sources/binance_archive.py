"""Binance's public bulk archives: monthly and daily zip files of candles, each with its checksum beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Self

import numpy as np

from feature_store.candle import CandleBlock, Series, Timeframe
from feature_store.errors import BadInputError, UnknownTimeframeError
from feature_store.sources.archive_files import LARGEST_BYTES, Address, ArchiveFiles, Folder
from feature_store.sources.archive_zips import checksum_in, days_of, months_from, period_of, unpacked, verified
from feature_store.sources.importing import Part, Selection
from feature_store.sources.recorded import unified_name

_PATH = re.compile(
    r"(?:.*/)?(?P<market>spot|futures/um)/(?P<every>daily|monthly)/klines/(?P<symbol>[^/]+)/(?P<timeframe>[^/]+)/"
    r"(?P<stem>[^/]+-(?P<period>\d{4}-\d{2}(?:-\d{2})?))\.zip"
)
_FLAT = re.compile(
    r"(?P<above>.*/)?(?P<stem>(?P<symbol>[A-Z0-9]+)-(?P<timeframe>\d+[a-zA-Z]{1,2})-(?P<period>\d{4}-\d{2}(?:-\d{2})?))\.zip"
)
_TREE = re.compile(
    r"(?:.*/)?(?:(?:spot|option|futures/[a-z]+)/(?:daily|monthly)|[a-zA-Z]+PriceKlines|premiumIndexKlines)/"
)
"""Below these folders a file's place says what it is; candles of prices that nobody traded at are called alike."""
_LAYOUT = (
    "expected files as data/spot/monthly/klines/BTCUSDT/5m/BTCUSDT-5m-2024-01.zip, each with its .CHECKSUM, or, with "
    "--venue, BTCUSDT-5m-2024-01.zip in any other folder"
)
_LATE_DAYS = 2
"""Binance publishes a day's archive during the next one, sometimes later."""
_MARKETS = {"spot": "binance", "futures/um": "binance_usdm"}
_COLUMNS = 12
_OPEN_TIME, _CLOSE_TIME, _IGNORED = 0, 6, 11
_HEADER = b"open_time"
_SECONDS_UNTIL, _MICROSECONDS_FROM = 100_000_000_000, 100_000_000_000_000
_TIMES_UNTIL = 100_000_000_000_000_000
_AT_ONCE = 8


@dataclass(frozen=True, slots=True)
class _Archive:
    """What the path of an archive says that it holds."""

    path: str
    series: Series
    stem: str
    begin_ms: int
    end_ms: int
    monthly: bool

    @classmethod
    def of(cls, path: str, venue: str | None = None) -> Self | None:
        """
        Read a path; None where it is no archive of candles in one of our timeframes.

        Args:
            path: Where it lies, in the tree of the public archives or outside of it.
            venue: Whose a file outside of the tree is, and into which market's names its symbol is put.

        Raises:
            BadInputError: Folders and file name disagree, or the symbol is not one we can name, or nothing says whose
                it is.
        """
        found = _PATH.fullmatch(path)
        if found is None:
            return cls._flat(path, venue)
        try:
            timeframe = Timeframe.parse(found["timeframe"])
        except UnknownTimeframeError:
            return None
        expected = f"{found['symbol']}-{timeframe}-{found['period']}"
        if found["stem"] != expected:
            raise BadInputError(f"{path}: expected a file of {found['symbol']} and {timeframe} in this folder")
        series = Series(*unified_name(_MARKETS[found["market"]], found["symbol"]), timeframe)
        return cls._dated(path, series, found, monthly=found["every"] == "monthly")

    @classmethod
    def _flat(cls, path: str, venue: str | None) -> Self | None:
        found = _FLAT.fullmatch(path)
        if found is None or _TREE.match(found["above"] or ""):
            return None
        try:
            timeframe = Timeframe.parse(found["timeframe"])
        except UnknownTimeframeError:
            return None
        if venue is None:
            raise BadInputError(
                f"{path}: outside of data/spot or data/futures/um nothing says whose candles it holds; say it with "
                "--venue binance, or --venue binanceusdm for perpetuals"
            )
        series = Series(*unified_name(venue, found["symbol"]), timeframe)
        return cls._dated(path, series, found, monthly=len(found["period"]) == len("2024-01"))

    @classmethod
    def _dated(cls, path: str, series: Series, found: re.Match[str], *, monthly: bool) -> Self:
        begin_ms, end_ms = period_of(found["period"], path, monthly=monthly)
        return cls(path, series, found["stem"], begin_ms, end_ms, monthly)

    @property
    def month_key(self) -> str:
        """What a month and its days have in common."""
        return f"{self.series.key} {datetime.fromtimestamp(self.begin_ms / 1000, UTC):%Y-%m}"


@dataclass(frozen=True, slots=True)
class BinanceArchive:
    """
    An archive in the layout of data.binance.vision; where it lists nothing, the days to look for are told.

    `due` are those of the days that are published by now, if there is anything to publish; `venue` says whose files
    outside of the layout are.
    """

    files: ArchiveFiles
    paths: tuple[str, ...]
    due: tuple[str, ...] = ()
    venue: str | None = None

    @classmethod
    def in_folder(cls, root: Path, venue: str | None = None) -> Self:
        """Return the archive of a folder, wherever in the layout it begins, or of files outside of the layout."""
        top = root.resolve()
        found = [top] if top.is_file() else top.rglob("*.zip")
        # Above the folder lie the names that say market, symbol and timeframe.
        return cls(Folder(top), tuple(sorted(map(str, found))), venue=venue)

    @classmethod
    def at_address(cls, url: str, selection: Selection, *, now_ms: int, days: int) -> Self:
        """
        Return the archive behind an address: whole months first, and days of those months that are not published.

        Raises:
            BadInputError: The address is not http, or no symbols and timeframe are chosen: it lists none itself.
        """
        if selection.symbols is None or selection.timeframe is None:
            raise BadInputError("An address cannot be listed; name what you want with --symbols and --timeframe")
        today = datetime.fromtimestamp(now_ms / 1000, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
        first, last = today - timedelta(days=days), today - timedelta(days=_LATE_DAYS)
        paths: list[str] = []
        due: list[str] = []
        for symbol in selection.symbols:
            for month in months_from(first, today):
                paths.append(_path(symbol, selection.timeframe, "monthly", f"{month:%Y-%m}"))
                for day in days_of(month, today):
                    paths.append(_path(symbol, selection.timeframe, "daily", f"{day:%Y-%m-%d}"))
                    if first <= day < last:
                        due.append(paths[-1])
        return cls(Address(url), tuple(paths), tuple(due))

    @property
    def origin(self) -> str:
        """Path or address."""
        return self.files.origin

    @property
    def layout(self) -> str:
        """How the files are called."""
        if isinstance(self.files, Folder):
            return _LAYOUT
        return f"are these the symbols of the venue? The newest {_LATE_DAYS} days are published late"

    def missing(self, parts: Sequence[Part]) -> Sequence[str]:
        """Return in words the days that are due by now and are not among the archives, neither alone nor in a month."""
        found = [archive for part in parts if (archive := self._named(part.name)) is not None]
        months = {archive.month_key for archive in found if archive.monthly}
        there = {archive.path for archive in found}
        absent: dict[Series, list[int]] = {}
        for path in self.due:
            day = self._named(path)
            if day is not None and day.path not in there and day.month_key not in months:
                absent.setdefault(day.series, []).append(day.begin_ms)
        held = {archive.series for archive in found}
        return [_told_absent(series, times, known=series in held) for series, times in absent.items()]

    def _named(self, path: str) -> _Archive | None:
        try:
            return _Archive.of(path, self.venue)
        except BadInputError:
            return None

    def parts(self, selection: Selection) -> Sequence[Part]:
        """Return the archives that are there; a day is left out where its whole month is there too."""
        months: list[str] = []
        days: list[str] = []
        for path in self.paths:
            try:
                archive = _Archive.of(path, self.venue)
            except BadInputError:
                days.append(path)  # Reading it says what is wrong.
                continue
            if archive is not None and selection.stored_as(archive.series) is not None:
                (months if archive.monthly else days).append(path)
        whole = self._there(months)
        covered = {archive.month_key for part in whole if (archive := self._named(part.name)) is not None}
        named = [(path, self._named(path)) for path in days]
        rest = [path for path, archive in named if archive is None or archive.month_key not in covered]
        return [*whole, *self._there(rest)]

    def read(self, part: Part) -> Iterator[tuple[Series, CandleBlock]]:
        """Yield the one series of an archive whose checksum holds."""
        archive = _Archive.of(part.name, self.venue)
        if archive is None:
            raise BadInputError(f"{part.name}: no archive of candles")
        content = verified(self.files, part)
        yield archive.series, _candles(unpacked(content, archive.path, f"{archive.stem}.csv", LARGEST_BYTES), archive)

    def _there(self, paths: Sequence[str]) -> list[Part]:
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            checksums = pool.map(lambda path: self.files.content(f"{path}.CHECKSUM"), paths)
            listed = isinstance(self.files, Folder)
            return [
                Part(path, checksum_in(text or b""), published=True)
                for path, text in zip(paths, checksums, strict=True)
                if listed or text is not None
            ]


def _candles(text: bytes, archive: _Archive) -> CandleBlock:
    lines = [line for line in text.splitlines() if line.strip()]
    if lines and lines[0].startswith(_HEADER):
        lines = lines[1:]
    if not lines:
        raise BadInputError(f"{archive.path} holds no candle")
    try:
        # The last column means nothing, and is not always a number.
        rows = np.loadtxt(
            lines, delimiter=",", comments=None, ndmin=2, converters={_IGNORED: _nothing}, encoding="ascii"
        )
    except ValueError as error:
        raise BadInputError(f"{archive.path}: expected rows of {_COLUMNS} numbers: {error}") from error
    if rows.shape[1] != _COLUMNS:
        raise BadInputError(f"{archive.path}: expected {_COLUMNS} columns, found {rows.shape[1]}")
    if not (np.abs(rows[:, _OPEN_TIME]) < _TIMES_UNTIL).all():
        raise BadInputError(f"{archive.path}: open times that are no times")
    # Seconds for milliseconds are left to the importer, which names them.
    unit = 1000 if rows[0, _OPEN_TIME] >= _MICROSECONDS_FROM else 1
    times = rows[:, _OPEN_TIME]
    if (times % unit != 0).any():
        raise BadInputError(f"{archive.path}: open times that are no whole milliseconds")
    block = CandleBlock((times // unit).astype(np.int64), rows[:, 1:6])
    if block.open_time_ms.min() >= _SECONDS_UNTIL:
        _refuse_other(block, float(np.median(rows[:, _CLOSE_TIME] - times) + 1) / unit, archive)
    return block


def _refuse_other(block: CandleBlock, length_ms: float, archive: _Archive) -> None:
    """Refuse candles of another length or time than the archive's name says."""
    timeframe = archive.series.timeframe
    if length_ms != timeframe.milliseconds:
        raise BadInputError(f"{archive.path}: its candles last {length_ms / 1000:g} s, expected {timeframe}")
    times = block.open_time_ms
    if times.min() < archive.begin_ms or times.max() >= archive.end_ms:
        raise BadInputError(f"{archive.path}: candles from outside the period in its name")


def _path(symbol: str, timeframe: Timeframe, every: str, period: str) -> str:
    """Return where the archive of a unified symbol lies; one with a settlement currency is a perpetual's."""
    pair, _, settle = symbol.partition(":")
    market, native = "futures/um" if settle else "spot", pair.replace("/", "")
    return f"data/{market}/{every}/klines/{native}/{timeframe}/{native}-{timeframe}-{period}.zip"


def _nothing(_text: str) -> float:
    return 0.0


def _told_absent(series: Series, times: Sequence[int], *, known: bool) -> str:
    """Say which days an address lacks, stretch by stretch."""
    if not known:
        return f"{series.symbol} {series.timeframe}: none of {len(times)} days; is this a symbol of {series.venue}?"
    days = np.array(times, "datetime64[ms]").astype("datetime64[D]")
    begins = np.flatnonzero(np.append([True], np.diff(days) > np.timedelta64(1, "D"))).tolist()
    ends = [*begins[1:], len(days)]
    stretches = [
        f"{days[begin]}" if end - begin == 1 else f"{days[begin]} to {days[end - 1]}"
        for begin, end in zip(begins, ends, strict=True)
    ]
    return f"{series.symbol} {series.timeframe}: {len(times)} days, {', '.join(stretches)}"
