"""N-HiTS over windows of returns and of a stated few inputs."""

from __future__ import annotations

from typing import Any

from neuralforecast.models import NHITS

from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Rows, select_columns
from flows.training.members.base import MemberSpec, Progress
from flows.training.members.neural import FittedNet, Weights, fit_net


def fit_nhits(
    dataset: Dataset, rows: Rows, config: TrainingConfig, progress: Progress, start: Weights | None = None
) -> FittedNet:
    """
    Fit N-HiTS.

    N-HiTS starts its forecast at the last value of its series, which is sound for levels and noise for returns.
    So the returns come in as an input and the series itself is held at zero: no news, no forecast.
    """
    sizes = config.nhits
    select_columns(dataset.input_names, config.nhits_inputs)

    def make(names: list[str], options: dict[str, Any]) -> NHITS:
        return NHITS(
            hist_exog_list=names,
            exclude_insample_y=True,
            mlp_units=3 * [[sizes.hidden, sizes.hidden]],
            n_pool_kernel_size=[8, 4, 1],
            n_freq_downsample=[12, 4, 1],
            # onnxruntime's MaxPool swallows NaN.
            pooling_mode="AvgPool1d",
            dropout_prob_theta=sizes.dropout,
            learning_rate=sizes.learning_rate,
            batch_size=sizes.series_per_batch,
            windows_batch_size=sizes.windows_per_batch,
            step_size=sizes.window_stride,
            optimizer_kwargs={"weight_decay": sizes.weight_decay},
            **options,
        )

    return fit_net(
        "nhits", make, dataset, rows, config, progress,
        inputs=config.nhits_inputs, returns_as_input=True, steps=sizes.max_steps, start=start,
    )  # fmt: skip


MEMBER = MemberSpec(
    fit=fit_nhits,
    consumes="the window of returns, and of a stated few inputs",
    share=0.30,
    seconds=30.0,
    reads_rows=False,
    on_gpu=True,
)
