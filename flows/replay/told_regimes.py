"""Regimes of stored candles as a worker would have told them: by the bundle's own model, candle after candle."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from flows.training.dataset import Dataset, Rows
from inference.models.bundle import Bundle
from inference.regime.detector import RegimeModel, detector, read, start
from inference.regime.states import REGIMES

Labels = npt.NDArray[np.str_]
LABEL = "<U18"
"""As long as the longest name of a regime."""


def told_regimes(bundle: Bundle, dataset: Dataset, rows: Rows) -> Labels:
    """
    Return the regime of each row [n]: by the bundle's model of regimes, else by its thresholds, else unknown.

    Rows are those that a worker could have read, in whatever order; all of them at once, for a regime is told from what
    came before.
    """
    model = bundle.manifest.regime_model
    if not len(rows):
        return np.empty(0, LABEL)
    if model is not None:
        return _walked(model, dataset, rows)
    found = [
        np.array(bundle.regimes(dataset.returns(part), [dataset.symbols[one] for one in part.series]), LABEL)
        for part in dataset.batches(rows)
    ]
    return np.concatenate(found)


def _walked(model: RegimeModel, dataset: Dataset, rows: Rows) -> Labels:
    step, window = dataset.timeframe_ms, dataset.window
    first_ms = int(rows.open_time_ms.min()) - (window - 1) * step
    count = (int(rows.open_time_ms.max()) - first_ms) // step + 1
    found = detector(model, dataset.symbols, dataset.input_names)
    columns = list(found.columns)
    found = found._replace(columns=tuple(range(len(columns))))
    inputs = np.full((count, len(dataset.symbols), len(columns)), np.nan, np.float32)
    places = (dataset.open_time_ms - first_ms) // step
    inside = (places >= 0) & (places < count)
    inputs[places[inside], dataset.series[inside]] = dataset.inputs_all[inside][:, columns]
    asked = np.zeros((count, len(dataset.symbols)), np.bool_)
    asked[(rows.open_time_ms - first_ms) // step, rows.series] = True
    begins = _begins(asked, window)
    codes = {name: code for code, name in enumerate(REGIMES)}
    labels = np.zeros(asked.shape, np.int8)
    fresh, belief = start(found), start(found)
    for place in range(count):
        # A worker that comes to a symbol, or back to it after a gap, begins with the window that it then has.
        for now, new in zip(belief, fresh, strict=True):
            now[begins[place]] = new[begins[place]]
        belief, reading = read(found, belief, inputs[place])
        labels[place] = [codes[one] for one in reading.label]
    return np.array(REGIMES, LABEL)[labels[(rows.open_time_ms - first_ms) // step, rows.series]]


def _begins(asked: npt.NDArray[np.bool_], window: int) -> npt.NDArray[np.bool_]:
    """Return where the windows of rows begin that none came before within that window, [T, n]."""
    earlier: npt.NDArray[np.int64] = np.cumsum(asked, axis=0, dtype=np.int64) - asked
    before: npt.NDArray[np.int64] = np.zeros_like(earlier)
    before[window - 1 :] = earlier[: len(earlier) - window + 1]
    first = asked & (earlier == before)
    found = np.zeros_like(asked)
    found[: len(asked) - window + 1] = first[window - 1 :]
    return found
