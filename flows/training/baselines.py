"""What anybody could have said: nothing will happen, it goes on, and a straight line through the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.labels import without_market
from flows.training.members.target import TargetScale

_RIDGE = 0.01
BASELINES = ("zero", "persistence", "ridge")


@dataclass(frozen=True, slots=True, eq=False)
class Ridge:
    """Ridge regression on what the trees read, standardised, fitted on the fit window alone."""

    names: tuple[str, ...]
    centre: Floats
    spread: Floats
    coefficients: Floats
    target: TargetScale

    @classmethod
    def fit(cls, dataset: Dataset, rows: Rows, config: TrainingConfig) -> Ridge:
        """Fit with a penalty of a hundredth of the rows: inputs are many and alike."""
        names = config.row_inputs(dataset.input_names)
        learned = without_market(rows.label, rows.open_time_ms, config.market_share_removed)
        x = dataset.columns(rows, names).astype(np.float64)
        centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
        z = np.clip((x - centre) / spread, -5, 5)
        target = TargetScale.of(learned)
        gram = z.T @ z + _RIDGE * len(z) * np.eye(z.shape[1])
        return cls(names, centre, spread, np.linalg.solve(gram, z.T @ target.encode(learned)), target)

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return at each row."""
        z = np.clip((dataset.columns(rows, self.names).astype(np.float64) - self.centre) / self.spread, -5, 5)
        return np.asarray(z @ self.coefficients * self.target.spread)


def persistence(dataset: Dataset, rows: Rows) -> Floats:
    """Return the log return of the last horizon: what rose goes on rising."""
    return np.asarray(dataset.returns(rows)[:, -dataset.horizon :].sum(axis=1, dtype=np.float64))


def baseline_scores(dataset: Dataset, ridge: Ridge, rows: Rows) -> dict[str, Floats]:
    """Return every naive prediction at each row."""
    return {
        "zero": np.zeros(len(rows)),
        "persistence": persistence(dataset, rows),
        "ridge": ridge.predict(dataset, rows),
    }
