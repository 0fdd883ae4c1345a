"""
What a model's inputs were like in training: ranges, and a distance whose rate of false alarms is stated.

Ranges are quantiles and no extremes, so that a few bad ticks do not make a range: each tail is so small that all inputs
together leave out the stated share of training's rows at the most (Bonferroni). The covariance is of robustly scaled
inputs, cut off where live ones are, and shrunk by Ledoit and Wolf's rule. The distance that is far is the quantile of
rows that nothing was fitted on, the conformal one: of n rows that are exchangeable with a new one, the new one lies
beyond the ceil((n + 1)(1 - a))-th with probability a at the most (Vovk, Gammerman and Shafer, 2005). Candles of a
market are not quite exchangeable: `later` says what became of the rate when the threshold came from the first half of
those rows and was asked of the second.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
from sklearn.covariance import ledoit_wolf

from feature_store.errors import BadInputError
from flows.training.dataset import Floats, select_columns
from inference.models.manifest import RETURNS_INPUT, HeadEntry, MemberEntry, split_input
from inference.signals.trained_inputs import MOST_INPUTS, SPREADS, TrainedInputs, distances, prepare_inputs

_LEAST_ROWS = 200
_NORMAL_QUARTILES = 1.349
"""The distance between the quartiles of a normal distribution, in standard deviations."""


@dataclass(frozen=True, slots=True, eq=False)
class LearnedInputs:
    """What a bundle is to say of its inputs; `later` is the measured rate of alarms of distance, out of sample."""

    trained: TrainedInputs
    later: float


def used_inputs(parts: Iterable[MemberEntry | HeadEntry], model_inputs: Sequence[str]) -> tuple[str, ...]:
    """Return the model inputs that members with a vote, and heads, read; in the order of `model_inputs`."""
    asked = [one.inputs for one in parts if isinstance(one, HeadEntry) or one.weight > 0]
    names = {split_input(name)[0] for inputs in asked for name in inputs} - {RETURNS_INPUT}
    return tuple(one for one in model_inputs if one in names)


def learn_inputs(
    fit: npt.NDArray[Any],
    held_out: npt.NDArray[Any],
    input_names: Sequence[str],
    used: Sequence[str],
    *,
    range_alarm: float = 0.01,
    distance_alarm: float = 0.001,
) -> LearnedInputs:
    """
    Learn ranges and distance from rows of inputs.

    Args:
        fit: Rows that members were fitted on [n, M].
        held_out: Rows that nothing was fitted on, in the order of time [m, M].
        input_names: Names of the M inputs.
        used: Those that count.
        range_alarm: Share of the rows of `fit` that may have any input out of range.
        distance_alarm: Share of new rows that may be called far.

    Raises:
        BadInputError: There are too few rows for that, more inputs than a bundle tells of, or a number is not finite.
    """
    columns = select_columns(input_names, used)
    rows, later = (np.asarray(one[:, columns], np.float64) for one in (fit, held_out))
    needed = math.ceil(1 / distance_alarm)
    if len(columns) > MOST_INPUTS:
        raise BadInputError(f"Ranges are told of at most {MOST_INPUTS} inputs, and the members read {len(columns)}")
    if not columns or len(rows) < _LEAST_ROWS or len(later) < needed:
        raise BadInputError(
            f"Ranges of inputs need {_LEAST_ROWS} rows and {needed} more to calibrate on, and an input that is read; "
            f"were {len(rows)}, {len(later)} and {len(columns)}"
        )
    if not (np.isfinite(rows).all() and np.isfinite(later).all()):
        raise BadInputError("Ranges are learned from finite inputs alone; leave rows out whose inputs are missing")
    tail = range_alarm / (2 * len(columns))
    lowest, highest = np.quantile(rows, [tail, 1 - tail], axis=0)
    centre = np.median(rows, axis=0)
    spread = _spread(rows)
    units = np.clip((rows - centre) / spread, -SPREADS, SPREADS)
    # The centre is the median and not the mean, so the distance is from there; covariance is around the mean.
    covariance, _ = ledoit_wolf(units)
    whitening = np.tril(np.linalg.inv(np.linalg.cholesky(covariance + 1e-6 * np.eye(len(columns)))))
    trained = TrainedInputs(
        names=tuple(used),
        lowest=_tuple(lowest),
        highest=_tuple(highest),
        centre=_tuple(centre),
        spread=_tuple(spread),
        whitening=tuple(map(_tuple, whitening)),
        far=1.0,
        range_alarm=range_alarm,
        distance_alarm=distance_alarm,
    )
    apart = distances(prepare_inputs(trained, used), later)
    first, second = np.array_split(apart, 2)
    measured = float((second > _far(first, distance_alarm)).mean())
    return LearnedInputs(msgspec.structs.replace(trained, far=_far(apart, distance_alarm)), measured)


def _spread(rows: Floats) -> Floats:
    low, high = np.quantile(rows, [0.25, 0.75], axis=0)
    robust, plain = (high - low) / _NORMAL_QUARTILES, rows.std(axis=0)
    # An input that is mostly one value has no quartiles, one that is always the same no spread: any unit will do.
    found = np.where(robust > 0, robust, plain)
    return np.where(found > 1e-12, found, 1.0)


def _far(apart: Floats, alarm: float) -> float:
    place = min(math.ceil((len(apart) + 1) * (1 - alarm)), len(apart))
    return max(float(np.sort(apart)[place - 1]), 1e-9)


def _tuple(values: Floats) -> tuple[float, ...]:
    return tuple(float(one) for one in values)
