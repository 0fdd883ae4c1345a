"""What anybody could have said: nothing will happen, it goes on, and a straight line through the inputs."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.members.target import TargetScale
from flows.training.overlap import row_weights
from inference.models.market_move import without_market

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
    market_share: float

    @classmethod
    def fit(cls, dataset: Dataset, rows: Rows, config: TrainingConfig) -> Ridge:
        """Fit with a penalty of a hundredth of the rows: inputs are many and alike."""
        names = config.row_inputs(dataset.input_names)
        learned = without_market(rows.label, rows.open_time_ms, config.market_share_removed)
        x = dataset.columns(rows, names).astype(np.float64)
        centre, spread = x.mean(axis=0), np.maximum(x.std(axis=0), 1e-9)
        z = np.clip((x - centre) / spread, -5, 5)
        target = TargetScale.of(learned)
        weights = row_weights(rows, config, timeframe_ms=dataset.timeframe_ms)
        weighted = z if weights is None else z * weights[:, None]
        gram = weighted.T @ z + _RIDGE * len(z) * np.eye(z.shape[1])
        coefficients = np.linalg.solve(gram, weighted.T @ target.encode(learned))
        return cls(names, centre, spread, coefficients, target, config.market_share_removed)

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return at each row, without most of the market's common move, as the ensemble's."""
        z = np.clip((dataset.columns(rows, self.names).astype(np.float64) - self.centre) / self.spread, -5, 5)
        return without_market(z @ self.coefficients * self.target.spread, rows.open_time_ms, self.market_share)


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
