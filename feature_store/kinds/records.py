"""Rows of one kind as columns, and the same rows with when they could be known."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from feature_store.kinds.definition import Content, Kind

Array = npt.NDArray[Any]
Choice = npt.NDArray[np.intp] | npt.NDArray[np.bool_]

_TYPES: dict[Content, Any] = {
    Content.NUMBER: np.float64,
    Content.WHOLE: np.int64,
    Content.FLAG: np.bool_,
    Content.TEXT: np.str_,
}


@dataclass(frozen=True, slots=True, eq=False)
class Records:
    """Rows of one kind: their times, and an array for each column, `records["funding_rate"]`."""

    kind: Kind
    time_ms: npt.NDArray[np.int64]
    columns: Mapping[str, Array]

    @classmethod
    def of(cls, kind: Kind, time_ms: Sequence[int] | Array, **columns: Sequence[Any] | Array) -> Self:
        """
        Read columns of any sequences.

        Raises:
            BadInputError: A column is missing, unknown, of another length, or holds something else.
        """
        names = [column.name for column in kind.columns]
        if set(columns) != set(names):
            raise BadInputError(f"{kind} has the columns {', '.join(names)}; found {', '.join(sorted(columns))}")
        times = _array(kind, "time_ms", time_ms, Content.WHOLE)
        arrays = {
            column.name: _array(kind, column.name, columns[column.name], column.content) for column in kind.columns
        }
        for name, array in arrays.items():
            if array.shape != times.shape:
                raise BadInputError(f"{kind}: {len(times)} times but {len(array)} values of {name}")
        return cls(kind, times, arrays)

    @classmethod
    def empty(cls, kind: Kind) -> Self:
        """Return no rows."""
        return cls.of(kind, [], **{column.name: [] for column in kind.columns})

    def __len__(self) -> int:
        return len(self.time_ms)

    def __getitem__(self, column: str) -> Array:
        return self.columns[column]

    def take(self, rows: Choice | slice) -> Records:
        """Return chosen rows."""
        return Records(self.kind, self.time_ms[rows], {name: array[rows] for name, array in self.columns.items()})

    def between(self, start_ms: int | None, end_ms: int | None) -> Records:
        """Return the rows with times in `[start_ms, end_ms)`, of rows in order of time."""
        begin = 0 if start_ms is None else int(np.searchsorted(self.time_ms, start_ms))
        end = len(self) if end_ms is None else int(np.searchsorted(self.time_ms, end_ms))
        return self.take(slice(begin, end))

    def concat(self, *others: Records) -> Records:
        """Return these rows followed by others, as they are."""
        parts = [self, *others]
        columns = {name: np.concatenate([part.columns[name] for part in parts]) for name in self.columns}
        return Records(self.kind, np.concatenate([part.time_ms for part in parts]), columns)

    def order(self) -> npt.NDArray[np.intp]:
        """Return the rows' places by time and key; equal ones keep their order."""
        return np.lexsort((*[self.columns[name] for name in reversed(self.kind.key)], self.time_ms))

    def repeats_key(self) -> npt.NDArray[np.bool_]:
        """Mark the rows with the time and key of the row before them."""
        return _as_before([self.time_ms, *[self.columns[name] for name in self.kind.key]])

    def repeats_values(self) -> npt.NDArray[np.bool_]:
        """Mark the rows that say what the row before them says; two absent numbers say the same."""
        return _as_before([self.columns[name] for name in self.kind.values])

    def equals(self, other: Records) -> bool:
        """Tell whether both hold the same rows, to the bit; two absent numbers are the same."""
        return np.array_equal(self.time_ms, other.time_ms) and all(
            np.array_equal(self.columns[name], other.columns[name], equal_nan=self.columns[name].dtype.kind == "f")
            for name in self.columns
        )


@dataclass(frozen=True, slots=True, eq=False)
class KnownRecords:
    """Stored rows, each revision of them, with when each could be known; in order of time, key and revision."""

    records: Records
    available_at_ms: npt.NDArray[np.int64]
    revision: npt.NDArray[np.int32]

    @classmethod
    def empty(cls, kind: Kind) -> Self:
        """Return no rows."""
        return cls(Records.empty(kind), np.empty(0, np.int64), np.empty(0, np.int32))

    def __len__(self) -> int:
        return len(self.records)

    def take(self, rows: Choice | slice) -> KnownRecords:
        """Return chosen rows."""
        return KnownRecords(self.records.take(rows), self.available_at_ms[rows], self.revision[rows])

    def concat(self, *others: KnownRecords) -> KnownRecords:
        """Return these rows followed by others."""
        return KnownRecords(
            self.records.concat(*[other.records for other in others]),
            np.concatenate([self.available_at_ms, *[other.available_at_ms for other in others]]),
            np.concatenate([self.revision, *[other.revision for other in others]]),
        )

    def in_order(self) -> KnownRecords:
        """Return the rows by time, key and revision."""
        kind, records = self.records.kind, self.records
        keys = [records[name] for name in reversed(kind.key)]
        return self.take(np.lexsort((self.revision, *keys, records.time_ms)))

    def latest(self, as_of_ms: int | None = None) -> KnownRecords:
        """Return the newest revision of each row, or the newest that was known at a moment."""
        known = self if as_of_ms is None else self.take(self.available_at_ms <= as_of_ms)
        if len(known) < 2:
            return known
        return known.take(np.append(~known.records.repeats_key()[1:], [True]))


def _as_before(arrays: Sequence[Array]) -> npt.NDArray[np.bool_]:
    """Mark the rows that equal the row before them in every array; the first row equals none."""
    same = np.zeros(len(arrays[0]), np.bool_)
    if len(same) > 1:
        same[1:] = np.logical_and.reduce([_equal(array[1:], array[:-1]) for array in arrays])
    return same


def _equal(left: Array, right: Array) -> npt.NDArray[np.bool_]:
    same: npt.NDArray[np.bool_] = left == right
    return same | (np.isnan(left) & np.isnan(right)) if left.dtype.kind == "f" else same


def _array(kind: Kind, name: str, values: Sequence[Any] | Array, content: Content) -> Array:
    try:
        given = np.asarray(values)
        _refuse_other_content(given, content)
        if len(given) == 0:
            return np.empty(0, _TYPES[content])
        return np.ascontiguousarray(given.astype(_TYPES[content]))
    except (TypeError, ValueError, OverflowError) as error:
        raise BadInputError(f"{kind}: {name} has to be a list of {content}s ({error})") from error


def _refuse_other_content(given: Array, content: Content) -> None:
    """Refuse what numpy would convert without a word: half a number, a number for a flag, a flag for a number."""
    if given.ndim != 1:
        raise TypeError(f"found {given.ndim} dimensions")
    wanted = {Content.NUMBER: "fiu", Content.WHOLE: "iu", Content.FLAG: "b", Content.TEXT: "U"}[content]
    if len(given) and given.dtype.kind not in wanted:
        raise TypeError(f"found {given.dtype}")
