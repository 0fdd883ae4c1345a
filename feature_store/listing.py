"""What a lake holds of each series and kind: files, rows, bytes, first and last time, and what is missing."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from feature_store.candle import Series
from feature_store.errors import CorruptFileError, NotAllowedError
from feature_store.partitions import Rows, read_partition
from feature_store.storage import storage_of

if TYPE_CHECKING:
    from feature_store.lake import CandleLake

CANDLES = "candles"


@dataclass(frozen=True, slots=True)
class Listing:
    """One series, kind or source as a line of a table; what lies in damaged files is not counted."""

    kind: str
    venue: str
    timeframe: str
    symbol: str
    files: int
    rows: int
    bytes: int
    first_ms: int | None
    last_ms: int | None
    missing: int | None
    """Candles; of other kinds nobody knows how many there should be."""
    corrections: int
    damaged: int

    def as_json(self) -> dict[str, Any]:
        """Return the line for machines."""
        return asdict(self)

    def cells(self) -> tuple[str, ...]:
        """Return the line for people."""
        return (
            self.kind,
            self.venue,
            self.timeframe,
            self.symbol,
            f"{self.files}",
            f"{self.rows}",
            f"{self.bytes / 1e6:.1f} MB",
            _moment(self.first_ms),
            _moment(self.last_ms),
            "" if self.missing is None else f"{self.missing}",
            f"{self.corrections}",
            f"{self.damaged} damaged: qtctl lake check" if self.damaged else "",
        )


def listed(lake: CandleLake, series: Series) -> Listing:
    """Return what is stored of a series, as far as it can be read."""
    places, parts, damaged, size = lake.paths(series), [Rows.empty()], 0, 0
    for place in places:
        try:
            parts.append(read_partition(place))
            size += storage_of(place).size(place)
        except (CorruptFileError, NotAllowedError):
            damaged += 1
        except FileNotFoundError:
            continue  # Retention was quicker.
    rows = parts[0].concat(*parts[1:])
    block = rows.latest().block
    first, last = block.first_open_time_ms, block.last_open_time_ms
    expected = 0 if first is None or last is None else (last - first) // series.timeframe.milliseconds + 1
    return Listing(
        CANDLES,
        series.venue,
        str(series.timeframe),
        series.symbol,
        len(places),
        len(rows),
        size,
        first,
        last,
        expected - len(block),
        len(rows) - len(block),
        damaged,
    )


def _moment(time_ms: int | None) -> str:
    return "" if time_ms is None else f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d %H:%M}"
