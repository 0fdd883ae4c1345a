"""What a model bundle says of itself: the schema of manifest.json."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import Literal

import msgspec

SCHEMA_VERSION = 1
MANIFEST_NAME = "manifest.json"
RETURNS_INPUT = "returns"
"""How a member's `inputs` name the series of log returns, which is not one of the model inputs."""

_MEAN = re.compile(r"(.+)/mean_([1-9][0-9]{0,3})")
_FILE_NAME = re.compile(r"[a-z0-9][a-z0-9_]{0,40}\.[a-z0-9]{2,8}")
_SHA256 = re.compile(r"[0-9a-f]{64}")

MemberKind = Literal["xgboost", "lightgbm", "onnx"]


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


class MemberEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    One member: its file, its weight, what it consumes.

    A member's expected log return over the horizon is `scale` times what its file answers. `inputs` are names of the
    bundle's model inputs, in the member's own order, and `returns` for the window of log returns. Where a member reads
    single rows, `name/mean_16` is the mean of an input over the newest 16 candles.
    """

    name: str
    kind: MemberKind
    file: FileEntry
    weight: float
    scale: float
    inputs: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse weights and scales that no training can have meant."""
        _require(0 <= self.weight <= 1, f"Member {self.name!r} needs a weight in [0, 1], was {self.weight}")
        _require(math.isfinite(self.scale) and self.scale > 0, f"Member {self.name!r} needs a positive scale")
        _require(len(self.inputs) > 0, f"Member {self.name!r} names no inputs")
        _require(len(set(self.inputs)) == len(self.inputs), f"Member {self.name!r} names an input twice")


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

    @property
    def seen_until_ms(self) -> int:
        """The open time from which on no candle was seen."""
        return self.calibration.end_ms


class Golden(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Inputs and the outputs they must reproduce, to `tolerance` times the usual size of a prediction."""

    file: FileEntry
    rows: int
    tolerance: float
    prediction_scale: dict[str, float]


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    Everything the worker must know of a bundle before it trusts it.

    The ensemble's expected return is `scale` times the weighted sum of its members. A prediction beyond
    `max_abs_expected_return` is not believed: the bundle abstains.
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
    weighting: Literal["skill", "fixed"]
    scale: float
    calibration: CalibrationTable
    threshold: float
    round_trip_cost: float
    max_abs_expected_return: float
    golden: Golden
    metrics: dict[str, float]

    def __post_init__(self) -> None:
        """Refuse what contradicts itself."""
        names = [member.name for member in self.members]
        known = {*self.model_inputs, RETURNS_INPUT}
        asked = {split_input(name) for member in self.members for name in member.inputs}
        unknown = sorted({name for name, length in asked if name not in known or length > self.window})
        total = sum(member.weight for member in self.members)

        _require(self.schema_version == SCHEMA_VERSION, f"Schema version must be {SCHEMA_VERSION}")
        _require(len(names) > 0 and len(set(names)) == len(names), f"Member names must be unique, were {names}")
        _require(abs(total - 1) < 1e-9, f"Weights must sum to 1, were {total}")
        _require(not unknown, f"Members name unknown inputs {unknown}")
        _require(self.horizon >= 1 and self.window >= 2, "Horizon must be at least 1 and window at least 2")
        _require(0.5 < self.threshold < 1, f"Threshold must lie in (0.5, 1), was {self.threshold}")
        _require(math.isfinite(self.scale) and self.scale > 0, f"Scale must be positive, was {self.scale}")
        _require(0 < self.max_abs_expected_return < 1, "The bound on expected returns must lie in (0, 1)")
        _require(0 <= self.round_trip_cost < 1, "The round-trip cost must lie in [0, 1)")
        _require(_SHA256.fullmatch(self.feature_fingerprint) is not None, "The feature fingerprint must be a SHA-256")


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
