"""Tripwires: what must not be true of an honest training run, and fails it by name before anything is registered."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from feature_store.errors import QuantumError
from flows.training.tripwire_bounds import TripwireBounds


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """One tripped wire: its name, the figure and its bound, what was found, and what to do about it."""

    wire: str
    value: float
    bound: float
    told: str
    remedy: str


_SHOWN = 4
"""An input that knows the future is seldom alone; a message of forty sentences is read by nobody."""


class TripwireError(QuantumError):
    """Something is wrong with a training run, so that its figures mean nothing; `trips` name what."""

    def __init__(self, trips: Sequence[Trip]) -> None:
        self.trips = tuple(trips)
        shown = self.trips[:_SHOWN]
        said = "; ".join(f"tripwire {trip.wire}: {trip.told}. What to do: {trip.remedy}" for trip in shown)
        more = len(self.trips) - len(shown)
        rest = f"; and {more} more, see artifact training-failure" if more else ""
        super().__init__(f"Training was stopped, nothing was registered. {said}{rest}")

    def __reduce__(self) -> tuple[type[TripwireError], tuple[tuple[Trip, ...]]]:
        """Cross from one process to another, as runs do."""
        return type(self), (self.trips,)

    @property
    def wires(self) -> tuple[str, ...]:
        """The names of the wires, each once."""
        return tuple(dict.fromkeys(trip.wire for trip in self.trips))


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a run was asked to learn from: how many days of how many series."""

    days: float
    series: int


def stop_on(trips: Iterable[Trip]) -> None:
    """
    Go on where nothing tripped.

    Raises:
        TripwireError: Something did.
    """
    found = list(trips)
    if found:
        raise TripwireError(found)


def check_coverage(
    coverage: Mapping[str, float], bounds: TripwireBounds, asked: Asked | None, *, days: float, series: int
) -> list[Trip]:
    """
    Hold what is there against what was asked for.

    Args:
        coverage: The share of candles that are there and complete, by window.
        bounds: How much must be.
        asked: What the run was asked for; None where nobody asked for days or series.
        days: How many days the candles span.
        series: How many series are learned from.
    """
    trips = [
        Trip(
            wire="coverage",
            value=share,
            bound=bounds.window_coverage,
            told=f"only {share:.0%} of the candles of the {window} window are there with their whole past",
            remedy="fetch what is missing with 'qtctl ingest --repair', or train on days that are whole",
        )
        for window, share in coverage.items()
        if share < bounds.window_coverage
    ]
    if asked is None:
        return trips
    for what, there, wanted, bound in (
        ("days", days, asked.days, bounds.asked_days),
        ("series", float(series), float(asked.series), bounds.asked_series),
    ):
        if wanted > 0 and there / wanted < bound:
            trips.append(
                Trip(
                    wire="coverage",
                    value=there / wanted,
                    bound=bound,
                    told=f"{wanted:.4g} {what} were asked for, {there:.4g} can be learned from",
                    remedy=f"ingest more, or ask for fewer {what} with "
                    + ("--days" if what == "days" else "--symbols; the quality report says which were left out"),
                )
            )
    return trips


def check_outcomes(outcomes: Mapping[str, float], bounds: TripwireBounds) -> list[Trip]:
    """Hold the independent outcomes of each window against what anything chosen there needs."""
    return [
        Trip(
            wire="too_few_outcomes",
            value=count,
            bound=bounds.independent_outcomes,
            told=(
                f"the {window} window holds {count:.0f} independent outcomes, {bounds.independent_outcomes:.0f} are "
                f"needed: by fewer a correlation is known to ±{1.96 / math.sqrt(max(count, 1)):.2f} only"
            ),
            remedy="load more days with --days, or more symbols that do not all move together",
        )
        for window, count in outcomes.items()
        if not count >= bounds.independent_outcomes
    ]


def check_scores(metrics: Mapping[str, float], who: Iterable[str], bounds: TripwireBounds) -> list[Trip]:
    """Hold every score out of sample against what is too good to be true, by the lower end of its interval."""
    trips = []
    for window in ("validation", "calibration"):
        for name in who:
            place = f"{window}/{name}"
            skill = metrics.get(f"{place}/rmse_skill_low", math.nan)
            lows = {
                "correlation": (metrics.get(f"{place}/ic_low", math.nan), bounds.score_ic),
                # Errors are square roots of what R² is made of.
                "R² against nothing": (1 - (1 - skill) ** 2 if skill > 0 else math.nan, bounds.score_r2),
                "hit rate": (metrics.get(f"{place}/hit_rate_low", math.nan), bounds.score_hit_rate),
            }
            trips += [
                Trip(
                    wire="too_good",
                    value=low,
                    bound=bound,
                    told=f"the {what} of {name} on the {window} window is {low:.2f} or more, {bound:.2f} is believed",
                    remedy="look for what tells the outcome: an input that knows it, or windows that share candles",
                )
                for what, (low, bound) in lows.items()
                if low > bound
            ]
    return trips


def check_shuffled(metrics: Mapping[str, float], bounds: TripwireBounds) -> list[Trip]:
    """Hold what is predicted of labels that belong to another day against nothing."""
    z, ic = (metrics.get(f"leakage/shuffled_label_{name}", math.nan) for name in ("z", "ic"))
    if not (z > bounds.shuffled_label_z and ic > bounds.shuffled_label_ic):
        return []
    return [
        Trip(
            wire="shuffled_labels",
            value=z,
            bound=bounds.shuffled_label_z,
            told=f"labels moved to other days are still predicted, with a correlation of {ic:.2f} ({z:.1f} errors)",
            remedy="look for rows or candles that the fit and the validation window share",
        )
    ]
