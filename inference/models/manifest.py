"""What a model bundle says of itself: the schema of manifest.json."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Literal

import msgspec

from inference.models.data_fingerprint import DataFingerprint, data_digest
from inference.regime.detector import RegimeModel
from inference.regime.market import RegimeThresholds
from inference.regime.observing import columns_of
from inference.signals.trained_inputs import TrainedInputs, prepare_inputs

SCHEMA_VERSION = 2
"""What is written; schema 1, whose bundles know voting members alone, is still read."""
_READABLE = (1, SCHEMA_VERSION)
MANIFEST_NAME = "manifest.json"
PROMISED_HIT_RATE = "calibration/ensemble/hit_rate"
RETURNS_INPUT = "returns"
"""How a member's `inputs` name the series of log returns, which is not one of the model inputs."""

_MEAN = re.compile(r"(.+)/mean_([1-9][0-9]{0,3})")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,40}\.[a-z0-9]{2,8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

MemberKind = Literal["xgboost", "lightgbm", "onnx", "onnx_rows"]
"""Native trees, an ONNX graph over windows, and one over single rows."""
TREES: tuple[MemberKind, ...] = ("xgboost", "lightgbm")
EnsembleMode = Literal["voting", "stacking", "bagging"]
Weighting = Literal["skill", "stacking", "equal", "fixed"]
HeadKind = Literal["quantile", "direction"]


def split_input(name: str) -> tuple[str, int]:
    """
    Return the model input that a member's input is made of, and over how many candles it is averaged.

    `rsi` is the newest value, `rsi/mean_16` the mean of the newest 16.
    """
    found = _MEAN.fullmatch(name)
    return (found[1], int(found[2])) if found else (name, 1)


def _require(holds: bool, message: str) -> None:  # noqa: FBT001 -- an assertion with a sentence.
    if not holds:
        raise ValueError(message)


class FileEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One file of the bundle, by plain name, with what its bytes must be."""

    name: str
    sha256: str
    size: int

    def __post_init__(self) -> None:
        """Refuse names that could leave the folder and digests that are none."""
        _require(_FILE_NAME.fullmatch(self.name) is not None, f"File name {self.name!r} is not a plain lower-case name")
        _require(_SHA256.fullmatch(self.sha256) is not None, f"File {self.name!r} has no SHA-256, was {self.sha256!r}")
        _require(0 < self.size <= 256 * 2**20, f"File {self.name!r} must have 1 byte to 256 MiB, was {self.size}")


class Draw(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One of several fits of a bagged member, and what turns its file's answer into a log return."""

    file: FileEntry
    scale: float

    def __post_init__(self) -> None:
        """Refuse scales that no training can have meant."""
        _require(math.isfinite(self.scale) and self.scale > 0, f"Draw {self.file.name!r} needs a positive scale")


class MemberEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    One member: its file, its weight, what it consumes.

    A member's expected log return over the horizon is `scale` times what its file answers. `inputs` are names of the
    bundle's model inputs, in the member's own order, and `returns` for the window of log returns. Where a member reads
    single rows, `name/mean_16` is the mean of an input over the newest 16 candles. `consumes` says the same to people.
    A bagged member has several `draws`, the first of which is `file`: it answers with the mean of theirs.
    """

    name: str
    kind: MemberKind
    file: FileEntry
    weight: float
    scale: float
    inputs: tuple[str, ...]
    consumes: str = ""
    draws: tuple[Draw, ...] = ()

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the member."""
        return tuple(draw.file for draw in self.draws) or (self.file,)

    def __post_init__(self) -> None:
        """Refuse weights and scales that no training can have meant."""
        _require(0 <= self.weight <= 1, f"Member {self.name!r} needs a weight in [0, 1], was {self.weight}")
        _require(math.isfinite(self.scale) and self.scale > 0, f"Member {self.name!r} needs a positive scale")
        _require(len(self.inputs) > 0, f"Member {self.name!r} names no inputs")
        _require(len(set(self.inputs)) == len(self.inputs), f"Member {self.name!r} names an input twice")
        first = self.draws[0].file if self.draws else self.file
        _require(first == self.file, f"Member {self.name!r} has draws, the first of which must be its file")


class HeadEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    What is answered beside the expected return: an interval (`quantile`) or the direction itself (`direction`).

    A head is an XGBoost file over single rows. Quantiles of the log return over the horizon are `scale` times what it
    answers at each of the `levels`, rising, the outermost of which are moved apart by `widening` (conformalised
    quantile regression, Romano, Patterson and Candes, 2019). The probability of a rise is what it answers, its log
    odds multiplied by `scale`.
    """

    kind: HeadKind
    file: FileEntry
    scale: float
    inputs: tuple[str, ...]
    levels: tuple[float, ...] = ()
    widening: float = 0.0

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of what it answers."""
        return tuple(f"quantile_{level:g}" for level in self.levels) or ("direction",)

    def __post_init__(self) -> None:
        """Refuse levels that are no quantiles."""
        _require(math.isfinite(self.scale) and self.scale >= 0, f"Head {self.kind!r} needs a scale of at least 0")
        _require(math.isfinite(self.widening), f"Head {self.kind!r} needs a finite widening")
        _require(len(self.inputs) > 0, f"Head {self.kind!r} names no inputs")
        rising = all(a < b for a, b in pairwise(self.levels)) and all(0 < one < 1 for one in self.levels)
        _require(rising, f"Levels of head {self.kind!r} must rise inside (0, 1), were {self.levels}")
        _require(
            (self.kind == "quantile") == (len(self.levels) >= 2),
            "A quantile head has 2 levels or more, others have none",
        )


class CalibrationTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Expected return to probability of a rise, as points of a piecewise linear, never falling curve."""

    method: Literal["logistic", "isotonic"]
    expected_return: tuple[float, ...]
    probability_up: tuple[float, ...]

    def __post_init__(self) -> None:
        """Refuse curves that fall, repeat a point, or promise certainty."""
        xs, ps = self.expected_return, self.probability_up
        _require(len(xs) == len(ps) >= 2, "Calibration needs as many probabilities as points, at least 2")
        _require(all(math.isfinite(x) for x in xs), "Calibration points must be finite")
        _require(all(a < b for a, b in pairwise(xs)), "Calibration points must rise")
        _require(all(0 < p < 1 for p in ps), "Calibrated probabilities must lie inside (0, 1)")
        _require(all(a <= b for a, b in pairwise(ps)), "Calibrated probabilities must never fall")


class TimeWindow(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Candles that open in `[start_ms, end_ms)`, UTC milliseconds."""

    start_ms: int
    end_ms: int

    def __post_init__(self) -> None:
        """Refuse empty windows."""
        _require(
            self.start_ms < self.end_ms, f"A window must end after its start, was {self.start_ms} to {self.end_ms}"
        )


class TrainingWindows(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Which candles were used for what; nothing at or after `calibration.end_ms` was seen by any part of the bundle."""

    fit: TimeWindow
    validation: TimeWindow
    calibration: TimeWindow
    shadow: TimeWindow

    def spans(self) -> dict[str, tuple[int, int]]:
        """Return start and end of each window, by its name."""
        return {name: (one.start_ms, one.end_ms) for name, one in msgspec.structs.asdict(self).items()}

    @property
    def seen_until_ms(self) -> int:
        """The open time from which on no candle was seen."""
        return self.calibration.end_ms


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Inputs and the outputs they must reproduce, to `tolerance` times the usual size of a prediction.

    On the platform that they were `made_on`, trees must give them to the last bit. Bundles from before it was recorded
    name none, and are held to the tolerance.
    """

    file: FileEntry
    rows: int
    tolerance: float
    prediction_scale: dict[str, float]
    made_on: str = ""


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Everything the worker must know of a bundle before it trusts it.

    The ensemble's expected return is `scale` times the weighted sum of its members. A prediction beyond
    `max_abs_expected_return` is not believed: the bundle abstains.

    `mode` says how the members were made one: by `voting`; by `stacking`, where scales and weights were learned at
    once; by `bagging`, a vote of members that each are the mean of several draws. `compared` are members that were
    trained on the same rows and have no vote: the worker checks their bytes and never opens them.
    """

    schema_version: int
    created_at: str
    code_version: str
    feature_fingerprint: str
    model_inputs: tuple[str, ...]
    window: int
    timeframe: str
    horizon: int
    symbols: tuple[str, ...]
    training: TrainingWindows
    members: tuple[MemberEntry, ...]
    weighting: Weighting
    scale: float
    calibration: CalibrationTable
    threshold: float
    round_trip_cost: float
    max_abs_expected_return: float
    golden: Golden
    metrics: dict[str, float]
    mode: EnsembleMode = "voting"
    compared: tuple[MemberEntry, ...] = ()
    heads: tuple[HeadEntry, ...] = ()

    # How much of what the members say of all symbols alike is taken off; bundles from before it took nothing off.
    market_share: float = 0.0
    # Bundles from before these were recorded have neither: then data and regimes are unknown.
    data_fingerprint: DataFingerprint | None = None
    regime: RegimeThresholds | None = None
    # Probabilities of regimes, and what training saw of the inputs; None where there was too little to learn from.
    regime_model: RegimeModel | None = None
    trained_inputs: TrainedInputs | None = None

    # Members taken over from an earlier candidate, with the windows that they were fitted on.
    kept_members: dict[str, TimeWindow] = {}

    @property
    def files(self) -> tuple[FileEntry, ...]:
        """Every file of the bundle beside the manifest."""
        members = (file for member in (*self.members, *self.compared) for file in member.files)
        return (*members, *(head.file for head in self.heads), self.golden.file)

    @property
    def promised_hit_rate(self) -> float | None:
        """
        How often the ensemble's direction was right on the calibration window, None where that was not measured.

        No member was fitted on that window and no weight chosen by it, and an opinion is right there as it is live:
        where price moved, to the side that was said, at the end of the horizon. There each symbol and candle counts
        alike; live each candle does, however many symbols it has.
        """
        promised = self.metrics.get(PROMISED_HIT_RATE)
        return promised if promised is not None and 0 <= promised <= 1 else None

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        names = [member.name for member in (*self.members, *self.compared)]
        files = [file.name for file in self.files]
        kinds = [head.kind for head in self.heads]
        known = {*self.model_inputs, RETURNS_INPUT}
        read = [one.inputs for one in (*self.members, *self.compared)] + [head.inputs for head in self.heads]
        asked = {split_input(name) for inputs in read for name in inputs}
        unknown = sorted({name for name, length in asked if name not in known or length > self.window})
        total = sum(member.weight for member in self.members)

        _require(self.schema_version in _READABLE, f"Schema version must be one of {_READABLE}")
        is_plain = self.mode == "voting" and not self.compared and not self.heads
        is_plain &= self.weighting in ("skill", "fixed") and not any(member.draws for member in self.members)
        stacked = self.mode != "stacking" or self.weighting == "stacking"
        _require(stacked, f"Mode stacking learns its own weights, weighting was {self.weighting!r}")
        _require(is_plain or self.schema_version >= 2, "Schema version 1 knows voting members alone")
        _require(len(self.members) > 0 and len(set(names)) == len(names), f"Member names must be unique, were {names}")
        _require(len(set(files)) == len(files), f"Each file has one owner, were {files}")
        _require(len(set(kinds)) == len(kinds), f"There is one head of a kind, were {kinds}")
        _require(all(one.weight == 0 for one in self.compared), "Members that are compared have no weight")
        _require(abs(total - 1) < 1e-9, f"Weights must sum to 1, were {total}")
        _require(not unknown, f"Members name unknown inputs {unknown}")
        _require(self.horizon >= 1 and self.window >= 2, "Horizon must be at least 1 and window at least 2")
        _require(0.5 < self.threshold < 1, f"Threshold must lie in (0.5, 1), was {self.threshold}")
        _require(math.isfinite(self.scale) and self.scale > 0, f"Scale must be positive, was {self.scale}")
        _require(0 < self.max_abs_expected_return < 1, "The bound on expected returns must lie in (0, 1)")
        _require(0 <= self.market_share <= 1, f"The share of the market must lie in [0, 1], was {self.market_share}")
        _require(0 <= self.round_trip_cost < 1, "The round-trip cost must lie in [0, 1)")
        _require(_SHA256.fullmatch(self.feature_fingerprint) is not None, "The feature fingerprint must be a SHA-256")
        if self.regime_model is not None:
            columns_of(self.model_inputs)
        if self.trained_inputs is not None:
            prepare_inputs(self.trained_inputs, self.model_inputs)
        _require(
            self._states_its_data(), "The data fingerprint does not fit the windows, series and features it covers"
        )

    def _states_its_data(self) -> bool:
        data = self.data_fingerprint
        return data is None or data.digest == data_digest(
            series=data.series,
            candles=data.candles,
            as_of=data.as_of,
            universe=data.universe,
            windows=self.training.spans(),
            timeframe=self.timeframe,
            features=self.feature_fingerprint,
        )


def encode(manifest: Manifest) -> bytes:
    """Write a manifest: sorted, indented, the same bytes for the same content."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode(content: bytes) -> Manifest:
    """
    Read a manifest.

    Raises:
        msgspec.DecodeError: It is not JSON of this schema, or contradicts itself.
    """
    return msgspec.json.decode(content, type=Manifest)
