"""What a bundle tells the worker of markets beside its members' answers: regimes, and what inputs were like."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows
from flows.training.input_ranges import learn_inputs, used_inputs
from flows.training.regime_model import learn_regime_model
from inference.models.manifest import HeadEntry, MemberEntry, TimeWindow
from inference.regime.detector import RegimeModel
from inference.signals.trained_inputs import TrainedInputs


@dataclass(frozen=True, slots=True)
class LiveReadings:
    """
    What was learned, and its figures by name.

    What there was too little to learn from is None, and `notes` says why: a bundle without it trades all the same.
    """

    regime_model: RegimeModel | None
    trained_inputs: TrainedInputs | None
    metrics: dict[str, float]
    notes: tuple[str, ...]


def learn_readings(
    dataset: Dataset,
    window: TimeWindow,
    rows: tuple[Rows, Rows],
    parts: Iterable[MemberEntry | HeadEntry],
    config: TrainingConfig,
) -> LiveReadings:
    """
    Learn regimes on the fit window, and ranges of the inputs that `parts` read.

    `rows` are those that members were fitted on, and those that nothing was fitted on. Of many, evenly spread ones are
    taken, the same in each run, so that this takes seconds whatever a training was given.
    """
    metrics: dict[str, float] = {}
    notes: list[str] = []
    regime_model, trained_inputs = None, None
    try:
        regimes = learn_regime_model(
            dataset, window, seed=config.seed, stretches=config.regime_stretches, rounds=config.regime_rounds
        )
        regime_model, metrics["regime_model/doubted"] = regimes.model, regimes.doubted
    except (BadInputError, ValueError) as error:
        notes.append(f"No model of regimes: {error}")
    fit, held_out = (_spread(one, config.range_rows) for one in rows)
    try:
        inputs = learn_inputs(
            dataset.inputs(fit), dataset.inputs(held_out), dataset.input_names, used_inputs(parts, dataset.input_names)
        )
        trained_inputs, metrics["inputs/later"] = inputs.trained, inputs.later
    except (BadInputError, ValueError) as error:
        notes.append(f"No ranges of inputs: {error}")
    return LiveReadings(regime_model, trained_inputs, metrics, tuple(notes))


def _spread(rows: Rows, most: int) -> Rows:
    """Return at most so many rows in the order of time, evenly spread over it."""
    order = np.argsort(rows.open_time_ms, kind="stable")
    if len(order) > most:
        places: npt.NDArray[np.int64] = np.linspace(0, len(order) - 1, most).round().astype(np.int64)
        order = order[places]
    return rows.take(order)
