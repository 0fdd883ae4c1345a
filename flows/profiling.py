"""Profiles of what is stored: brought up to date, summed up over series and months, and read as sketches."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from feature_store.candle import Series
from feature_store.errors import BadInputError
from feature_store.profiles import SHARES, ColumnProfile, Kind, ProfileStore
from feature_store.store import FeatureStore
from flows.settings import FlowSettings
from flows.wording import figure


@dataclass(frozen=True, slots=True)
class Updated:
    """What one run did for one series."""

    series: Series
    months: int
    measured: int


def profile_store(settings: FlowSettings) -> ProfileStore:
    """Return the profiles of this home."""
    return ProfileStore(settings.features / "profiles")


def update(settings: FlowSettings, series: Series) -> Updated:
    """
    Compute the features of a series that are new or changed, and measure their months.

    Raises:
        CorruptFileError: A partition of the lake, or a file of features, is damaged.
    """
    FeatureStore(settings.features).materialize(settings.candle_lake(), [series])
    store = profile_store(settings)
    measured = store.update(settings.features, series)
    return Updated(series, len(store.months(series)), measured)


def chosen_months(store: ProfileStore, series: Iterable[Series], month: str | None) -> Mapping[Series, list[str]]:
    """
    Return the months to sum up for each series: one, or all that are profiled.

    Raises:
        BadInputError: No series has that month.
    """
    found = {one: [name for name in store.months(one) if month in (None, name)] for one in series}
    if not any(found.values()):
        known = sorted({name for one in found for name in store.months(one)})
        raise BadInputError(
            f"No chosen series has a profile of {month!r} (YYYY-MM); there are: {', '.join(known) or 'none'}"
        )
    return found


def rows(profiles: Iterable[ColumnProfile]) -> list[dict[str, Any]]:
    """Return what is shown of each column, as text."""
    return [
        {
            "name": one.name,
            "candles": one.candles,
            "missing": f"{100 * one.missing / one.candles:.2f} %" if one.candles else "-",
            "zero": f"{100 * one.zeros / one.candles:.2f} %" if one.candles else "-",
            "mean": figure(one.mean),
            "std": figure(one.std),
            "least": figure(one.least),
            "5 %": figure(one.quantiles[SHARES.index(0.05)]),
            "median": figure(one.quantiles[SHARES.index(0.5)]),
            "95 %": figure(one.quantiles[SHARES.index(0.95)]),
            "greatest": figure(one.greatest),
        }
        for one in profiles
    ]


def document(profiles: Iterable[ColumnProfile]) -> list[dict[str, Any]]:
    """Return the same as numbers, None where there is none."""
    return [
        {
            "name": one.name,
            "candles": one.candles,
            "missing": one.missing,
            "zeros": one.zeros,
            "mean": _number(one.mean),
            "std": _number(one.std),
            "least": _number(one.least),
            "greatest": _number(one.greatest),
            "quantiles": {f"{share:g}": _number(value) for share, value in zip(SHARES, one.quantiles, strict=True)},
        }
        for one in profiles
    ]


def _number(value: float) -> float | None:
    return None if math.isnan(value) else value


def summary(settings: FlowSettings, series: Sequence[Series], month: str | None, kind: Kind) -> list[ColumnProfile]:
    """
    Return the profiles of some series together, of one month or of all that are profiled.

    Raises:
        BadInputError: No series has that month.
    """
    store = profile_store(settings)
    return store.merged(chosen_months(store, series, month), kind)
