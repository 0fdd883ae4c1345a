"""DLinear over windows of returns alone: a straight line through the trend and one through what is left of it."""

from __future__ import annotations

from typing import Any

from neuralforecast.models import DLinear

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows
from flows.training.members.base import MemberSpec, Progress
from flows.training.members.neural import FittedNet, Weights, fit_net


def fit_dlinear(
    dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress, start: Weights | None = None
) -> FittedNet:
    """Fit DLinear (Zeng, Chen, Zhang and Xu, 2023), whose one-layer maps transformers are to be compared with."""
    sizes = config.dlinear

    def make(names: list[str], options: dict[str, Any]) -> DLinear:  # noqa: ARG001 -- it reads its series alone.
        return DLinear(
            moving_avg_window=25,
            learning_rate=sizes.learning_rate,
            batch_size=sizes.series_per_batch,
            windows_batch_size=sizes.windows_per_batch,
            step_size=sizes.window_stride,
            optimizer_kwargs={"weight_decay": sizes.weight_decay},
            **options,
        )

    return fit_net(
        "dlinear",
        make,
        dataset,
        rows,
        config,
        progress,
        inputs=(),
        returns_as_input=False,
        steps=sizes.max_steps,
        start=start,
    )


MEMBER = MemberSpec(
    fit=fit_dlinear,
    consumes="the window of returns alone",
    role="compared",
    seconds=6.0,
    reads_rows=False,
    on_gpu=True,
)
