"""What members that learn from single rows share: which rows and columns, what is learned of them, and the export."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Inputs, Rows
from flows.training.members.base import Export, write_file
from flows.training.members.target import TargetScale
from flows.training.overlap import row_weights
from inference.models.market_move import without_market


@dataclass(frozen=True, slots=True, eq=False)
class Lesson:
    """Columns [n, k] by name, the scaled label of each row, and what each row counts, None where all count alike."""

    names: tuple[str, ...]
    columns: Inputs
    target: Floats
    weights: Floats | None
    scale: TargetScale


def lesson(dataset: Dataset, rows: Rows, config: TrainingConfig, *, stride: int) -> Lesson:
    """Return what the rows of every n-th candle teach."""
    names = config.member_inputs(dataset.input_names)
    learned = without_market(dataset.learned[rows.index], rows.open_time_ms, config.market_share_removed)
    scale = TargetScale.of(learned)
    kept = (rows.open_time_ms // dataset.timeframe_ms) % stride == 0
    read = rows.take(kept)
    return Lesson(
        names,
        dataset.columns(read, names),
        scale.encode(learned[kept]),
        row_weights(read, config, timeframe_ms=dataset.timeframe_ms, end_ms=dataset.learned_end_ms[read.index]),
        scale,
    )


@dataclass(frozen=True, slots=True, eq=False)
class FittedRows:
    """
    A member over single rows, and the ONNX graph of the same answer.

    `answer` is what its library says of columns [n, k], in units of the target's spread.
    """

    name: str
    answer: Callable[[Inputs], Floats]
    graph: bytes
    inputs: tuple[str, ...]
    scale: TargetScale
    shares: dict[str, float] = field(default_factory=dict)

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return at each row."""
        return np.asarray(self.answer(dataset.columns(rows, self.inputs)), np.float64) * self.scale.spread

    def export(self, folder: Path) -> Export:
        """Write the ONNX graph."""
        file = write_file(folder, f"{self.name}.onnx", self.graph)
        return Export(kind="onnx_rows", file=file, inputs=self.inputs, raw_scale=self.scale.spread)

    def importance(self) -> dict[str, float]:
        """Return each input's share of what was learned, where that is known."""
        return self.shares
