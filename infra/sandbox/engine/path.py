"""
The prices inside a candle of which only open, high, low and close are known.

A stated path that knows nothing of our positions: open, one extreme, the other extreme, close, with straight lines
between, in whole price ticks. All of it is integer arithmetic, so that numpy, plain Python and compiled code give the
same prices.
"""

from __future__ import annotations

from typing import Any

STEP_MS = 10_000
"""How far apart in time the prices of a path are."""


def up_first(opened: Any, high: Any, low: Any) -> Any:
    """Whether the high comes before the low: the extreme nearer to the open is touched first, the high wins ties."""
    return high - opened <= opened - low


def corners(steps: int) -> tuple[int, int, int]:
    """Return the steps at which the first extreme, the second extreme and the close of a candle are reached."""
    return steps // 3, 2 * steps // 3, steps - 1


def between(start: Any, end: Any, step: Any, steps: Any) -> Any:
    """Return the price `step` of `steps` on the straight line from start to end, to the nearest tick, halves up."""
    return start + (2 * (end - start) * step + steps) // (2 * steps)
