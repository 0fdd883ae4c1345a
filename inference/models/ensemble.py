"""All members asked at once and combined into one calibrated opinion per symbol."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import onnxruntime
import xgboost

from feature_store.errors import BadInputError
from inference.models.manifest import RETURNS_INPUT, CalibrationTable, HeadEntry, MemberEntry, split_input
from inference.models.market_move import without_market

Floats = npt.NDArray[np.float64]
Inputs = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float32 | np.float64]
# How far beyond the ensemble's own bound one member's answer is still believed.
MEMBER_ROOM = 10.0


@dataclass(frozen=True, slots=True, eq=False)
class EnsembleOutput:
    """
    One opinion per row.

    `expected_return` is the log return over the horizon before costs. Where the ensemble abstains it is NaN,
    `probability_up` is 0.5 and `consensus` 0: no threshold lets that through. `heads` are what the bundle answers
    beside, by name: `quantile_0.1` a log return, `direction` a probability of a rise; NaN where the ensemble abstains.
    """

    expected_return: Floats
    probability_up: Floats
    members: Mapping[str, Floats]
    consensus: npt.NDArray[np.int64]
    heads: Mapping[str, Floats] = field(default_factory=dict)

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
        self._session = _session(content)
        self._columns = np.asarray(columns, np.int64)
        self._scale = scale

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:  # noqa: ARG002
        """Return scaled predictions from the windows."""
        feed: dict[str, Any] = {"returns": np.ascontiguousarray(returns)}
        if self._columns.size:
            feed["inputs"] = np.ascontiguousarray(windows[:, :, self._columns])
        raw = self._session.run(None, feed)[0]
        return np.asarray(raw, np.float64).reshape(len(returns)) * self._scale


class OnnxRowsMember:
    """A graph over single rows that holds its scaler; one thread."""

    def __init__(self, content: bytes, columns: InputColumns, scale: float) -> None:
        self._session = _session(content)
        self._columns = columns
        self._scale = scale

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:  # noqa: ARG002
        """Return scaled predictions from one row of inputs each."""
        raw = self._session.run(None, {"rows": self._columns(inputs, windows)})[0]
        return np.asarray(raw, np.float64).reshape(len(inputs)) * self._scale


class BaggedMember:
    """The mean of several fits of one kind."""

    def __init__(self, draws: Sequence[Member], scale: float) -> None:
        self._draws = draws
        self._scale = scale

    def predict(self, inputs: Inputs, windows: Inputs, returns: Inputs) -> Floats:
        """Return the scaled mean of what the draws answer."""
        answers = [draw.predict(inputs, windows, returns) for draw in self._draws]
        return np.asarray(np.mean(answers, axis=0), np.float64) * self._scale


class Head(Protocol):
    """What is answered beside the expected return."""

    def predict(self, inputs: Inputs, windows: Inputs) -> dict[str, Floats]:
        """Return the answers by name, one per row."""
        ...


class QuantileHead:
    """Trees that answer with several quantiles at once; one thread."""

    def __init__(self, entry: HeadEntry, content: bytes, columns: InputColumns) -> None:
        self._booster = xgboost.Booster(params={"nthread": 1})
        self._booster.load_model(bytearray(content))
        self._entry = entry
        self._columns = columns

    def predict(self, inputs: Inputs, windows: Inputs) -> dict[str, Floats]:
        """Return quantiles of the log return over the horizon: sorted, since trees may cross them."""
        raw = self._booster.inplace_predict(self._columns(inputs, windows), validate_features=False)
        shape = (len(inputs), len(self._entry.outputs))
        values = np.sort(np.asarray(raw, np.float64).reshape(shape), axis=1) * self._entry.scale
        values[:, 0] -= self._entry.widening
        values[:, -1] += self._entry.widening
        # A negative widening may not turn an interval inside out.
        middle = (values[:, 0] + values[:, -1]) / 2
        values[:, 0], values[:, -1] = np.minimum(values[:, 0], middle), np.maximum(values[:, -1], middle)
        values = np.clip(values, values[:, :1], values[:, -1:])
        return {name: values[:, place] for place, name in enumerate(self._entry.outputs)}


class DirectionHead:
    """Trees that answer with the probability of a rise; one thread."""

    def __init__(self, entry: HeadEntry, content: bytes, columns: InputColumns) -> None:
        self._booster = xgboost.Booster(params={"nthread": 1})
        self._booster.load_model(bytearray(content))
        self._entry = entry
        self._columns = columns

    def predict(self, inputs: Inputs, windows: Inputs) -> dict[str, Floats]:
        """Return the probability of a rise over the horizon."""
        columns = self._columns(inputs, windows)
        odds = self._booster.inplace_predict(columns, predict_type="margin", validate_features=False)
        return {"direction": 1 / (1 + np.exp(-self._entry.scale * np.asarray(odds, np.float64).reshape(len(inputs))))}


def open_member(entry: MemberEntry, content: bytes, model_inputs: Sequence[str], draws: Sequence[bytes] = ()) -> Member:
    """
    Return a member made from its file's bytes, its columns found by name.

    A bagged member is made from the bytes of all its `draws`.
    """
    if entry.draws:
        opened = [
            open_member(msgspec.structs.replace(entry, file=draw.file, scale=draw.scale, draws=()), one, model_inputs)
            for draw, one in zip(entry.draws, draws, strict=True)
        ]
        return BaggedMember(opened, entry.scale)
    if entry.kind == "onnx":
        columns = [model_inputs.index(name) for name in entry.inputs if name != RETURNS_INPUT]
        return OnnxMember(content, columns, entry.scale)
    found = InputColumns(entry.inputs, model_inputs)
    if entry.kind == "xgboost":
        return XGBoostMember(content, found, entry.scale)
    if entry.kind == "lightgbm":
        return LightGBMMember(content, found, entry.scale)
    return OnnxRowsMember(content, found, entry.scale)


def open_head(entry: HeadEntry, content: bytes, model_inputs: Sequence[str]) -> Head:
    """Return a head made from its file's bytes."""
    opener = QuantileHead if entry.kind == "quantile" else DirectionHead
    return opener(entry, content, InputColumns(entry.inputs, model_inputs))


def _session(content: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


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
        heads: Sequence[Head] = (),
        market_share: float = 0.0,
    ) -> None:
        self._members = members
        self._market_share = market_share
        self._heads = heads
        self._weights = weights
        self._scale = scale
        self._xs = np.asarray(calibration.expected_return)
        self._ps = np.asarray(calibration.probability_up)
        self._bound = max_abs_expected_return
        self._shape = shape

    def score(
        self, inputs: Numbers, windows: Numbers, returns: Numbers, moments: npt.NDArray[np.int64] | None = None
    ) -> EnsembleOutput:
        """
        Return one opinion per row; a row with a number missing anywhere, or an unbelievable answer, abstains.

        `moments` says which rows are of the same candle: what the members say of all of them alike is taken off, as
        far as the bundle's `market_share` says. Without it each row stands alone and keeps all.

        Raises:
            BadInputError: The arrays do not have the shapes the bundle was trained on.
        """
        return self.combined(*self.answers(inputs, windows, returns), moments)

    def answers(
        self, inputs: Numbers, windows: Numbers, returns: Numbers
    ) -> tuple[dict[str, Floats], dict[str, Floats]]:
        """
        Return what members and heads say of each row by itself, by name; NaN where a number is missing.

        Raises:
            BadInputError: The arrays do not have the shapes the bundle was trained on.
        """
        self._check_shapes(inputs, windows, returns)
        inputs, windows, returns = (np.asarray(array, np.float32) for array in (inputs, windows, returns))
        usable = (
            np.isfinite(inputs).all(axis=1) & np.isfinite(windows).all(axis=(1, 2)) & np.isfinite(returns).all(axis=1)
        )
        members = {name: np.full(len(inputs), np.nan) for name in self._members}
        heads: dict[str, Floats] = {}
        if usable.any():
            kept = (inputs, windows, returns) if usable.all() else (inputs[usable], windows[usable], returns[usable])
            for name, member in self._members.items():
                members[name][usable] = member.predict(*kept)
            for head in self._heads:
                for name, answer in head.predict(kept[0], kept[1]).items():
                    heads[name] = np.full(len(inputs), np.nan)
                    heads[name][usable] = answer

        return members, heads

    def combined(
        self, members: Mapping[str, Floats], heads: Mapping[str, Floats], moments: npt.NDArray[np.int64] | None = None
    ) -> EnsembleOutput:
        """Return the opinions that the members' answers make; all rows of a moment have to be there."""
        if moments is not None:
            members = {name: without_market(values, moments, self._market_share) for name, values in members.items()}
        expected = weighted_vote(members, self._weights) * self._scale
        stacked = np.stack(list(members.values()))
        with np.errstate(invalid="ignore"):
            believed = np.isfinite(expected) & (np.abs(expected) <= self._bound)
            believed &= (np.abs(stacked) <= MEMBER_ROOM * self._bound).all(axis=0)
            consensus = (np.sign(stacked) == np.sign(expected)).sum(axis=0)
        expected = np.where(believed, expected, np.nan)
        probability = np.where(believed, np.interp(np.where(believed, expected, 0), self._xs, self._ps), 0.5)

        return EnsembleOutput(
            expected_return=expected,
            probability_up=probability,
            members=members,
            consensus=np.where(believed, consensus, 0).astype(np.int64),
            heads={name: np.where(believed, values, np.nan) for name, values in heads.items()},
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
    draws: Mapping[str, Sequence[bytes]] | None = None,
    heads: Sequence[tuple[HeadEntry, bytes]] = (),
    market_share: float = 0.0,
) -> Ensemble:
    """
    Return the ensemble of members whose files' bytes are given by member name.

    `draws` holds the bytes of all files of each bagged member, `heads` what is answered beside with its bytes.
    """
    several = draws or {}
    return Ensemble(
        {
            entry.name: open_member(entry, contents[entry.name], model_inputs, several.get(entry.name, ()))
            for entry in entries
        },
        weights={entry.name: entry.weight for entry in entries},
        scale=scale,
        calibration=calibration,
        max_abs_expected_return=max_abs_expected_return,
        shape=(window, len(model_inputs)),
        heads=[open_head(entry, content, model_inputs) for entry, content in heads],
        market_share=market_share,
    )
