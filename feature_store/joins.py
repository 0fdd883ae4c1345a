"""What stores other than the lake know, in the forms in which training sets and universes ask for it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from feature_store.candle import Series
from feature_store.context.definition import CONTEXT_NAMES
from feature_store.context.features import ContextView
from feature_store.context.mentions import asset_of
from feature_store.context.store import Told
from feature_store.errors import BadInputError
from feature_store.kinds.definition import FILTERS, Content, Kind, Subject
from feature_store.kinds.records import KnownRecords
from feature_store.kinds.store import KindStore
from feature_store.observations import AVAILABLE_AT, EVENT_TIME, SYMBOL, Observations, Times
from feature_store.universe.facts import Listing

_TRADES = ("TRADING", "ACTIVE")
"""A venue's words for an instrument that can be traded: Binance's, and what our store says where a venue has none."""
_ARROW: dict[Content, Any] = {
    Content.NUMBER: pa.float64(),
    Content.WHOLE: pa.int64(),
    Content.FLAG: pa.bool_(),
    Content.TEXT: pa.string(),
}


def kind_observations(
    store: KindStore, kind: Kind, series: Iterable[Series], *, name: str | None = None, max_age_ms: int | None = None
) -> Observations:
    """
    Return every revision of what a kind holds of some series, with when each could be known.

    An event's time is the row's, as the kind defines it: for candles of mark and index prices that is their open.

    Args:
        store: Where the rows are.
        kind: What they are; not trades and books, of which there are many at once.
        series: Whose; the timeframe counts where the kind has one.
        name: What its columns are called once joined; by default the kind's name.
        max_age_ms: How old an event may be and still be told; by default any age.

    Raises:
        BadInputError: The kind has several rows for one time.
        CorruptFileError: A file is damaged.
    """
    if kind.key:
        raise BadInputError(
            f"{kind} has several rows for one time, told apart by {', '.join(kind.key)}; sum them up first"
        )
    parts = [(one.symbol, store.read_known(kind, Subject.of(kind, one))) for one in sorted(set(series))]
    columns: dict[str, Any] = {
        SYMBOL: pa.array([symbol for symbol, known in parts for _ in range(len(known))], pa.string()),
        EVENT_TIME: _column(pa.int64(), [known.records.time_ms for _, known in parts]),
        AVAILABLE_AT: _column(pa.int64(), [known.available_at_ms for _, known in parts]),
    }
    for column in kind.columns:
        columns[column.name] = _column(_ARROW[column.content], [known.records[column.name] for _, known in parts])
    return Observations(name or kind.name.replace("-", "_"), pa.table(columns), max_age_ms)


@dataclass(frozen=True, slots=True, eq=False)
class ContextObservations:
    """What other sources said, as the context features at each decision; NaN where nothing was known."""

    told: Told
    name: str = "context"

    @property
    def columns(self) -> tuple[str, ...]:
        """The context features, as they are called once joined."""
        return tuple(f"{self.name}.{feature}" for feature in CONTEXT_NAMES)

    def known(self, symbols: Sequence[str], decided_at_ms: Times, as_of_ms: int | None = None) -> pa.Table:
        """Return the features of what had arrived at each decision, and of nothing that arrived after `as_of_ms`."""
        told, decided_ms = self.told, np.ascontiguousarray(decided_at_ms, np.int64)
        if as_of_ms is not None:
            told = told.take(slice(0, int(np.searchsorted(told.available_at_ms, as_of_ms, side="right"))))
        view = ContextView(told)
        rows = np.full((len(decided_ms), len(CONTEXT_NAMES)), np.nan)
        named = np.array(symbols, np.str_)
        for symbol in dict.fromkeys(symbols):
            own = named == symbol
            rows[own] = view.features(asset_of(symbol), decided_ms[own])
        return pa.table({name: pa.array(rows[:, place]) for place, name in enumerate(self.columns)})


def listings_of(store: KindStore, venue: str) -> list[Listing]:
    """
    Return what a venue said of when it trades each instrument, as it came to us, from the recorded filters.

    Raises:
        CorruptFileError: A file is damaged.
    """
    return [
        listing
        for subject in store.subjects(FILTERS)
        if subject.venue == venue
        for listing in _listings(subject.symbol, store.read_known(FILTERS, subject))
    ]


def _listings(symbol: str, known: KnownRecords) -> Iterable[Listing]:
    rows = known.records
    columns = (known.available_at_ms, rows.time_ms, rows["listed_ms"], rows["status"])
    for available_ms, time_ms, listed_ms, status in zip(*(column.tolist() for column in columns), strict=True):
        gone_ms = None if status in _TRADES else time_ms
        yield Listing(symbol, available_ms, listed_ms=listed_ms or None, delisted_ms=gone_ms)


def _column(kind: Any, arrays: Sequence[Any]) -> Any:
    return pa.chunked_array(
        [pa.array(array.tolist() if array.dtype.kind == "U" else array, kind) for array in arrays], kind
    )
