"""
References in 80-bit arithmetic, for features that are small differences of large numbers.

Where the market hardly moves, CCI divides a difference of prices by their mean deviation: with 53 bits any order of
summing loses more digits than the bar allows, TA-Lib's too. MFI in TA-Lib adds to and takes from running sums, which
keep the rounding of volumes that left long ago.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from feature_store.candle import CLOSE, HIGH, LOW, VOLUME

if TYPE_CHECKING:
    from collections.abc import Callable

    import numpy.typing as npt

    from feature_store.candle import CandleBlock


def _last(x: Any, length: int) -> Any:
    return np.lib.stride_tricks.sliding_window_view(x, length)


def _typical(block: CandleBlock, parts: int = 3) -> Any:
    high, low, close = (block.values[:, one].astype(np.longdouble) for one in (HIGH, LOW, CLOSE))
    return (high + low + close) / parts


def _filled(values: Any, warm_up: int) -> npt.NDArray[np.float64]:
    return np.append(np.full(warm_up, np.nan), values.astype(np.float64))


def _cci(block: CandleBlock) -> npt.NDArray[np.float64]:
    # Sixty times the distance of each typical price from the mean: nothing is divided, so hardly anything is rounded.
    tripled = _last(_typical(block, 1), 20)
    total = tripled.sum(axis=1)
    apart = 20 * tripled - total[:, None]
    spread = np.abs(apart).sum(axis=1)
    moves = spread / 1200 > 1e-12 * total / 60
    return _filled(np.where(moves, apart[:, -1] * 20 / np.where(moves, np.longdouble(15) / 1000 * spread, 1), 0), 19)


def _mfi(block: CandleBlock) -> npt.NDArray[np.float64]:
    typical = _typical(block)
    flow = typical * block.values[:, VOLUME].astype(np.longdouble)
    change = np.diff(typical)
    rising = _last(np.where(change > 1e-13 * typical[1:], flow[1:], 0), 14).sum(axis=1)
    moving = _last(np.where(np.abs(change) > 1e-13 * typical[1:], flow[1:], 0), 14).sum(axis=1)
    return _filled(np.where(moving > 0, 100 * rising / np.where(moving > 0, moving, 1), 0), 14)


EXACT: dict[str, Callable[[CandleBlock], npt.NDArray[np.float64]]] = {"cci_20": _cci, "mfi_14": _mfi}
