"""Checks of the plain arrays that training exports: what a damaged or hostile manifest may not get past."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

SUM_TOLERANCE = 1e-9
"""How far a row of probabilities may be from 1: what rounding of a few doubles to text can do, and no more."""
LONGEST_NAME = 64
MOST_SYMBOLS = 5000


def require(holds: bool, message: str) -> None:  # noqa: FBT001 -- an assertion with a sentence.
    """
    Refuse what does not hold.

    Raises:
        ValueError: It does not hold.
    """
    if not holds:
        raise ValueError(message)


def check_numbers(what: str, values: Sequence[float], *, count: int, above: float | None = None) -> None:
    """
    Refuse all but `count` finite numbers, above a bound where one is given.

    Raises:
        ValueError: They are not that.
    """
    require(len(values) == count, f"{what} must be {count} numbers, were {len(values)}")
    require(all(map(math.isfinite, values)), f"{what} must be finite")
    require(above is None or all(one > above for one in values), f"{what} must be above {above}")


def check_table(what: str, rows: Sequence[Sequence[float]], *, shape: tuple[int, int]) -> None:
    """
    Refuse all but a table of finite numbers of that shape.

    Raises:
        ValueError: It is not that.
    """
    require(len(rows) == shape[0], f"{what} must have {shape[0]} rows, had {len(rows)}")
    for row in rows:
        check_numbers(f"A row of {what}", row, count=shape[1])


def check_distribution(what: str, values: Sequence[float], *, count: int) -> None:
    """
    Refuse all but `count` probabilities that sum to 1.

    Raises:
        ValueError: They are not that.
    """
    check_numbers(what, values, count=count)
    require(all(one >= 0 for one in values), f"{what} must not be negative")
    require(abs(math.fsum(values) - 1) <= SUM_TOLERANCE, f"{what} must sum to 1, summed to {math.fsum(values)}")


def check_symbols(what: str, symbols: Collection[str]) -> None:
    """
    Refuse more symbols, or longer names, than any universe has.

    Raises:
        ValueError: There are.
    """
    require(len(symbols) <= MOST_SYMBOLS, f"{what} must name {MOST_SYMBOLS} symbols at most, named {len(symbols)}")
    require(all(0 < len(one) <= LONGEST_NAME for one in symbols), f"{what} must have names of 1 to {LONGEST_NAME}")
