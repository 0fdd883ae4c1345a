"""A folder that becomes a model only after every byte of it has been checked."""

from __future__ import annotations

import hashlib
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import xgboost
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from inference.domain.errors import BundleError
from inference.models import manifest as manifests
from inference.models.ensemble import Ensemble, EnsembleOutput, Member, Numbers, assemble, open_member
from inference.models.inspection.contents import check_finite, inspect_file, named_files, read_golden
from inference.models.inspection.folder import check_nothing_else, read_regular
from inference.models.inspection.json_text import strict_json
from inference.models.manifest import MANIFEST_NAME, TREES, FileEntry, Manifest
from inference.regime.market import MarketRegime, regimes

GOLDEN_NAME = "golden.npz"
_MAX_MANIFEST_BYTES = 4 * 2**20
_UNREADABLE = (
    ValueError,
    KeyError,
    xgboost.core.XGBoostError,
    lightgbm.basic.LightGBMError,
    ort_errors.Fail,
    ort_errors.InvalidGraph,
    ort_errors.InvalidProtobuf,
    ort_errors.InvalidArgument,
    ort_errors.NotImplemented,
    ort_errors.RuntimeException,
)


class Bundle:
    """A verified model; made by `load_bundle` and by nothing else."""

    def __init__(self, *, manifest: Manifest, digest: str, ensemble: Ensemble) -> None:
        self.manifest = manifest
        self.digest = digest
        self._ensemble = ensemble

    @property
    def threshold(self) -> float:
        """Confidence below which nothing is traded."""
        return self.manifest.threshold

    @property
    def horizon(self) -> int:
        """Candles that a prediction looks ahead."""
        return self.manifest.horizon

    @property
    def weights(self) -> dict[str, float]:
        """Each member's share of the vote."""
        return {member.name: member.weight for member in self.manifest.members}

    @property
    def parameters(self) -> dict[str, Any]:
        """Return how the ensemble was put together; how each member was fitted stands in MLflow, with the run."""
        made = self.manifest
        return {
            "mode": made.mode,
            "weighting": made.weighting,
            "weights": self.weights,
            "scale": made.scale,
            "threshold": made.threshold,
            "round_trip_cost": made.round_trip_cost,
            "market_share": made.market_share,
            "timeframe": made.timeframe,
            "horizon": made.horizon,
            "window": made.window,
        }

    def score(
        self, inputs: Numbers, windows: Numbers, returns: Numbers, moments: npt.NDArray[np.int64] | None = None
    ) -> EnsembleOutput:
        """
        Return one opinion per row: `inputs` [n, M], `windows` [n, 64, M] and `returns` [n, 64].

        `moments` [n] says which rows are of the same candle; without it each row stands alone.
        """
        return self._ensemble.score(inputs, windows, returns, moments)

    def score_parts(
        self, parts: Iterable[tuple[Numbers, Numbers, Numbers]], moments: npt.NDArray[np.int64]
    ) -> EnsembleOutput:
        """Return the same for arrays that come in parts, because the windows of all would not fit into memory."""
        answers = [self._ensemble.answers(*part) for part in parts]
        members, heads = (
            {name: np.concatenate([one[kind][name] for one in answers]) for name in answers[0][kind]} for kind in (0, 1)
        )
        return self._ensemble.combined(members, heads, moments)

    def regimes(self, returns: Numbers, symbols: Sequence[str]) -> tuple[MarketRegime, ...]:
        """Return the market regime of each row of `returns` [n, 64], by the thresholds learned with the model."""
        return regimes(returns, symbols, self.manifest.regime)


def bundle_digest(path: Path) -> str:
    """
    Return the SHA-256 of the manifest, which holds the digests of everything else.

    Raises:
        BundleError: There is no readable manifest.
    """
    return hashlib.sha256(read_regular(path, MANIFEST_NAME, _MAX_MANIFEST_BYTES)).hexdigest()


def load_bundle(path: Path, *, expected_fingerprint: str, expected_digest: str | None = None) -> Bundle:
    """
    Verify a folder and return the model in it.

    Every file is taken apart by our own checks before a library that could be hurt by it is given a byte; what it is
    given then has the same digest.

    Raises:
        BundleError: The schema, a digest, the fingerprint, a file's structure or a golden output disagrees; the
            message says which, and of a file's structure also what, as an `InspectionError`.
    """
    content = read_regular(path, MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise BundleError(f"Bundle {path} has digest {digest}, expected {expected_digest}. Download it again.")
    manifest = _parse(path, content)
    if manifest.feature_fingerprint != expected_fingerprint:
        raise BundleError(
            f"Bundle {path} was trained on features {manifest.feature_fingerprint[:12]}, this program computes "
            f"{expected_fingerprint[:12]}. Retrain with this version, or run the version that trained it."
        )

    inspect_files(path, manifest)
    ensemble = _open_ensemble(path, manifest)
    _check_golden(path, manifest, ensemble)
    return Bundle(manifest=manifest, digest=digest, ensemble=ensemble)


def inspect_files(path: Path, manifest: Manifest) -> None:
    """
    Check every file that the manifest names, digest first, and that there is no other; no library is given any of it.

    Raises:
        BundleError: One is missing, changed, or not what such files are.
    """
    files = named_files(manifest)
    check_nothing_else(path, {MANIFEST_NAME, *(one.file.name for one in files)})
    for one in files:
        content = _read_verified(path, one.file)
        what = f"Bundle {path}: {one.file.name}"
        if one.kind == "golden":
            read_golden(manifest, content, _golden_names(manifest), what)
        else:
            inspect_file(one, content, what)


def read_manifest(path: Path) -> Manifest:
    """
    Return what a bundle says of itself, without trusting it further.

    Raises:
        BundleError: There is no readable manifest.
    """
    return _parse(path, read_regular(path, MANIFEST_NAME, _MAX_MANIFEST_BYTES))


def _parse(path: Path, content: bytes) -> Manifest:
    strict_json(content, f"Bundle {path}: its manifest")
    try:
        manifest = manifests.decode(content)
    except msgspec.DecodeError as error:
        raise BundleError(
            f"Bundle {path} has a manifest that cannot be used: {error}. Train or download it again."
        ) from error
    check_finite(manifest, f"Bundle {path}: its manifest")
    return manifest


def _read_verified(path: Path, entry: FileEntry) -> bytes:
    content = read_regular(path, entry.name, entry.size)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise BundleError(
            f"Bundle {path}: {entry.name} has SHA-256 {found}, the manifest says {entry.sha256}. Download it again."
        )
    return content


def open_compared(path: Path, manifest: Manifest) -> dict[str, Member]:
    """
    Verify and open the members that a bundle holds for comparison alone, by name.

    Raises:
        BundleError: A file is not what the manifest says.
    """
    opened = {}
    for entry in manifest.compared:
        contents = [_read_verified(path, file) for file in entry.files]
        try:
            opened[entry.name] = open_member(entry, contents[0], manifest.model_inputs, contents)
        except _UNREADABLE as error:
            raise BundleError(f"Bundle {path}: {entry.name} is no such model as the manifest says: {error}") from error
    return opened


def _open_ensemble(path: Path, manifest: Manifest) -> Ensemble:
    verified = {file.name: _read_verified(path, file) for file in manifest.files if file != manifest.golden.file}
    try:
        return assemble(
            manifest.members,
            {entry.name: verified[entry.file.name] for entry in manifest.members},
            scale=manifest.scale,
            calibration=manifest.calibration,
            max_abs_expected_return=manifest.max_abs_expected_return,
            model_inputs=manifest.model_inputs,
            window=manifest.window,
            draws={entry.name: [verified[file.name] for file in entry.files] for entry in manifest.members},
            heads=[(head, verified[head.file.name]) for head in manifest.heads],
            market_share=manifest.market_share,
        )
    except _UNREADABLE as error:
        raise BundleError(f"Bundle {path} holds a file that is no such model as the manifest says: {error}") from error


def _check_golden(path: Path, manifest: Manifest, ensemble: Ensemble) -> None:
    golden = _golden_arrays(path, manifest)
    try:
        output = ensemble.score(golden["inputs"], golden["windows"], golden["returns"])
    except _UNREADABLE as error:
        raise BundleError(f"Bundle {path} cannot score its golden inputs: {error}") from error
    is_at_home = manifest.golden.made_on == this_platform()
    exact = {f"member_{entry.name}" for entry in manifest.members if entry.kind in TREES} if is_at_home else set()
    for name, found in golden_outputs(output).items():
        expected = golden[name]
        if name in exact and not np.array_equal(found, expected):
            raise BundleError(
                f"Bundle {path} does not reproduce its golden outputs: {name} is not equal to the last bit, as trees "
                "are on the platform that they were trained on. Do not trade it; train again."
            )
        scale = manifest.golden.prediction_scale.get(name, 1.0)
        worst = float(np.max(np.abs(found - expected))) if found.shape == expected.shape and len(found) else np.inf
        # Written so that NaN refuses.
        if not worst <= manifest.golden.tolerance * scale:
            raise BundleError(
                f"Bundle {path} does not reproduce its golden outputs: {name} is off by {worst:.3g}, "
                f"at most {manifest.golden.tolerance * scale:.3g} was expected. Do not trade it; train again."
            )


def this_platform() -> str:
    """
    Name all that the last bit of a tree's answer depends on.

    Trees compare, and add up what their leaves hold in one order; a mean of inputs is a sum in one order and a
    division. None of it differs between processors of one kind, and between kinds or versions of the libraries somebody
    may have changed an order.
    """
    versions = f"xgboost {xgboost.__version__}, lightgbm {lightgbm.__version__}, numpy {np.__version__}"
    return f"{sys.platform} {platform.machine()}, {versions}"


def golden_outputs(output: EnsembleOutput) -> dict[str, npt.NDArray[np.float64]]:
    """Return what is compared at load, by the names of the golden file's arrays."""
    return {
        "expected_return": output.expected_return,
        "probability_up": output.probability_up,
        **{f"member_{name}": values for name, values in output.members.items()},
        **{f"head_{name}": values for name, values in output.heads.items()},
    }


def _golden_arrays(path: Path, manifest: Manifest) -> Mapping[str, npt.NDArray[Any]]:
    content = _read_verified(path, manifest.golden.file)
    return read_golden(manifest, content, _golden_names(manifest), f"Bundle {path}: its golden vectors")


def golden_inputs(path: Path, manifest: Manifest) -> dict[str, npt.NDArray[np.float32]]:
    """
    Return the golden vectors' inputs by the names that `Bundle.score` gives them, as examples of what it takes.

    Raises:
        BundleError: They are missing or damaged.
    """
    arrays = _golden_arrays(path, manifest)
    return {name: np.array(arrays[name], np.float32) for name in ("inputs", "windows", "returns")}


def _golden_names(manifest: Manifest) -> frozenset[str]:
    """Return the arrays that must be there; a manifest may name more outputs."""
    outputs = {"expected_return", "probability_up", *(f"member_{entry.name}" for entry in manifest.members)}
    for head in manifest.heads:
        outputs |= {f"head_quantile_{level:g}" for level in head.levels} or {f"head_{head.kind}"}
    return frozenset({"inputs", "windows", "returns"} | outputs)
