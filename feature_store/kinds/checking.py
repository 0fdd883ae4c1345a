"""Whether rows of a kind could have come from the market they name."""

from __future__ import annotations

import re

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from feature_store.kinds.definition import Column, Content, Kind, Known, Subject
from feature_store.kinds.records import Records

FIRST_MS = 100_000_000_000
"""Milliseconds before this are seconds: 1973, older than any market we know."""
LAST_MS = 100_000_000_000_000
"""Milliseconds after this are microseconds: the year 5138."""

_VENUE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]*")

Flags = npt.NDArray[np.bool_]


def require_subject(kind: Kind, subject: Subject) -> None:
    """
    Check that a subject has a timeframe just where its kind has one, and names that can be folders.

    Raises:
        BadInputError: It has not.
    """
    if not _VENUE.fullmatch(subject.venue) or not subject.symbol.strip():
        raise BadInputError(
            f"Expected a venue such as binanceusdm and a symbol such as BTC/USDT:USDT, found {subject.key}"
        )
    if kind.has_timeframe != (subject.timeframe is not None):
        wanted = "needs a timeframe" if kind.has_timeframe else "has no timeframe"
        raise BadInputError(f"{kind} {wanted}, found {subject.key}")


def sound_rows(subject: Subject, records: Records, now_ms: int) -> npt.NDArray[np.intp]:
    """
    Return the places of the rows in order of time and key, if all of them make sense.

    Args:
        subject: What they are about.
        records: The rows, in any order; one that is there twice with the same content counts once.
        now_ms: The present: nothing may be from later, and a candle has to be closed.

    Raises:
        BadInputError: A row makes no sense; the message says which and why.
    """
    kind = records.kind
    require_subject(kind, subject)
    if len(records) == 0:
        return np.empty(0, np.intp)
    _refuse_times(subject, records, now_ms)
    for column in kind.columns:
        _refuse_values(subject, records, column)
    if kind.is_candle:
        _refuse_torn_candles(subject, records)
    order = records.order()
    ordered = records.take(order)
    again = ordered.repeats_key()
    contradicts = again & ~ordered.repeats_values()
    if contradicts.any():
        _refuse(subject, ordered, contradicts, "two rows of one time and key must say the same")
    return order[~again]


def closed_ms(kind: Kind, subject: Subject) -> int:
    """Return how long after its time a row is complete."""
    if kind.known is Known.AT_CLOSE and subject.timeframe is not None:
        return subject.timeframe.milliseconds
    return 0


def _refuse_times(subject: Subject, records: Records, now_ms: int) -> None:
    kind, times = records.kind, records.time_ms
    if (times < FIRST_MS).any():
        _refuse(subject, records, times < FIRST_MS, "a time that looks like seconds; expected milliseconds")
    if (times > LAST_MS).any():
        _refuse(subject, records, times > LAST_MS, "a time that looks finer than milliseconds; expected milliseconds")
    grid_ms = subject.timeframe.milliseconds if subject.timeframe is not None else kind.grid_ms
    if (times % grid_ms != 0).any():
        _refuse(subject, records, times % grid_ms != 0, f"times must be multiples of {grid_ms} ms")
    late = times + closed_ms(kind, subject) > now_ms
    if late.any():
        fault = "a candle that has not closed" if kind.is_candle else "a time in the future"
        _refuse(subject, records, late, f"{fault} (it is {now_ms} ms)")


def _refuse_values(subject: Subject, records: Records, column: Column) -> None:
    values = records[column.name]
    if column.content is Content.TEXT:
        _refuse_where(subject, records, np.array([not one.strip() for one in values]), f"{column.name} is empty")
        return
    if column.content is Content.FLAG:
        return
    there = np.ones(len(values), np.bool_)
    if column.content is Content.NUMBER:
        there = ~np.isnan(values)
        if not column.may_lack:
            _refuse_where(subject, records, ~there, f"{column.name} is missing")
        _refuse_where(subject, records, np.isinf(values), f"{column.name} is infinite")
    with np.errstate(invalid="ignore"):
        if column.above is not None:
            wrong = there & (values <= column.above)
            _refuse_where(subject, records, wrong, f"{column.name} must be above {column.above:g} {column.unit}")
        if column.least is not None:
            wrong = there & (values < column.least)
            _refuse_where(subject, records, wrong, f"{column.name} must be at least {column.least:g} {column.unit}")
        if column.most is not None:
            wrong = there & (values > column.most)
            _refuse_where(subject, records, wrong, f"{column.name} must be at most {column.most:g} {column.unit}")


def _refuse_torn_candles(subject: Subject, records: Records) -> None:
    open_, high, low, close = (records[name] for name in ("open", "high", "low", "close"))
    torn = (low > np.minimum(open_, close)) | (high < np.maximum(open_, close))
    _refuse_where(subject, records, torn, "low <= open, close <= high does not hold")


def _refuse_where(subject: Subject, records: Records, wrong: Flags, fault: str) -> None:
    if wrong.any():
        _refuse(subject, records, wrong, fault)


def _refuse(subject: Subject, records: Records, wrong: Flags, fault: str) -> None:
    row = int(np.argmax(wrong))
    shown = {name: array[row].item() for name, array in records.columns.items()}
    raise BadInputError(
        f"Unusable {records.kind} of {subject.symbol} at row {row} (time {int(records.time_ms[row])} ms, {shown}): "
        f"{fault}. Nothing was stored; fetch it again"
    )
