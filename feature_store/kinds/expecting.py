"""Which rows of a kind should be there and are not, where that can be known: one per period, one per settlement."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from feature_store.absences import Span
from feature_store.kinds.checking import closed_ms
from feature_store.kinds.definition import FUNDING, Kind, Subject

Times = npt.NDArray[np.int64]

_AROUND = 4
"""So many distances on either side tell how often a settlement came at the time."""


def is_expected(kind: Kind) -> bool:
    """Tell whether it can be known when there should be a row: nobody knows when somebody trades."""
    return kind.has_timeframe or kind is FUNDING


def missing_times(kind: Kind, subject: Subject, times: Times, span: Span) -> Times | None:
    """
    Return the times within a span at which a row is expected and none is there; None where that cannot be known.

    A row is expected once it could be known, as its kind declares. How often funding is settled, no venue tells of the
    past and some change it: what is usual among the neighbours of a stretch is expected in it. The first few after a
    change to a longer interval may count as missing until more of them are there.

    Args:
        kind: Of what the rows are.
        subject: About which instrument.
        times: When the rows are, rising.
        span: From when on, and the present; the instrument was listed all the while.
    """
    newest_ms = span.end_ms - closed_ms(kind, subject) - kind.delay_ms
    there = times[(times >= span.start_ms) & (times < span.end_ms)]
    if subject.timeframe is not None:
        step = subject.timeframe.milliseconds
        expected = np.arange(-(-span.start_ms // step) * step, newest_ms + 1, step, dtype=np.int64)
        return np.setdiff1d(expected, there)
    return _settlements(there, span.start_ms, newest_ms) if kind is FUNDING else None


def _settlements(there: Times, start_ms: int, newest_ms: int) -> Times | None:
    if len(there) < 2:
        return None
    apart = np.diff(there)
    around = np.pad(apart.astype(np.float64), _AROUND, constant_values=np.nan)
    usual = np.nanmedian(np.lib.stride_tricks.sliding_window_view(around, 2 * _AROUND + 1), axis=1)
    # A settlement that is stamped some seconds off is there all the same.
    absent = np.rint(apart / usual).astype(np.int64) - 1
    first, last = int(there[0]), int(there[-1])
    before = np.arange(first - int(usual[0]), start_ms - 1, -int(usual[0]), dtype=np.int64)[::-1]
    after = np.arange(last + int(usual[-1]), newest_ms + 1, int(usual[-1]), dtype=np.int64)
    within = [
        begin + np.arange(1, count + 1) * (length // (count + 1))
        for begin, length, count in zip(there[:-1].tolist(), apart.tolist(), absent.tolist(), strict=True)
        if count > 0
    ]
    return np.concatenate([before, *within, after]).astype(np.int64)
