"""How two tables of numbers are compared: to the bit, or by an error relative to value and spread."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt


def same(left: npt.NDArray[Any], right: npt.NDArray[Any]) -> bool:
    """Tell whether two arrays are equal to the bit, NaN for NaN."""
    return left.shape == right.shape and left.dtype == right.dtype and np.array_equal(left, right, equal_nan=True)


def different_cells(left: npt.NDArray[np.floating], right: npt.NDArray[np.floating]) -> npt.NDArray[np.bool_]:
    """
    Mark what differs by a single bit; NaN equals NaN, and -0 does not equal 0.

    Raises:
        ValueError: The arrays differ in shape or kind.
    """
    if left.shape != right.shape or left.dtype != right.dtype:
        raise ValueError(f"Expected like tables, found {left.shape} {left.dtype} and {right.shape} {right.dtype}")
    different: npt.NDArray[np.bool_] = (left != right) | (np.signbit(left) != np.signbit(right))
    different &= ~(np.isnan(left) & np.isnan(right))
    return different


def relative_error(found: npt.NDArray[np.float64], expected: npt.NDArray[np.float64]) -> float:
    """
    Return the largest error relative to each value, or to a thousandth of their spread for values near zero.

    NaN equals NaN; a number on one side only is infinitely wrong.
    """
    if not np.array_equal(np.isnan(found), np.isnan(expected)):
        return float("inf")
    if np.isnan(expected).all():
        return 0.0
    scale = np.maximum(np.abs(expected), 1e-3 * np.nanstd(expected))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(found == expected, 0.0, np.abs(found - expected) / scale)
    return float(np.nanmax(error))
