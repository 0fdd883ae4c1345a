"""A folder that becomes a model only after every byte of it has been checked."""

from __future__ import annotations

import hashlib
import io
import stat
import zipfile
from pathlib import Path

import lightgbm
import msgspec
import numpy as np
import numpy.typing as npt
import xgboost
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from inference.domain.errors import BundleError
from inference.models import manifest as manifests
from inference.models.ensemble import Ensemble, EnsembleOutput, Numbers, assemble
from inference.models.manifest import MANIFEST_NAME, FileEntry, Manifest

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

    def score(self, inputs: Numbers, windows: Numbers, returns: Numbers) -> EnsembleOutput:
        """Return one opinion per row: `inputs` [n, M], `windows` [n, 64, M] and `returns` [n, 64]."""
        return self._ensemble.score(inputs, windows, returns)


def bundle_digest(path: Path) -> str:
    """
    Return the SHA-256 of the manifest, which holds the digests of everything else.

    Raises:
        BundleError: There is no readable manifest.
    """
    return hashlib.sha256(_read(path, MANIFEST_NAME, _MAX_MANIFEST_BYTES)).hexdigest()


def load_bundle(path: Path, *, expected_fingerprint: str, expected_digest: str | None = None) -> Bundle:
    """
    Verify a folder and return the model in it.

    Each file is read once; what was hashed is what is loaded. Files the manifest does not name are never opened.

    Raises:
        BundleError: The schema, a digest, the fingerprint or a golden output disagrees; the message says which.
    """
    content = _read(path, MANIFEST_NAME, _MAX_MANIFEST_BYTES)
    digest = hashlib.sha256(content).hexdigest()
    if expected_digest is not None and digest != expected_digest:
        raise BundleError(f"Bundle {path} has digest {digest}, expected {expected_digest}. Download it again.")
    manifest = _parse(path, content)
    if manifest.feature_fingerprint != expected_fingerprint:
        raise BundleError(
            f"Bundle {path} was trained on features {manifest.feature_fingerprint[:12]}, this program computes "
            f"{expected_fingerprint[:12]}. Retrain with this version, or run the version that trained it."
        )

    ensemble = _open_ensemble(path, manifest)
    _check_golden(path, manifest, ensemble)
    return Bundle(manifest=manifest, digest=digest, ensemble=ensemble)


def read_manifest(path: Path) -> Manifest:
    """
    Return what a bundle says of itself, without trusting it further.

    Raises:
        BundleError: There is no readable manifest.
    """
    return _parse(path, _read(path, MANIFEST_NAME, _MAX_MANIFEST_BYTES))


def _parse(path: Path, content: bytes) -> Manifest:
    try:
        return manifests.decode(content)
    except msgspec.DecodeError as error:
        raise BundleError(
            f"Bundle {path} has a manifest that cannot be used: {error}. Train or download it again."
        ) from error


def _read(path: Path, name: str, limit: int) -> bytes:
    file = path / name
    try:
        status = file.lstat()
        if not stat.S_ISREG(status.st_mode):
            raise BundleError(f"Bundle {path} needs a regular file {name}, found something else.")
        if status.st_size > limit:
            raise BundleError(f"Bundle {path} has a {name} of {status.st_size} bytes, at most {limit} were expected.")
        return file.read_bytes()
    except OSError as error:
        raise BundleError(f"Bundle {path} has no readable {name}: {error.strerror}. Download it again.") from error


def _read_verified(path: Path, entry: FileEntry) -> bytes:
    content = _read(path, entry.name, entry.size)
    found = hashlib.sha256(content).hexdigest()
    if found != entry.sha256:
        raise BundleError(
            f"Bundle {path}: {entry.name} has SHA-256 {found}, the manifest says {entry.sha256}. Download it again."
        )
    return content


def _open_ensemble(path: Path, manifest: Manifest) -> Ensemble:
    contents = {entry.name: _read_verified(path, entry.file) for entry in manifest.members}
    try:
        return assemble(
            manifest.members,
            contents,
            scale=manifest.scale,
            calibration=manifest.calibration,
            max_abs_expected_return=manifest.max_abs_expected_return,
            model_inputs=manifest.model_inputs,
            window=manifest.window,
        )
    except _UNREADABLE as error:
        raise BundleError(f"Bundle {path} holds a file that is no such model as the manifest says: {error}") from error


def _check_golden(path: Path, manifest: Manifest, ensemble: Ensemble) -> None:
    golden = _golden_arrays(path, manifest)
    try:
        output = ensemble.score(golden["inputs"], golden["windows"], golden["returns"])
    except _UNREADABLE as error:
        raise BundleError(f"Bundle {path} cannot score its golden inputs: {error}") from error
    for name, found in golden_outputs(output).items():
        expected = golden[name]
        scale = manifest.golden.prediction_scale.get(name, 1.0)
        worst = float(np.max(np.abs(found - expected))) if found.shape == expected.shape and len(found) else np.inf
        # Written so that NaN refuses.
        if not worst <= manifest.golden.tolerance * scale:
            raise BundleError(
                f"Bundle {path} does not reproduce its golden outputs: {name} is off by {worst:.3g}, "
                f"at most {manifest.golden.tolerance * scale:.3g} was expected. Do not trade it; train again."
            )


def golden_outputs(output: EnsembleOutput) -> dict[str, npt.NDArray[np.float64]]:
    """Return what is compared at load, by the names of the golden file's arrays."""
    return {
        "expected_return": output.expected_return,
        "probability_up": output.probability_up,
        **{f"member_{name}": values for name, values in output.members.items()},
    }


def _golden_arrays(path: Path, manifest: Manifest) -> dict[str, npt.NDArray[np.float32 | np.float64]]:
    content = _read_verified(path, manifest.golden.file)
    needed = {"inputs", "windows", "returns", "expected_return", "probability_up"}
    needed |= {f"member_{entry.name}" for entry in manifest.members}
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as stored:
            return {name: stored[name] for name in needed}
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise BundleError(f"Bundle {path} has unusable golden vectors: {error}") from error
