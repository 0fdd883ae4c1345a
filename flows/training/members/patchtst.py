"""PatchTST over windows of returns alone: it takes no other input."""

from __future__ import annotations

from typing import Any

from neuralforecast.models import PatchTST

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows
from flows.training.members.base import MemberSpec, Progress
from flows.training.members.neural import FittedNet, Weights, fit_net


def fit_patchtst(
    dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress, start: Weights | None = None
) -> FittedNet:
    """
    Fit PatchTST.

    Its own normalisation (RevIN) subtracts the last value and adds it back to every step, which is sound for levels
    and noise for returns: it is off, and the graph scales by the fit window's spread instead.
    """
    sizes = config.patchtst

    def make(names: list[str], options: dict[str, Any]) -> PatchTST:  # noqa: ARG001 -- it reads its series alone.
        return PatchTST(
            encoder_layers=2,
            n_heads=4,
            hidden_size=sizes.hidden,
            linear_hidden_size=2 * sizes.hidden,
            patch_len=16,
            stride=8,
            revin=False,
            dropout=sizes.dropout,
            fc_dropout=sizes.dropout,
            learning_rate=sizes.learning_rate,
            batch_size=sizes.series_per_batch,
            windows_batch_size=sizes.windows_per_batch,
            step_size=sizes.window_stride,
            optimizer_kwargs={"weight_decay": sizes.weight_decay},
            **options,
        )

    return fit_net(
        "patchtst",
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
    fit=fit_patchtst,
    consumes="the window of returns alone: stock PatchTST takes no other input",
    share=0.20,
    seconds=30.0,
    reads_rows=False,
    on_gpu=True,
)
