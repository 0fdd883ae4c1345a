"""What each input did to an opinion: how the answer changes where one input is taken as it was on average."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from inference.models.bundle import Bundle
from inference.models.ensemble import Numbers
from inference.models.manifest import RETURNS_INPUT

ENSEMBLE = "ensemble"


def contributions(
    bundle: Bundle, inputs: Numbers, windows: Numbers, returns: Numbers
) -> Mapping[str, Mapping[str, float]]:
    """
    Return by how much each input moved the expected log return of one row, for each member and the `ensemble`.

    `inputs` [1, M], `windows` [1, 64, M] and `returns` [1, 64] are what the bundle was asked with. An input's part is
    the answer less the answer to the same row in which this input had, throughout the window, its mean over the window
    (the returns: none at all). Parts of inputs that work together are told for each, so they need not add up to the
    answer. What the common move of the market was is not taken off, since a row alone has none. A part that is no
    number, where the other answer would not be believed, is left out.
    """
    names = (*bundle.manifest.model_inputs, RETURNS_INPUT)
    count = len(bundle.manifest.model_inputs)
    rows, wide, past = (np.repeat(np.asarray(one, np.float32), count + 2, axis=0) for one in (inputs, windows, returns))
    means = np.asarray(windows, np.float64)[0].mean(axis=0)
    for column in range(count):
        rows[column + 1, column] = means[column]
        wide[column + 1, :, column] = means[column]
    past[count + 1] = 0
    output = bundle.score(rows, wide, past)
    answers: dict[str, npt.NDArray[np.float64]] = {**output.members, ENSEMBLE: output.expected_return}
    return {
        member: {
            name: float(part)
            for name, part in zip(names, values[0] - values[1:], strict=True)
            if np.isfinite(part) and part != 0
        }
        for member, values in sorted(answers.items())
    }


def largest(parts: Mapping[str, float], count: int) -> dict[str, float]:
    """Return so many parts, the largest by size first; equal ones by name."""
    ordered = sorted(parts.items(), key=lambda one: (-abs(one[1]), one[0]))
    return dict(ordered[:count])
