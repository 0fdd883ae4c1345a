"""Whether anything can be learned from rows: prices that moved, both ways, and were not broken."""

from __future__ import annotations

import numpy as np

from feature_store.errors import BadInputError
from flows.training.dataset import Dataset, Rows

_FEWEST_ROWS = 50
_NAMED = 5


def check_window(name: str, dataset: Dataset, rows: Rows) -> None:
    """
    Refuse a window from which nothing can be learned.

    Raises:
        BadInputError: Too few rows, prices that never moved, or that moved one way only; the message says what to do.
    """
    if len(rows) < _FEWEST_ROWS:
        raise BadInputError(
            f"The {name} window has {len(rows)} usable rows, at least {_FEWEST_ROWS} are needed; load more days, or "
            f"look at the coverage report for gaps{_undefined(dataset)}"
        )
    still = [
        dataset.symbols[number] for number in np.unique(rows.series) if not rows.label[rows.series == number].any()
    ]
    if still:
        raise BadInputError(
            f"The price of {_listed(still)} never moved in the {name} window: there is nothing to learn from; leave it "
            "out of QT_SYMBOLS, or load days in which it traded"
        )
    rises, falls = int((rows.label > 0).sum()), int((rows.label < 0).sum())
    if not rises or not falls:
        missing = "fell" if rises else "rose"
        raise BadInputError(
            f"In the {name} window no price ever {missing} over {dataset.horizon} candles ({len(rows)} outcomes): a "
            "probability of a rise cannot be learned from one kind of outcome; load more days or more symbols"
        )


def _undefined(dataset: Dataset) -> str:
    """Name the inputs that are most often not finite once they are warm, where any are."""
    warm = dataset.open_time_ms >= dataset.start_ms
    missing = (~np.isfinite(dataset.inputs_all[warm])).sum(axis=0)
    worst = [int(place) for place in np.argsort(-missing, kind="stable")[:_NAMED] if missing[place]]
    if not worst:
        return ""
    told = ", ".join(f"{dataset.input_names[place]} in {missing[place]}" for place in worst)
    return f"; of {int(warm.sum())} candles, inputs have no finite value: {told}"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} others" if len(names) > _NAMED else "")
