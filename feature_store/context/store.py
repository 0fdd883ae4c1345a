"""What other sources said, as Parquet: one file for each source and day of arrival; nothing is ever changed in it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from feature_store.context.observation import MARKET, Figure, Observation
from feature_store.context.source import SourceError
from feature_store.errors import CorruptFileError, NotAllowedError
from feature_store.files import replacing
from feature_store.partitions import locked

_TIME = pa.timestamp("ms", tz="UTC")
_FIELDS: list[Any] = [
    pa.field("available_at", _TIME, nullable=False),
    pa.field("claimed_at", _TIME),
    pa.field("item", pa.string(), nullable=False),
    pa.field("revision", pa.int32(), nullable=False),
    pa.field("subject", pa.string(), nullable=False),
    pa.field("metric", pa.string(), nullable=False),
    pa.field("value", pa.float64(), nullable=False),
]
SCHEMA = pa.schema(_FIELDS)
_REMEDY = "Nothing else is affected. Move it away; what it held is not asked for again"
_ORDER: Any = [(name, "ascending") for name in ("available_at", "source", "item", "revision")]
_DAY_MS = 86_400_000
_OWNER = b"source"
_CLOCK_ERROR_MS = 3_600_000
"""Our clock may be set back by as much; arrivals then keep the order in which they came."""
_LAST_MS = 253_402_300_799_000  # The end of the year 9999.


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """Figures as they arrived, oldest first; `event_ms` is when it happened: as claimed, but not after it arrived."""

    source: tuple[str, ...]
    available_at_ms: npt.NDArray[np.int64]
    event_ms: npt.NDArray[np.int64]
    item: tuple[str, ...]
    revision: npt.NDArray[np.int64]
    subject: npt.NDArray[np.str_]
    metric: npt.NDArray[np.str_]
    value: npt.NDArray[np.float64]

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """Read rows of our schema, with a column that names their source."""
        available = table["available_at"].cast(pa.int64()).to_numpy()
        event = pc.coalesce(table["claimed_at"], table["available_at"]).cast(pa.int64()).to_numpy()
        return cls(
            tuple(map(str, table["source"].to_pylist())),
            available,
            np.minimum(event, available),
            tuple(map(str, table["item"].to_pylist())),
            table["revision"].cast(pa.int64()).to_numpy(),
            np.array(table["subject"].to_pylist(), np.str_),
            np.array(table["metric"].to_pylist(), np.str_),
            table["value"].to_numpy(),
        )

    def __len__(self) -> int:
        return len(self.value)

    def take(self, rows: slice) -> Self:
        """Return rows that follow each other."""
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))


class ObservationStore:
    """
    Observations under `root/observations/source=…/YYYY-MM-DD.parquet`.

    What is served again unchanged is not stored again; what was changed at its source is stored beside it, as the
    next revision, available from its arrival on. Writers hold a lock for each source; readers take none.
    """

    def __init__(self, root: Path) -> None:
        self.root = root / "observations"

    def append(self, source: str, observations: Sequence[Observation], arrived_ms: int, *, topic: str) -> int:
        """
        Store what is new of one answer and return how many observations that are; `topic` notes that it answered.

        Raises:
            CorruptFileError: A file of the source is damaged; it was left as it is.
            SourceError: Our clock is behind what is stored by more than it may be.
        """
        folder = self.folder(source)
        with locked(folder / "append"):
            at_ms = self._arrival(source, arrived_ms)
            fresh = list(_fresh(observations, self._known(source, observations, at_ms)))
            polled = Observation("polled", None, (Figure(MARKET, topic, float(len(observations))),))
            path = folder / f"{_day(at_ms)}.parquet"
            rows = _table([*fresh, (polled, 0)], at_ms)
            stored = read_day(path)
            with replacing(path) as temporary:
                whole = rows if stored is None else pa.concat_tables([stored, rows])
                whole = whole.replace_schema_metadata({_OWNER: source.encode()})
                pq.write_table(whole, temporary, compression="zstd", write_page_checksum=True)
        return len(fresh)

    def read(
        self,
        sources: Sequence[str] | None = None,
        start_ms: int | None = None,
        end_ms: int | None = None,
    ) -> Told:
        """
        Return what arrived in `[start_ms, end_ms)` from some sources, or all, oldest first.

        What was known at a moment is what arrived until then: `read(end_ms=moment + 1)`.

        Raises:
            CorruptFileError: A file is damaged.
        """
        tables = [
            _named(table, source)
            for source in (self.sources() if sources is None else sources)
            for path in self._paths(source, start_ms, end_ms)
            if (table := read_day(path)) is not None
        ]
        told = Told.of(pa.concat_tables([_named(SCHEMA.empty_table(), ""), *tables]).sort_by(_ORDER))
        begin = 0 if start_ms is None else int(np.searchsorted(told.available_at_ms, start_ms))
        end = len(told) if end_ms is None else int(np.searchsorted(told.available_at_ms, end_ms))
        return told.take(slice(begin, end))

    def sources(self) -> list[str]:
        """Return the sources that ever answered, in order."""
        return sorted(
            path.name.partition("=")[2] for path in self.root.glob("source=*") if any(path.glob("????-??-??.parquet"))
        )

    def folder(self, source: str) -> Path:
        """Return where one source is kept."""
        return self.root / f"source={source}"

    def _paths(self, source: str, start_ms: int | None = None, end_ms: int | None = None) -> list[Path]:
        first = "" if start_ms is None else _day(start_ms)
        last = "9999" if end_ms is None else _day(end_ms - 1)
        found = sorted(self.folder(source).glob("????-??-??.parquet"))
        return [path for path in found if first <= path.stem <= last]

    def _arrival(self, source: str, arrived_ms: int) -> int:
        """Return when an answer counts as arrived: never before one that is stored already."""
        paths = self._paths(source)
        newest = read_day(paths[-1]) if paths else None
        if newest is None:
            return arrived_ms
        last_ms = int(newest["available_at"].cast(pa.int64()).to_numpy().max())
        if last_ms - arrived_ms > _CLOCK_ERROR_MS:
            raise SourceError(
                f"Our clock says {arrived_ms} ms, but {source} was stored at {last_ms} ms; set the clock right, or "
                f"move {paths[-1]} away if it was wrong then"
            )
        return max(arrived_ms, last_ms)

    def _known(
        self, source: str, observations: Sequence[Observation], at_ms: int
    ) -> dict[str, tuple[int, frozenset[Figure]]]:
        """Return the newest revision of each item that may be served again."""
        firsts = [one.first_ms for one in observations if one.first_ms is not None]
        # Give or take a day of wrong clocks, theirs and ours.
        start_ms = min([*firsts, at_ms]) - _DAY_MS if len(firsts) == len(observations) else None
        wanted = {one.item for one in observations}
        found: dict[str, tuple[int, set[Figure]]] = {}
        for path in self._paths(source, start_ms) if wanted else []:
            table = read_day(path)
            if table is None:
                continue
            columns = [table[name].to_pylist() for name in ("item", "revision", "subject", "metric", "value")]
            for item, revision, subject, metric, value in zip(*columns, strict=True):
                if item not in wanted:
                    continue
                if revision > found.get(item, (-1, set()))[0]:
                    found[item] = (revision, set())
                found[item][1].add(Figure(subject, metric, value))
        return {item: (revision, frozenset(figures)) for item, (revision, figures) in found.items()}


def _fresh(
    observations: Iterable[Observation], known: Mapping[str, tuple[int, frozenset[Figure]]]
) -> Iterator[tuple[Observation, int]]:
    """Yield what is new, each item once, with the number of its revision."""
    seen = set()
    for one in observations:
        figures = tuple(figure for figure in one.figures if math.isfinite(figure.value))
        if one.item in seen or not figures:
            continue
        seen.add(one.item)
        revision, before = known.get(one.item, (-1, frozenset()))
        if frozenset(figures) != before:
            yield replace(one, figures=figures), revision + 1


def _table(rows: Iterable[tuple[Observation, int]], at_ms: int) -> pa.Table:
    columns: list[list[Any]] = [[], [], [], [], [], [], []]
    for one, revision in rows:
        # A claim that no calendar holds is no claim.
        claimed = one.claimed_ms if one.claimed_ms is not None and 0 <= one.claimed_ms <= _LAST_MS else None
        for figure in one.figures:
            row = (at_ms, claimed, _text(one.item), revision, _text(figure.subject), figure.metric, figure.value)
            for column, value in zip(columns, row, strict=True):
                column.append(value)
    return pa.Table.from_arrays(
        [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)], schema=SCHEMA
    )


def read_day(path: Path) -> pa.Table | None:
    """
    Read what arrived on one day, None where there is no file.

    Raises:
        CorruptFileError: The file cannot be read, or is not one of this source's.
        NotAllowedError: This user may not read it.
    """
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            table = file.read()
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise NotAllowedError(path) from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise CorruptFileError(path, f"not a whole Parquet file ({str(error)[:120]})", _REMEDY) from error
    if not table.schema.equals(SCHEMA):
        raise CorruptFileError(path, f"expected columns {SCHEMA.names}, found {table.schema.names}", _REMEDY)
    # Files of before do not say whose they are.
    owner = (table.schema.metadata or {}).get(_OWNER, b"").decode(errors="replace")
    if owner and owner != path.parent.name.partition("=")[2]:
        raise CorruptFileError(path, f"it holds rows of {owner}", _REMEDY)
    return table.replace_schema_metadata(None)


def _named(table: pa.Table, source: str) -> pa.Table:
    return table.append_column("source", pa.repeat(pa.scalar(source, pa.string()), len(table)))


def _text(text: str) -> str:
    """Return a text that can be stored: half a sign cannot."""
    return text.encode("utf-8", "replace").decode()


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(min(max(time_ms, 0), _LAST_MS) / 1000, UTC):%Y-%m-%d}"
