"""Whether a file of candles says something else than what is stored already."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import CLOSE, HIGH, LOW, OPEN, VOLUME, CandleBlock, Series
from feature_store.errors import BadInputError
from feature_store.lake import CandleLake
from feature_store.sources.ingest import REVERIFIED

if TYPE_CHECKING:
    import numpy.typing as npt


@dataclass(frozen=True, slots=True)
class Stretch:
    """
    What a file said of a series: first and last open time in milliseconds, and the file's name.

    It `binds` while the file lies there as it was read: other files have to agree with it.
    """

    first_ms: int
    last_ms: int
    part: str
    binds: bool = True


def agreed(
    lake: CandleLake, series: Series, block: CandleBlock, brought: Sequence[Stretch], *, corrects: bool
) -> CandleBlock:
    """
    Return what is to be stored of a file's candles, if they agree with the newest revisions in the lake.

    The last candle of a file may have been open when the file was written: of two looks at it the longer one is stored,
    in whatever order they come. The newest stored candles may differ too, as venues restate them, but not between two
    files that both lie there.

    Args:
        lake: What is stored.
        series: Of which series the candles are.
        block: Closed candles, oldest first.
        brought: What files of the same place brought, in this import or before; those that bind have to agree.
        corrects: Whether what differs from older candles is wanted as corrections.

    Raises:
        BadInputError: They differ, and nobody can say which are right.
        CorruptFileError: A stored file is damaged.
    """
    if len(block) == 0:
        return block
    first_ms, last_ms = int(block.open_time_ms[0]), int(block.open_time_ms[-1])
    binding = [one for one in brought if one.binds and one.first_ms <= last_ms and one.last_ms >= first_ms]
    if corrects and not binding:
        return block
    stored = lake.read(series, first_ms, last_ms + 1)
    times, at, at_stored = np.intersect1d(
        block.open_time_ms, stored.open_time_ms, assume_unique=True, return_indices=True
    )
    ours, theirs = block.values[at], stored.values[at_stored]
    differ = (ours != theirs).any(axis=1)
    if not differ.any():
        return block
    is_last = at[-1] == len(block) - 1
    if is_last and _shorter_looks(ours[-1:], theirs[-1:])[0] and (not corrects or _within(times[-1:], binding)):
        block, differ[-1] = block[:-1], False
    differing, continued = times[differ], times[differ & _shorter_looks(theirs, ours)]
    for one in binding:
        _refuse_other_file(series, _without_last(differing, continued, [one]), one)
    if not corrects:
        _refuse_old(lake, series, block, stored, _without_last(differing, continued, brought))
    return block


def _shorter_looks(ours: npt.NDArray[np.float64], theirs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Tell which candles may be others before those had closed: of the same beginning, and not yet as far."""
    # Another close needs another trade: at the same volume nobody can say which of the two came later.
    shorter: npt.NDArray[np.bool_] = (
        (ours[:, OPEN] == theirs[:, OPEN])
        & (ours[:, HIGH] <= theirs[:, HIGH])
        & (ours[:, LOW] >= theirs[:, LOW])
        & (ours[:, VOLUME] < theirs[:, VOLUME])
    )
    return shorter


def _without_last(
    differing: npt.NDArray[np.int64], continued: npt.NDArray[np.int64], stretches: Sequence[Stretch]
) -> npt.NDArray[np.int64]:
    """Leave out the last candle of a stretch where it goes on from what is stored: it had been open."""
    was_open = continued[np.isin(continued, [one.last_ms for one in stretches])]
    return differing[~np.isin(differing, was_open)]


def _within(times: npt.NDArray[np.int64], stretches: Sequence[Stretch]) -> bool:
    return any(((times >= one.first_ms) & (times <= one.last_ms)).any() for one in stretches)


def _refuse_other_file(series: Series, differing: npt.NDArray[np.int64], other: Stretch) -> None:
    of_other = differing[(differing >= other.first_ms) & (differing <= other.last_ms)]
    if len(of_other):
        raise BadInputError(
            f"{series.symbol}: the candle at {of_other[0]} ms contradicts {other.part}; keep one of the two files"
        )


def _refuse_old(
    lake: CandleLake, series: Series, block: CandleBlock, stored: CandleBlock, differing: npt.NDArray[np.int64]
) -> None:
    newest = lake.last_open_time_ms(series)
    restated_ms = (newest or 0) - REVERIFIED * series.timeframe.milliseconds
    if len(differing) == 0 or differing[0] > restated_ms:
        return
    first = int(differing[0])
    ours, theirs = (one.since(first).values[0, CLOSE] for one in (block, stored))
    raise BadInputError(
        f"{series.symbol} {series.timeframe}: {len(differing)} candles differ from those that are stored, the first at "
        f"{np.datetime64(first, 'ms')} UTC ({first} ms): it closes at {ours:.10g} here, at {theirs:.10g} in the lake. "
        "If these are right, --repair imports the file as corrections, beside what was known before"
    )
