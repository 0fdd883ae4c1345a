"""Bagging: one member fitted on several draws of days with replacement, and averaged (Breiman, 1996)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from msgspec.structs import replace

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Rows
from flows.training.members.base import Export, FittedMember, MemberTrainer, Progress
from inference.models.manifest import Draw

_BLOCK_MS = 86_400_000


@dataclass(frozen=True, slots=True, eq=False)
class FittedBag:
    """Several fits of one member, which answer with their mean."""

    name: str
    draws: Sequence[FittedMember]

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the mean of what the draws expect."""
        return np.asarray(np.mean([one.predict(dataset, rows) for one in self.draws], axis=0), np.float64)

    def export(self, folder: Path) -> Export:
        """Write one file for each draw, numbered from 1."""
        exports, draws = [], []
        for number, fitted in enumerate(self.draws, start=1):
            export = fitted.export(folder)
            stem, dot, suffix = export.file.name.partition(".")
            file = replace(export.file, name=f"{stem}_{number}{dot}{suffix}")
            (folder / export.file.name).replace(folder / file.name)
            exports.append(export)
            draws.append(Draw(file=file, scale=export.raw_scale))
        return replace(exports[0], file=draws[0].file, raw_scale=1.0, draws=tuple(draws))

    def importance(self) -> dict[str, float]:
        """Return the mean of the draws' shares."""
        shares = [one.importance() for one in self.draws]
        return {name: float(np.mean([one[name] for one in shares])) for name in shares[0]}


def fit_bag(
    name: str, fit: MemberTrainer, dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress
) -> FittedBag:
    """
    Fit a member once for each of `config.draws` draws.

    Whole days of all series are drawn together: neighbouring rows share labels, and series move as one.
    """
    fitted = []
    for number in range(config.draws):
        drawn = drawn_days(rows, seed=config.seed, number=number)
        own = replace(config, seed=config.seed + number)
        fitted.append(fit(dataset, drawn, own, lambda _step, _share: None))
        progress(name, (number + 1) / config.draws)
    return FittedBag(name, fitted)


def drawn_days(rows: Rows, *, seed: int, number: int) -> Rows:
    """Return the rows of as many days as there are, drawn with replacement; equal numbers give equal draws."""
    day = rows.open_time_ms // _BLOCK_MS
    days = np.unique(day)
    chosen = np.random.default_rng([seed, number]).choice(days, len(days))
    return rows.take(np.concatenate([np.flatnonzero(day == one) for one in np.sort(chosen)]))
