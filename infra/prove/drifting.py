"""Columns that drifted by known amounts, and the index of each by one program; run as a process, it prints JSON."""

from __future__ import annotations

import json
import resource
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from feature_store.clock import monotonic
from feature_store.stability import Sketch, equal_width_index, stability

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]

_SHAPES: dict[str, tuple[Callable[[np.random.Generator, int], Floats], float]] = {
    # A shape, and its standard deviation.
    "normal": (lambda rng, n: rng.normal(0, 1, n), 1.0),
    "logistic": (lambda rng, n: rng.logistic(0, 1, n), np.pi / np.sqrt(3)),
    "laplace": (lambda rng, n: rng.laplace(0, 1, n), np.sqrt(2)),
    "two-hills": (lambda rng, n: rng.normal(0, 1, n) + rng.choice([-0.8, 0.8], n), np.sqrt(1.64)),
    "ticks": (lambda rng, n: np.round(rng.normal(100, 1, n), 1), 1.0),
    "gaps": (lambda rng, n: np.where(rng.random(n) < 0.05, np.nan, rng.normal(0, 1, n)), 1.0),
    "twelve-values": (lambda rng, n: rng.binomial(11, 0.5, n).astype(np.float64), np.sqrt(11) / 2),
}
# How far the second sample lies from the first, in standard deviations; `wider` has 1.5 times the spread instead.
_SHIFTS: dict[str, float | None] = {
    "0": 0.0,
    "0.05": 0.05,
    "0.1": 0.1,
    "0.5": 0.5,
    "0.75": 0.75,
    "1": 1.0,
    "wider": None,
}
_WIDER = 1.5
NAMES = tuple(f"{shape} {shift}" for shape in _SHAPES for shift in _SHIFTS)
# Either side of the threshold there is room for what two ways to cut bins make of one shift.
DRIFTS = {f"{shape} {shift}": by is None or by >= 0.5 for shape in _SHAPES for shift, by in _SHIFTS.items()}


def columns(rows: int) -> tuple[Floats, Floats]:
    """Return both samples of every column, stored column by column as a table is."""
    before, now = (np.empty((rows, len(NAMES)), order="F") for _ in range(2))
    for number, (first, second) in enumerate(_samples(np.random.default_rng(17), rows)):
        before[:, number], now[:, number] = first, second
    return before, now


def _samples(rng: np.random.Generator, rows: int) -> Iterator[tuple[Floats, Floats]]:
    for shape, (draw, spread) in _SHAPES.items():
        for shift in _SHIFTS.values():
            before, now = draw(rng, rows), draw(rng, rows)
            if shift is None:
                middle = np.nanmedian(now)
                now = middle + _WIDER * (now - middle)
            elif shape == "twelve-values":
                # The same values, more often the greater ones.
                now = rng.binomial(11, 0.5 + shift * spread / 11, rows).astype(np.float64)
            else:
                now += shift * spread
            yield before, now


def evidently(before: Floats, now: Floats) -> dict[str, float]:
    """Return what Evidently's preset says of every column."""
    import pandas as pd  # noqa: PLC0415 - the other sides are measured without it
    from evidently import DataDefinition, Dataset, Report  # noqa: PLC0415 - as above
    from evidently.presets import DataDriftPreset  # noqa: PLC0415 - as above

    tables = [pd.DataFrame(one, columns=list(NAMES), copy=False) for one in (now, before)]
    started = monotonic()
    definition = DataDefinition(numerical_columns=list(NAMES))
    data = [Dataset.from_pandas(one, data_definition=definition) for one in tables]
    report = Report([DataDriftPreset(method="psi")]).run(*data)
    _TOOK.append(monotonic() - started)
    found = (one for one in report.dict()["metrics"] if one["config"]["type"].endswith(":ValueDrift"))
    return {one["config"]["column"]: float(one["value"]) for one in found}


def equal_width(before: Floats, now: Floats) -> dict[str, float]:
    """Return our index over bins of equal width, as Evidently defines it."""
    started = monotonic()
    found = {name: equal_width_index(before[:, at], now[:, at]) for at, name in enumerate(NAMES)}
    _TOOK.append(monotonic() - started)
    return found


def equal_share(before: Floats, now: Floats) -> dict[str, float]:
    """Return our index over bins that hold equal shares, from the values on: sketches first, then their index."""
    started = monotonic()
    sketched = ([Sketch.of(one[:, at]) for at in range(len(NAMES))] for one in (before, now))
    found = {one.name: one.index for one in stability(NAMES, *sketched)}
    _TOOK.append(monotonic() - started)
    return found


_TOOK: list[float] = []
_SIDES = {"evidently": evidently, "equal-width": equal_width, "equal-share": equal_share}
RUNS = {"evidently": 1, "equal-width": 3, "equal-share": 3}
"""How often each side runs; the median of its seconds counts."""


def main() -> int:
    """Print what one side finds, the median of its seconds, and the most memory it held."""
    warnings.simplefilter("ignore")
    side = _SIDES[sys.argv[1]]
    before, now = columns(int(sys.argv[2]))
    for _ in range(RUNS[sys.argv[1]]):
        indexes = side(before, now)
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"indexes": indexes, "seconds": float(np.median(_TOOK)), "peak_mb": peak_mb}))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
