"""What may be asked of the feature store: series that are stored, stretches and moments in milliseconds, a horizon."""

from __future__ import annotations

from collections.abc import Iterable
from numbers import Integral
from typing import TYPE_CHECKING

from feature_store.candle import Series
from feature_store.errors import BadInputError

if TYPE_CHECKING:
    from feature_store.lake import CandleLake

_SECONDS_BELOW = 100_000_000_000
"""Milliseconds before this, and after 0, are seconds: 1973, older than any market we know."""
_NAMED = 5


def stored_ones(lake: CandleLake, series: Iterable[Series]) -> list[Series]:
    """
    Return series that the lake holds, as a list.

    Raises:
        BadInputError: One is not stored: its name, venue or timeframe is another, or it was never ingested.
    """
    wanted = list(series)
    for one in wanted:
        if not isinstance(one, Series):
            raise BadInputError(
                f"Expected series, as Series('binanceusdm', 'BTC/USDT:USDT', Timeframe.M5), found {one!r}"
            )
        if not lake.paths(one):
            stored = [f"{other.venue} {other.symbol} {other.timeframe}" for other in lake.series()]
            near = ", ".join(stored[:_NAMED]) + (f" and {len(stored) - _NAMED} more" if len(stored) > _NAMED else "")
            raise BadInputError(
                f"{one.venue} {one.symbol} {one.timeframe} is not stored in {lake.place}; ingest it, or ask for what "
                f"is: {near or 'nothing yet'}"
            )
    return wanted


def require_stretch(start_ms: int, end_ms: int) -> None:
    """
    Check that a stretch of time is one; 0 stands for the beginning, and any late moment for the end.

    Raises:
        BadInputError: It ends before it begins, or is not in milliseconds.
    """
    require_moment("start_ms", start_ms)
    require_moment("end_ms", end_ms)
    if start_ms > end_ms:
        raise BadInputError(f"Expected start_ms up to end_ms, found {start_ms} after {end_ms}; exchange the two")


def require_moment(name: str, time_ms: int) -> None:
    """
    Check that a moment is in milliseconds since 1970.

    Raises:
        BadInputError: It is no whole number, or looks like seconds.
    """
    if not _is_whole(time_ms):
        raise BadInputError(f"{name} must be whole milliseconds since 1970, was {time_ms!r}")
    if 0 < time_ms < _SECONDS_BELOW:
        raise BadInputError(f"{name} must be milliseconds since 1970, was {time_ms}, which looks like seconds; x 1000")
    if time_ms < 0:
        raise BadInputError(f"{name} must be milliseconds since 1970, from 0, was {time_ms}")


def require_horizon(horizon: int) -> None:
    """
    Check that a label looks some whole number of candles ahead.

    Raises:
        BadInputError: It does not.
    """
    if not _is_whole(horizon) or horizon < 1:
        raise BadInputError(f"The horizon must be a whole number of candles from 1 on, was {horizon!r}")


def _is_whole(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)
