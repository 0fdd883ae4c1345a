"""Four members asked at once and combined into one calibrated opinion per symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import lightgbm
import numpy as np
import numpy.typing as npt
import onnxruntime
import xgboost

from feature_store.errors import BadInputError
from inference.models.manifest import RETURNS_INPUT, CalibrationTable, MemberEntry, split_input

Floats = npt.NDArray[np.float64]
Inputs = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float32 | np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleOutput:
    """
    One opinion per row.

    `expected_return` is the log return over the horizon before costs. Where the ensemble abstains it is NaN,
    `probability_up` is 0.5 and `consensus` 0: no threshold lets that through.
    """

    expected_return: Floats
    probability_up: Floats
    members: Mapping[str, Floats]
    consensus: npt.NDArray[np.int64]

    @property
    def abstained(self) -> npt.NDArray[np.bool_]:
        """Rows without an opinion."""
        return np.isnan(self.expected_return)


class Member(Protocol):
    """A trained model that can be asked without the library that trained it."""

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:
        """Return the expected log return over the horizon, one per row."""
        ...


def weighted_vote(scores: Mapping[str, npt.ArrayLike], weights: Mapping[str, float]) -> Floats:
    """Return the weighted sum of the members' scores, members in the order of their names."""
    if scores.keys() != weights.keys():
        raise BadInputError(f"Scores {sorted(scores)} and weights {sorted(weights)} must name the same members")
    total = sum(np.asarray(scores[name], np.float64) * weights[name] for name in sorted(scores))
    return np.asarray(total, np.float64)


class InputColumns:
    """A member's inputs by name, taken from the newest row or averaged over the newest rows of the window."""

    def __init__(self, names: Sequence[str], model_inputs: Sequence[str]) -> None:
        position = {name: index for index, name in enumerate(model_inputs)}
        parts = [split_input(name) for name in names]
        self._newest = [(place, position[name]) for place, (name, length) in enumerate(parts) if length == 1]
        self._means: dict[int, list[tuple[int, int]]] = {}
        for place, (name, length) in enumerate(parts):
            if length > 1:
                self._means.setdefault(position[name], []).append((place, length))
        self._width = len(parts)

    def __call__(self, inputs: Inputs, windows: Inputs) -> Inputs:
        """Return the columns [n, k]; each row's are the same in whatever batch it comes."""
        out = np.empty((len(inputs), self._width), np.float32)
        for place, column in self._newest:
            out[:, place] = inputs[:, column]
        for column, wanted in self._means.items():
            sums = np.cumsum(windows[:, ::-1, column], axis=1, dtype=np.float64)
            for place, length in wanted:
                out[:, place] = sums[:, length - 1] / length
        return out


class XGBoostMember:
    """Gradient-boosted trees from a native `.ubj` file, one thread."""

    def __init__(self, content: bytes, columns: InputColumns, scale: float) -> None:
        self._booster = xgboost.Booster(params={"nthread": 1})
        self._booster.load_model(bytearray(content))
        self._columns = columns
        self._scale = scale

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:  # noqa: ARG002
        """Return scaled predictions from one row of inputs each."""
        raw = self._booster.inplace_predict(self._columns(inputs, windows), validate_features=False)
        return np.asarray(raw, np.float64) * self._scale


class LightGBMMember:
    """Gradient-boosted trees from a native text file, one thread."""

    def __init__(self, content: bytes, columns: InputColumns, scale: float) -> None:
        self._booster = lightgbm.Booster(model_str=content.decode("utf-8"))
        self._columns = columns
        self._scale = scale

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:  # noqa: ARG002
        """Return scaled predictions from one row of inputs each."""
        raw = self._booster.predict(self._columns(inputs, windows), num_threads=1)
        return np.asarray(raw, np.float64) * self._scale


class OnnxMember:
    """A net whose graph holds its scaler and its sum over the horizon; one thread."""

    def __init__(self, content: bytes, columns: Sequence[int], scale: float) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        options.log_severity_level = 3
        self._session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        self._columns = np.asarray(columns, np.int64)
        self._scale = scale

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:  # noqa: ARG002
        """Return scaled predictions from the windows."""
        feed: dict[str, Any] = {"returns": np.ascontiguousarray(returns)}
        if self._columns.size:
            feed["inputs"] = np.ascontiguousarray(windows[:, :, self._columns])
        raw = self._session.run(None, feed)[0]
        return np.asarray(raw, np.float64).reshape(len(returns)) * self._scale


def open_member(entry: MemberEntry, content: bytes, model_inputs: Sequence[str]) -> Member:
    """Return a member made from its file's bytes, its columns found by name."""
    if entry.kind == "onnx":
        columns = [model_inputs.index(name) for name in entry.inputs if name != RETURNS_INPUT]
        return OnnxMember(content, columns, entry.scale)
    trees = XGBoostMember if entry.kind == "xgboost" else LightGBMMember
    return trees(content, InputColumns(entry.inputs, model_inputs), entry.scale)


class Ensemble:
    """Members, weights and calibration as one model."""

    def __init__(
        self,
        members: Mapping[str, Member],
        *,
        weights: Mapping[str, float],
        scale: float,
        calibration: CalibrationTable,
        max_abs_expected_return: float,
        shape: tuple[int, int],
    ) -> None:
        self._members = members
        self._weights = weights
        self._scale = scale
        self._xs = np.asarray(calibration.expected_return)
        self._ps = np.asarray(calibration.probability_up)
        self._bound = max_abs_expected_return
        self._shape = shape

    def score(self, inputs: Numbers, windows: Numbers, returns: Numbers) -> EnsembleOutput:
        """
        Return one opinion per row; a row with a number missing anywhere, or an unbelievable answer, abstains.

        Raises:
            BadInputError: The arrays do not have the shapes the bundle was trained on.
        """
        self._check_shapes(inputs, windows, returns)
        inputs, windows, returns = (np.asarray(array, np.float32) for array in (inputs, windows, returns))
        usable = (
            np.isfinite(inputs).all(axis=1) & np.isfinite(windows).all(axis=(1, 2)) & np.isfinite(returns).all(axis=1)
        )
        members = {name: np.full(len(inputs), np.nan) for name in self._members}
        if usable.any():
            kept = (inputs, windows, returns) if usable.all() else (inputs[usable], windows[usable], returns[usable])
            for name, member in self._members.items():
                members[name][usable] = member.predict(*kept)

        return self._combine(members)

    def _combine(self, members: dict[str, Floats]) -> EnsembleOutput:
        expected = weighted_vote(members, self._weights) * self._scale
        stacked = np.stack(list(members.values()))
        with np.errstate(invalid="ignore"):
            believed = np.isfinite(expected) & (np.abs(expected) <= self._bound)
            believed &= (np.abs(stacked) <= 10 * self._bound).all(axis=0)
            consensus = (np.sign(stacked) == np.sign(expected)).sum(axis=0)
        expected = np.where(believed, expected, np.nan)
        probability = np.where(believed, np.interp(np.where(believed, expected, 0), self._xs, self._ps), 0.5)

        return EnsembleOutput(
            expected_return=expected,
            probability_up=probability,
            members=members,
            consensus=np.where(believed, consensus, 0).astype(np.int64),
        )

    def _check_shapes(self, inputs: Numbers, windows: Numbers, returns: Numbers) -> None:
        length, width = self._shape
        n = len(inputs)
        found = (inputs.shape, windows.shape, returns.shape)
        expected = ((n, width), (n, length, width), (n, length))
        if found != expected:
            raise BadInputError(f"The bundle needs inputs, windows and returns of shapes {expected}, were {found}")


def assemble(
    entries: Sequence[MemberEntry],
    contents: Mapping[str, bytes],
    *,
    scale: float,
    calibration: CalibrationTable,
    max_abs_expected_return: float,
    model_inputs: Sequence[str],
    window: int,
) -> Ensemble:
    """Return the ensemble of members whose files' bytes are given by member name."""
    return Ensemble(
        {entry.name: open_member(entry, contents[entry.name], model_inputs) for entry in entries},
        weights={entry.name: entry.weight for entry in entries},
        scale=scale,
        calibration=calibration,
        max_abs_expected_return=max_abs_expected_return,
        shape=(window, len(model_inputs)),
    )
