"""One drift check: inputs, predictions, outcomes and performance, each with its share of the false-alarm rate."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import msgspec
import numpy as np
import numpy.typing as npt

from feature_store.stability import Sketch
from flows.drifting.calibration import FEWEST_STRETCHES, calibrated
from flows.drifting.degrading import Degradation, degradation
from flows.drifting.distances import POWERS, STATISTICS, column_distances

FALSE_ALARM_RATES = {"performance": 0.010, "inputs": 0.004, "predictions": 0.004, "outcomes": 0.002}
"""
How often each part of a check speaks although nothing changed: 2 % of checks for all of them together.

That of performance is over a champion's whole life, however often it is checked; the others are of one check.
"""
FALSE_ALARM_RATE = sum(FALSE_ALARM_RATES.values())
# Neighbouring stretches remember each other, volatility for a day or more: they lie closer together than a stretch of
# days later does, and a limit learned from them is passed more often than it says, up to five times as often in markets
# of the sandbox's memory. It is therefore asked for at a quarter of the rate that is stated.
_CAUTION = 0.25
# A stretch with fewer rows than this share of the usual one, or than this number, is not compared.
_FEWEST_SHARE, _FEWEST_ROWS = 0.5, 50


class Verdict(StrEnum):
    """What a check found, the most urgent first: what a champion earns ranks above what it reads."""

    DEGRADED = "degraded"
    DRIFTED = "drifted"
    STABLE = "stable"
    TOO_FEW = "too-few"
    NO_CHAMPION = "no-champion"


class ColumnDrift(msgspec.Struct, frozen=True, kw_only=True):
    """
    One column, then and now: its distances, and the distance from which each would be drift by itself.

    `state` is `judged`, `drifted`, `constant` (one value in the reference: nothing to hold against, the note says where
    it moved) or `empty` (no finite value in the reference).
    """

    name: str
    state: str
    distances: dict[str, float]
    limits: dict[str, float]
    median_before: float | None
    median_now: float | None
    missing_before: float
    missing_now: float


class GroupDrift(msgspec.Struct, frozen=True, kw_only=True):
    """The columns of one kind, judged together at one rate; `state` is `judged` or `too-few`, with its note."""

    name: str
    state: str
    note: str
    stretches: int
    rows: int
    false_alarm_rate: float
    score: float = 0.0
    limit: float = 0.0
    columns: tuple[ColumnDrift, ...] = ()

    @property
    def found(self) -> bool:
        """Whether the newest stretch lies further off than chance explains."""
        return self.state == "judged" and self.score > self.limit

    @property
    def drifted(self) -> tuple[str, ...]:
        """The columns beyond their own limits, the furthest first; none where the group as a whole is not."""
        return tuple(one.name for one in self.columns if one.state == "drifted") if self.found else ()


class DriftReport(msgspec.Struct, frozen=True, kw_only=True):
    """What one check found; `groups` are inputs, predictions and outcomes, as far as there are such."""

    version: str
    end_ms: int
    hours: int
    false_alarm_rate: float
    groups: tuple[GroupDrift, ...]
    performance: Degradation
    notes: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """The most urgent of what was found."""
        if self.performance.found:
            return Verdict.DEGRADED
        if any(group.found for group in self.groups):
            return Verdict.DRIFTED
        judged = any(group.state == "judged" for group in self.groups)
        return Verdict.STABLE if judged else Verdict.TOO_FEW


@dataclass(frozen=True, slots=True, eq=False)
class Stretches:
    """
    The columns of one kind: a sketch of each column in each reference stretch [stretches][columns], and now.

    All stretches are equally long, and the newest is none of the reference's.
    """

    name: str
    columns: tuple[str, ...]
    before: Sequence[Sequence[Sketch]]
    now: Sequence[Sketch]


@dataclass(frozen=True, slots=True, eq=False)
class Performance:
    """Of each measure, a value for each block at promotion and since, and for how many days outcomes have matured."""

    before: Mapping[str, npt.NDArray[np.float64]]
    now: Mapping[str, npt.NDArray[np.float64]]
    days: float


def check(
    groups: Sequence[Stretches],
    performance: Performance,
    *,
    version: str,
    end_ms: int,
    hours: int,
    notes: tuple[str, ...] = (),
) -> DriftReport:
    """Judge everything that was observed; what there is too little of is said, and judged by nothing."""
    return DriftReport(
        version=version,
        end_ms=end_ms,
        hours=hours,
        false_alarm_rate=FALSE_ALARM_RATE,
        groups=tuple(group_drift(one) for one in groups),
        performance=degradation(
            dict(performance.before),
            dict(performance.now),
            rate=FALSE_ALARM_RATES["performance"],
            days=performance.days,
        ),
        notes=notes,
    )


def group_drift(group: Stretches) -> GroupDrift:
    """Judge the columns of one kind together."""
    rate = FALSE_ALARM_RATES[group.name]
    rows = [max((one.rows for one in stretch), default=0) for stretch in group.before]
    usual = float(np.median([count for count in rows if count] or [0]))
    fewest = max(_FEWEST_SHARE * usual, _FEWEST_ROWS)
    kept = [stretch for stretch, count in zip(group.before, rows, strict=True) if count >= fewest]
    newest = max((one.rows for one in group.now), default=0)
    too_few = ""
    if len(kept) < FEWEST_STRETCHES:
        too_few = f"{len(kept)} stretches of this length to compare with, {FEWEST_STRETCHES} are needed; "
        too_few += "compare fewer hours, or train on more days"
    elif newest < fewest:
        too_few = f"{newest} rows now, {fewest:.0f} are needed; ingest newer candles, or look for gaps"
    whole = [Sketch.merged(stretch[place] for stretch in kept) for place in range(len(group.columns))]
    states = [_state(one) for one in whole]
    judged = [place for place, state in enumerate(states) if state == "judged"]
    if not too_few and not judged:
        too_few = "no column has more than one value to compare with"
    if too_few:
        return GroupDrift(
            name=group.name, state="too-few", note=too_few, stretches=len(kept), rows=newest, false_alarm_rate=rate
        )
    found = [column_distances([stretch[place] for stretch in kept], group.now[place]) for place in judged]
    result = calibrated(
        np.stack([one.before for one in found], 1), np.stack([one.now for one in found]), POWERS, rate=_CAUTION * rate
    )
    columns = []
    for row, place in enumerate(judged):
        beyond = result.surprise[row].max() > result.limit
        values, limits = found[row].now.tolist(), result.limits[row].tolist()
        columns.append((result.surprise[row].max(), _column(group, whole, place, beyond, values, limits)))
    columns.sort(key=lambda one: -one[0])
    odd = [_column(group, whole, place, None, [], []) for place in range(len(states)) if place not in judged]
    return GroupDrift(
        name=group.name,
        state="judged",
        note="; ".join(_oddities(odd)),
        stretches=len(kept),
        rows=newest,
        false_alarm_rate=rate,
        score=result.score,
        limit=result.limit,
        columns=(*(one for _, one in columns), *odd),
    )


def _state(whole: Sketch) -> str:
    if not len(whole.buckets):
        return "empty"
    return "constant" if len(whole.buckets) == 1 and not whole.missing else "judged"


def _column(
    group: Stretches, whole: Sequence[Sketch], place: int, beyond: object, values: list[float], limits: list[float]
) -> ColumnDrift:
    before, now = whole[place], group.now[place]
    state = _state(before) if beyond is None else "drifted" if beyond else "judged"
    return ColumnDrift(
        name=group.columns[place],
        state=state,
        distances=dict(zip(STATISTICS, values, strict=False)),
        limits=dict(zip(STATISTICS, limits, strict=False)),
        median_before=_median(before),
        median_now=_median(now),
        missing_before=before.missing / max(before.rows, 1),
        missing_now=now.missing / max(now.rows, 1),
    )


def _median(sketch: Sketch) -> float | None:
    value = sketch.quantile(0.5)
    return value if np.isfinite(value) else None


def _oddities(odd: Sequence[ColumnDrift]) -> list[str]:
    empty = [one.name for one in odd if one.state == "empty"]
    constant = [one for one in odd if one.state == "constant"]
    moved = [one.name for one in constant if one.median_now != one.median_before or one.missing_now]
    said = [f"never had a value when fitted: {', '.join(empty)}"] if empty else []
    if constant:
        said.append(f"constant when fitted, so not judged: {', '.join(one.name for one in constant)}")
    if moved:
        said.append(f"of these no longer constant: {', '.join(moved)}")
    return said
