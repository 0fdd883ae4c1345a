"""Tables of dated observations, and the newest of each that was known when a decision was made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import duckdb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from feature_store.errors import BadInputError
from feature_store.queries import query

Times = npt.NDArray[np.int64]

SYMBOL, EVENT_TIME, AVAILABLE_AT = "symbol", "event_time_ms", "available_at_ms"
_NONE = -1
_EVERYTHING_MS = np.iinfo(np.int64).max
# 2001 and 2286: seconds lie far below, microseconds far above.
_EARLIEST_MS, _LATEST_MS = 10**12, 10**13


class Known(Protocol):
    """Anything that can tell what was known of symbols at the moments of decisions."""

    @property
    def name(self) -> str:
        """What its columns are called by: `funding` of `funding.rate`."""
        ...

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that it tells."""
        ...

    def known(self, symbols: Sequence[str], decided_at_ms: Times, as_of_ms: int | None = None) -> pa.Table:
        """Return a row of its columns for each decision, of what was available then, and by `as_of_ms`."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Observations:
    """
    What a source said, and when: columns symbol, event_time_ms, available_at_ms, and values.

    A row about the same event that became available later corrects the one before. A table without the column symbol
    holds for every symbol.

    Args:
        name: How its columns are called once joined: `funding` makes `funding.rate`.
        table: The rows, in any order; where two say different things of one event at the same moment, the later counts.
        max_age_ms: How old an event may be and still be told; by default any age.
    """

    name: str
    table: pa.Table
    max_age_ms: int | None = None

    def __post_init__(self) -> None:
        """Refuse tables that cannot be joined, or whose times are not milliseconds, or could not be."""
        if not self.name.isidentifier():
            raise BadInputError(f"Observations need a name of letters, digits and _, was {self.name!r}")
        columns = self.table.column_names
        if len(set(columns)) != len(columns) or not {EVENT_TIME, AVAILABLE_AT} <= set(columns):
            raise BadInputError(
                f"Observations {self.name} need the columns {EVENT_TIME} and {AVAILABLE_AT} once, were {columns}"
            )
        if SYMBOL in columns and not pa.types.is_string(self.table.schema.field(SYMBOL).type):
            raise BadInputError(f"Observations {self.name} need symbols as text")
        for name in (EVENT_TIME, AVAILABLE_AT):
            _check_times(self.name, name, self.table[name])
        if SYMBOL in columns and self.table[SYMBOL].null_count:
            raise BadInputError(f"Observations {self.name} have rows without a symbol; leave those out")
        early = pc.less(self.table[AVAILABLE_AT], self.table[EVENT_TIME])
        if pc.any(early).as_py():
            place = pc.index(early, True).as_py()
            raise BadInputError(
                f"Observations {self.name} say in row {place} that an event of {self.table[EVENT_TIME][place]} ms was "
                f"known at {self.table[AVAILABLE_AT][place]} ms, before it happened; of what was announced, the "
                "announcement is the event"
            )
        if self.max_age_ms is not None and self.max_age_ms < 0:
            raise BadInputError(f"Observations {self.name} need a max_age_ms from 0, was {self.max_age_ms}")

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns of values, as they are called once joined; the event's own time is the first."""
        return tuple(f"{self.name}.{column}" for column in self._told())

    def _told(self) -> list[str]:
        return [EVENT_TIME, *[one for one in self.table.column_names if one not in (SYMBOL, EVENT_TIME, AVAILABLE_AT)]]

    def known(self, symbols: Sequence[str], decided_at_ms: Times, as_of_ms: int | None = None) -> pa.Table:
        """
        Return for each decision the newest observation of its symbol that had become available; nulls where none had.

        With `as_of_ms`, what became available after that moment does not count, corrections included.
        """
        decided_at_ms = np.ascontiguousarray(decided_at_ms, np.int64)
        if len(symbols) != len(decided_at_ms):
            raise BadInputError(
                f"Each decision needs a symbol and a time, were {len(symbols)} and {len(decided_at_ms)}"
            )
        rows = self._newest_rows(symbols, decided_at_ms, as_of_ms)
        if self.max_age_ms is not None and len(self.table):
            event_ms = self.table[EVENT_TIME].to_numpy()[rows]
            rows[decided_at_ms - event_ms > self.max_age_ms] = _NONE
        chosen: Any = pa.array(rows, mask=rows == _NONE)
        told = self.table.select(self._told()).take(chosen)
        return told.rename_columns(list(self.columns))

    def _newest_rows(self, symbols: Sequence[str], decided_at_ms: Times, as_of_ms: int | None) -> Times:
        everywhere = SYMBOL not in self.table.column_names
        decisions: dict[str, Any] = {
            "row": pa.array(np.arange(len(decided_at_ms))),
            SYMBOL: pa.repeat("", len(symbols)) if everywhere else pa.array(symbols, pa.string()),
            "decided_at_ms": pa.array(decided_at_ms),
        }
        observed: dict[str, Any] = {
            "row": pa.array(np.arange(len(self.table))),
            SYMBOL: pa.repeat("", len(self.table)) if everywhere else self.table[SYMBOL],
            EVENT_TIME: self.table[EVENT_TIME],
            AVAILABLE_AT: self.table[AVAILABLE_AT],
        }
        with duckdb.connect() as connection:
            connection.register("decisions", pa.table(decisions))
            connection.register("observations", pa.table(observed))
            parameters = {"as_of": _EVERYTHING_MS if as_of_ms is None else as_of_ms}
            found = connection.sql(query("newest_known"), params=parameters).to_arrow_table()
        rows: Times = pc.fill_null(found["observation"], _NONE).to_numpy().copy()
        return rows


def joined(
    observations: Iterable[Known], symbols: Sequence[str], decided_at_ms: Times, as_of_ms: int | None = None
) -> pa.Table:
    """
    Return what each of several tables knew at each decision, side by side.

    Raises:
        BadInputError: Two tables have one name.
    """
    columns: dict[str, Any] = {}
    for one in observations:
        if set(one.columns) & set(columns):
            raise BadInputError(f"Two tables of observations are called {one.name}; give each its own name")
        known = one.known(symbols, decided_at_ms, as_of_ms)
        columns |= {name: known[name] for name in known.column_names}
    return pa.table(columns)


def _check_times(table: str, column: str, times: Any) -> None:
    if times.type != pa.int64():
        raise BadInputError(f"Observations {table} need {column} as whole milliseconds (int64), was {times.type}")
    if times.null_count:
        raise BadInputError(f"Observations {table} have rows without {column}; leave those out")
    values = times.to_numpy()
    if len(values) and not (values.min() >= _EARLIEST_MS and values.max() < _LATEST_MS):
        raise BadInputError(
            f"Observations {table} need {column} in milliseconds since 1970, were {values.min()} to {values.max()}; "
            "seconds and microseconds have to be converted"
        )
