"""What the two nets share: frames for neuralforecast, a loss on the hour, and an ONNX graph that holds its scaler."""

from __future__ import annotations

import builtins
import contextlib
import io
import logging
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import onnx
import pandas as pd
import torch
from lightning_fabric.utilities.warnings import PossibleUserWarning
from neuralforecast import NeuralForecast
from neuralforecast.losses.pytorch import BasePointLoss
from pytorch_lightning.callbacks import Callback

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, Floats, Inputs, Rows
from flows.training.members.base import Export, Progress, write_file
from inference.models.manifest import RETURNS_INPUT
from inference.models.market_move import without_market

Weights = Mapping[str, npt.NDArray[Any]]
"""What a net learned, by the names of its own layers."""

# Scaled values are cut here, in training and in the graph alike: one bad tick must not swamp a window.
_CUT = 5.0


@dataclass(frozen=True, slots=True, eq=False)
class NetScale:
    """Centre and spread of returns and inputs, measured on the fit window."""

    return_centre: float
    return_spread: float
    input_centre: Inputs
    input_spread: Inputs

    @classmethod
    def of(cls, returns: Inputs, inputs: Inputs) -> Self:
        """Measure the fit window's candles."""
        spread = inputs.std(axis=0, dtype=np.float64)
        return cls(
            float(returns.mean(dtype=np.float64)),
            float(max(returns.std(dtype=np.float64), 1e-9)),
            inputs.mean(axis=0, dtype=np.float64).astype(np.float32),
            np.where(spread > 1e-9, spread, 1.0).astype(np.float32),
        )

    def scale_returns(self, returns: Inputs) -> Inputs:
        """Return what the net reads and learns as its series."""
        scaled = (returns - np.float32(self.return_centre)) / np.float32(self.return_spread)
        return np.asarray(np.clip(scaled, -_CUT, _CUT), np.float32)

    def scale_inputs(self, inputs: Inputs) -> Inputs:
        """Return what the net reads beside its series."""
        return np.asarray(np.clip((inputs - self.input_centre) / self.input_spread, -_CUT, _CUT), np.float32)


class HorizonLoss(BasePointLoss):  # type: ignore[misc]
    """
    Squared error of the sum over the horizon, with a little of each step's own.

    What is traded is the return over the hour; the steps are only how a sequence model writes it down.
    """

    def __init__(self, step_share: float = 0.2) -> None:
        super().__init__(horizon_weight=None, outputsize_multiplier=1, output_names=[""])
        self.step_share = step_share

    def __call__(
        self,
        y: torch.Tensor,
        y_hat: torch.Tensor,
        y_insample: torch.Tensor | None = None,  # noqa: ARG002 -- neuralforecast's signature.
        mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss of one batch of windows; a window with a hole counts for nothing."""
        error = y - y_hat
        weight = torch.ones_like(error[:, :1]) if mask is None else torch.amin(mask, dim=1, keepdim=True)
        whole = error.sum(dim=1, keepdim=True) ** 2 / error.shape[1]
        steps = (error**2).mean(dim=1, keepdim=True)
        blended = (1 - self.step_share) * whole + self.step_share * steps
        return (blended * weight).sum() / weight.sum().clamp(min=1)


class _StepProgress(Callback):
    def __init__(self, progress: Progress, name: str, steps: int) -> None:
        self._progress, self._name, self._steps = progress, name, steps

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        # neuralforecast trains a deep copy of the model, callbacks and all.
        return self

    def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
        if trainer.global_step % 20 == 0:
            self._progress(self._name, min(trainer.global_step / self._steps, 1.0))


def trainer_options(config: TrainingConfig, progress: Progress, name: str, steps: int) -> dict[str, Any]:
    """Return what keeps Lightning on its device, quiet and off the disk."""
    return {
        "accelerator": config.device,
        "devices": 1,
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "callbacks": [_StepProgress(progress, name, steps)],
        "random_seed": config.seed,
        "max_steps": steps,
        "scaler_type": "identity",
        "loss": HorizonLoss(),
        "h": config.horizon,
        "input_size": config.window,
        # Only windows without padding: a zero is not a return.
        "training_data_availability_threshold": 1.0,
        "optimizer": torch.optim.AdamW,
    }


@contextlib.contextmanager
def quiet(threads: int) -> Iterator[None]:
    """Hold torch to its threads and Lightning to silence, and put both back."""
    before = torch.get_num_threads()
    loggers = [
        logging.getLogger(name)
        for name in ("pytorch_lightning", "lightning_fabric", "lightning.pytorch", "lightning.fabric", "torch.onnx")
    ]
    levels = [logger.level for logger in loggers]
    torch.set_num_threads(threads)
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", PossibleUserWarning)
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            yield
    finally:
        torch.set_num_threads(before)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class HorizonReturn(torch.nn.Module):
    """A net from raw windows to one log return: scaler, net and sum over the horizon in one graph."""

    input_centre: torch.Tensor
    input_spread: torch.Tensor

    def __init__(self, net: torch.nn.Module, scale: NetScale, *, returns_as_input: bool) -> None:
        super().__init__()
        self.net = net
        self.returns_as_input = returns_as_input
        self.return_centre, self.return_spread = scale.return_centre, scale.return_spread
        self.register_buffer("input_centre", torch.from_numpy(scale.input_centre))
        self.register_buffer("input_spread", torch.from_numpy(scale.input_spread))

    def forward(self, returns: torch.Tensor, inputs: torch.Tensor | None = None) -> torch.Tensor:
        """Return the expected log return of each window."""
        y = ((returns - self.return_centre) / self.return_spread).clamp(-_CUT, _CUT).unsqueeze(-1)
        guard = returns.sum(dim=1)
        history = None
        if inputs is not None:
            history = ((inputs - self.input_centre) / self.input_spread).clamp(-_CUT, _CUT)
            guard = guard + inputs.sum(dim=(1, 2))
        if self.returns_as_input:
            history = y if history is None else torch.cat((y, history), dim=2)
        steps: torch.Tensor = self.net(
            {
                "insample_y": y * 0 if self.returns_as_input else y,
                "insample_mask": torch.ones_like(y),
                "hist_exog": history,
                "futr_exog": None,
                "stat_exog": None,
            }
        )
        # onnxruntime's Clip and MaxPool swallow NaN: an undefined input must give an undefined answer.
        return steps.squeeze(-1).sum(dim=1) * self.return_spread + 0.0 * guard


class NetTrainer(Protocol):
    """What makes a neuralforecast model of one kind."""

    def __call__(self, names: list[str], options: dict[str, Any]) -> Any:
        """Return an untrained model that reads the named columns beside its series."""
        ...


class FittedNet:
    """A net as neuralforecast trained it."""

    def __init__(
        self,
        name: str,
        forecaster: NeuralForecast,
        scale: NetScale,
        inputs: tuple[str, ...],
        config: TrainingConfig,
        *,
        returns_as_input: bool,
    ) -> None:
        self.name = name
        self._forecaster = forecaster
        self._scale = scale
        self._inputs = inputs
        self._config = config
        self._returns_as_input = returns_as_input

    def predict(self, dataset: Dataset, rows: Rows) -> Floats:
        """Return the expected log return at each row, asked of neuralforecast itself."""
        n, window = len(rows), self._config.window
        columns: dict[str, Any] = {
            "unique_id": np.repeat([f"{number:08d}" for number in range(n)], window),
            "ds": np.tile(np.arange(window), n),
            "y": self._scale.scale_returns(dataset.returns(rows)).reshape(-1),
        }
        if self._returns_as_input:
            columns[RETURNS_INPUT] = columns["y"]
        if self._inputs:
            picked = dataset.windows(rows)[:, :, self._positions(dataset)]
            scaled = self._scale.scale_inputs(picked).reshape(n * window, -1)
            columns |= {name: scaled[:, place] for place, name in enumerate(self._inputs)}
        with quiet(self._config.threads):
            answer = self._forecaster.predict(df=pd.DataFrame(columns))
        steps = answer.sort_values(["unique_id", "ds"])[self.name].to_numpy(np.float64)
        return np.asarray(steps.reshape(n, -1).sum(axis=1) * self._scale.return_spread, np.float64)

    def export(self, folder: Path) -> Export:
        """Write the ONNX graph."""
        net = self._forecaster.models[0].eval().cpu()
        graph = HorizonReturn(net, self._scale, returns_as_input=self._returns_as_input).eval()
        examples = [torch.randn(3, self._config.window)]
        if self._inputs:
            examples.append(torch.randn(3, self._config.window, len(self._inputs)))
        batch = torch.export.Dim("batch", min=1, max=65_536)
        with quiet(self._config.threads), _torch_len(net), contextlib.redirect_stdout(io.StringIO()):
            program = torch.onnx.export(
                graph,
                tuple(examples),
                input_names=["returns", "inputs"][: len(examples)],
                output_names=["expected_return"],
                dynamo=True,
                opset_version=18,
                dynamic_shapes=tuple({0: batch} for _ in examples),
                external_data=False,
                optimize=True,
                verbose=False,
            )
        if program is None:
            raise RuntimeError(f"torch.onnx.export of {self.name} answered with no program")
        model = program.model_proto
        onnx.helper.set_model_props(model, {"inputs": ",".join(self._inputs), "member": self.name})
        file = write_file(folder, f"{self.name}.onnx", model.SerializeToString(deterministic=True))
        return Export(kind="onnx", file=file, inputs=(RETURNS_INPUT, *self._inputs), raw_scale=1.0)

    def importance(self) -> dict[str, float]:
        """Return nothing: a net's inputs have no gain to share."""
        return {}

    def weights(self) -> Weights:
        """Return what it learned, by name, as plain arrays: for a later fit to start from."""
        return {
            name: one.detach().cpu().numpy().copy() for name, one in self._forecaster.models[0].state_dict().items()
        }

    def _positions(self, dataset: Dataset) -> list[int]:
        return [dataset.input_names.index(name) for name in self._inputs]


def fit_net(
    name: str,
    make: NetTrainer,
    dataset: Dataset,
    rows: Rows,
    config: TrainingConfig,
    progress: Progress,
    *,
    inputs: tuple[str, ...],
    returns_as_input: bool,
    steps: int,
    start: Weights | None = None,
) -> FittedNet:
    """
    Fit one net on the candles that the rows span, labels included, from weights of chance or from those it is given.

    Raises:
        BadInputError: The weights to start from are those of another net.
    """
    picked = candles_of(dataset, rows)
    positions = [dataset.input_names.index(one) for one in inputs]
    scale = NetScale.of(dataset.returns_all[picked], dataset.inputs_all[picked][:, positions])
    frame = _long_frame(
        dataset, picked, scale, inputs, positions,
        returns_as_input=returns_as_input, market_share=config.market_share_removed,
    )  # fmt: skip
    names = [RETURNS_INPUT, *inputs] if returns_as_input else list(inputs)
    with quiet(config.threads):
        model = make(names, trainer_options(config, progress, name, steps) | {"alias": name})
        if start is not None:
            put_weights(model, start)
        forecaster = NeuralForecast(models=[model], freq=1)
        forecaster.fit(df=frame)
    progress(name, 1.0)
    return FittedNet(name, forecaster, scale, inputs, config, returns_as_input=returns_as_input)


def put_weights(model: torch.nn.Module, start: Weights) -> None:
    """
    Give a net the weights of a former one.

    Raises:
        BadInputError: They are those of another net, by name, shape or type, or not all of them are numbers.
    """
    own = {name: one.cpu().numpy() for name, one in model.state_dict().items()}
    if _kinds(own) != _kinds(start):
        raise BadInputError("its weights are those of another net")
    if not all(np.isfinite(one).all() for one in start.values()):
        raise BadInputError("its weights are not all numbers")
    model.load_state_dict({name: torch.from_numpy(one.copy()) for name, one in start.items()})


def _kinds(weights: Weights) -> dict[str, tuple[tuple[int, ...], np.dtype[Any]]]:
    return {name: (one.shape, one.dtype) for name, one in weights.items()}


def candles_of(dataset: Dataset, rows: Rows) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return the complete candles from the first row to the end of the last row's label."""
    end_ms = rows.open_time_ms.max() + dataset.horizon * dataset.timeframe_ms
    times = dataset.open_time_ms
    return np.flatnonzero(dataset.complete & (times >= rows.open_time_ms.min()) & (times <= end_ms))


def _long_frame(
    dataset: Dataset,
    picked: np.ndarray[Any, np.dtype[np.int64]],
    scale: NetScale,
    inputs: tuple[str, ...],
    positions: list[int],
    *,
    returns_as_input: bool,
    market_share: float,
) -> pd.DataFrame:
    times = dataset.open_time_ms[picked]
    breaks = (np.diff(picked) != 1) | (np.diff(times) != dataset.timeframe_ms) | (np.diff(dataset.series[picked]) != 0)
    run = np.concatenate([[0], np.cumsum(breaks)])
    long_enough = np.bincount(run)[run] >= dataset.window + dataset.horizon
    picked, times, run = picked[long_enough], times[long_enough], run[long_enough]
    returns = dataset.returns_all[picked]
    y = scale.scale_returns(returns)
    columns: dict[str, Any] = {"unique_id": run, "ds": times // dataset.timeframe_ms, "y": y}
    if returns_as_input:
        # The series itself is then only what is learned, so it may be another than what is read.
        own = without_market(returns.astype(np.float64), times, market_share)
        columns |= {RETURNS_INPUT: y, "y": scale.scale_returns(own.astype(np.float32))}
    scaled = scale.scale_inputs(dataset.inputs_all[picked][:, positions])
    columns |= {name: scaled[:, place] for place, name in enumerate(inputs)}
    return pd.DataFrame(columns)


@contextlib.contextmanager
def _torch_len(net: torch.nn.Module) -> Iterator[None]:
    """Let a net ask a tensor for its batch size: `len` would freeze the batch dimension, without an error."""
    module: Any = sys.modules[type(net).__module__]
    module.len = lambda one: one.shape[0] if isinstance(one, torch.Tensor) else builtins.len(one)
    try:
        yield
    finally:
        del module.len
