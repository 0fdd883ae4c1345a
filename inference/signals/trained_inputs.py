"""What the inputs of a model were like in training, as plain arrays, and how far a candle's inputs are from that."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from inference.regime.arrays import LONGEST_NAME, check_numbers, check_table, require

Floats = npt.NDArray[np.float64]
MOST_INPUTS = 512
SPREADS = 10.0
"""Distances count an input this many spreads from its centre at the most: one that is broken hides no other."""
_LARGEST = 1e9


class TrainedInputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    What training saw of the inputs that a model reads, as arrays over `names` [d].

    `lowest` and `highest` bound each input; of training's rows a share of `range_alarm` at the most had any input
    outside. `centre` and `spread` are median and robust standard deviation, `whitening` [d, d] the inverse of the lower
    Cholesky factor of the inputs' shrunk covariance in these units, so that the length of whitening times inputs is
    Mahalanobis' distance. Of rows that training had not fitted on, a share of `distance_alarm` lay further than `far`.
    """

    names: tuple[str, ...]
    lowest: tuple[float, ...]
    highest: tuple[float, ...]
    centre: tuple[float, ...]
    spread: tuple[float, ...]
    whitening: tuple[tuple[float, ...], ...]
    far: float
    range_alarm: float
    distance_alarm: float

    def __post_init__(self) -> None:
        """Refuse what no training can have exported: shapes that differ, ranges that fall, no number."""
        count = len(self.names)
        require(1 <= count <= MOST_INPUTS, f"Inputs must be 1 to {MOST_INPUTS}, were {count}")
        require(len(set(self.names)) == count, "Each input is named once")
        require(all(0 < len(one) <= LONGEST_NAME for one in self.names), f"Names have 1 to {LONGEST_NAME} letters")
        for what, values in (("Lowest", self.lowest), ("Highest", self.highest), ("Centres", self.centre)):
            check_numbers(f"{what} inputs", values, count=count)
        check_numbers("Spreads of inputs", self.spread, count=count, above=0.0)
        rising = all(low <= high for low, high in zip(self.lowest, self.highest, strict=True))
        require(rising, "No input's lowest may lie above its highest")
        check_table("whitening", self.whitening, shape=(count, count))
        require(all(abs(one) <= _LARGEST for row in self.whitening for one in row), f"Whitening is within {_LARGEST:g}")
        require(all(row[place] > 0 for place, row in enumerate(self.whitening)), "Whitening needs a positive diagonal")
        beyond = any(one != 0 for place, row in enumerate(self.whitening) for one in row[place + 1 :])
        require(not beyond, "Whitening must be lower triangular")
        check_numbers("The distance that is far", (self.far,), count=1, above=0.0)
        for share in (self.range_alarm, self.distance_alarm):
            require(0 < share < 0.5, f"A share of false alarms must lie in (0, 0.5), was {share}")


class PreparedInputs(NamedTuple):
    """The same as arrays, with where its inputs are among those that come."""

    trained: TrainedInputs
    columns: npt.NDArray[np.int64]
    lowest: Floats
    highest: Floats
    width: Floats
    centre: Floats
    spread: Floats
    whitening: Floats
    told: tuple[tuple[str, str], ...]
    """Lowest and highest as text."""


def prepare_inputs(trained: TrainedInputs, input_names: Sequence[str]) -> PreparedInputs:
    """
    Return the arrays of `trained`, for inputs that come in the order of `input_names`.

    Raises:
        ValueError: An input is not among them.
    """
    missing = sorted(set(trained.names) - set(input_names))
    require(not missing, f"Inputs {', '.join(missing)} are not among those given")
    lowest, highest = np.array(trained.lowest), np.array(trained.highest)
    spread = np.array(trained.spread)
    return PreparedInputs(
        trained,
        np.array([list(input_names).index(one) for one in trained.names]),
        lowest,
        highest,
        np.maximum(highest - lowest, 1e-12),
        np.array(trained.centre),
        spread,
        np.array(trained.whitening),
        tuple((str(low), str(high)) for low, high in zip(trained.lowest, trained.highest, strict=True)),
    )


def used_rows(prepared: PreparedInputs, inputs: npt.NDArray[Any]) -> Floats:
    """Return the inputs that count [n, d] of all that came [n, M]."""
    # Row by row in memory, for any number of rows: sums over a row are then taken in one order.
    return np.ascontiguousarray(inputs[:, prepared.columns], np.float64)


def distances(prepared: PreparedInputs, used: Floats) -> Floats:
    """
    Return Mahalanobis' distance of each row [n, d] from what training saw [n]; NaN where an input is not finite.

    A row's distance is the same to the bit alone or among others.
    """
    sound = np.asarray(np.isfinite(used).all(axis=1))
    units = np.clip((np.where(sound[:, None], used, 0.0) - prepared.centre) / prepared.spread, -SPREADS, SPREADS)
    # Not a library's matrix product: that may round a row otherwise for another number of rows.
    white = np.einsum("nd,ed->ne", units, prepared.whitening)
    lengths = np.sqrt(np.einsum("ne,ne->n", white, white))
    return np.where(sound, lengths, np.nan)
