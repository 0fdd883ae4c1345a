"""
The bundle as an MLflow model, logged from this code: `mlflow.pyfunc` scores each row by itself.

The worker scores all symbols of a candle together, and takes off what members say of all of them alike;
`Bundle.score` does so with `moments`.

MLflow keeps a copy of this file beside each bundle, and runs that copy when the model is loaded: whoever can write to
the registry's artifacts chooses what it does. `inference.telemetry.model_loading` runs nothing from there.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import mlflow.models
import mlflow.pyfunc
import numpy as np

from feature_store.errors import BadInputError
from feature_store.extensions.settings import ViewSettings
from inference.domain.errors import BundleError
from inference.models.bundle import Bundle, bundle_digest, load_bundle


class EnsembleModel(mlflow.pyfunc.PythonModel):
    """Loads the very bundle that the worker loads, and checks it in the same way once this code runs."""

    _bundle: Bundle

    def load_context(self, context: Any) -> None:
        """
        Verify the bundle among the model's artifacts.

        Raises:
            BundleError: It cannot be trusted, is not the one that the registry tagged, or was trained on other features
                than this program computes.
        """
        folder = Path(context.artifacts["bundle"])
        digest = bundle_digest(folder)
        tagged = _tagged_digests(folder)
        if tagged and digest not in tagged:
            raise BundleError(
                f"This model's bundle has digest {digest[:12]}, the registry tagged {min(tagged)[:12]}. "
                "Do not use it; train again."
            )
        self._bundle = load_bundle(
            folder, expected_fingerprint=ViewSettings.of().view().fingerprint(), expected_digest=digest
        )

    # MLflow reads type hints here as a schema of its own, so there are none.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG002
        """
        Score `inputs` [n, M], `windows` [n, 64, M] and `returns` [n, 64], by name.

        Without `inputs` the newest row of each window is taken. Each row stands alone: the worker's opinion of a candle
        of several symbols is that without their common move. Where the ensemble abstains, the expected return is
        NaN and the probability 0.5. What a bundle's heads answer is there as `head_quantile_0.1`, `head_direction`.

        Raises:
            BadInputError: An array is missing or of another shape than the bundle was trained on.
        """
        windows, returns = self._array(model_input, "windows", 3), self._array(model_input, "returns", 2)
        inputs = self._array(model_input, "inputs", 2) if "inputs" in model_input else windows[:, -1]
        output = self._bundle.score(inputs, windows, returns)
        return {
            "expected_return": output.expected_return,
            "probability_up": output.probability_up,
            "consensus": output.consensus,
            **{f"member_{name}": values for name, values in output.members.items()},
            **{f"head_{name}": values for name, values in output.heads.items()},
        }

    def _array(self, model_input: Any, name: str, axes: int) -> np.ndarray[Any, np.dtype[np.float32]]:
        manifest = self._bundle.manifest
        width, length = len(manifest.model_inputs), manifest.window
        needed = f"windows [n, {length}, {width}], returns [n, {length}] and, if you have them, inputs [n, {width}]"
        if not isinstance(model_input, Mapping) or name not in model_input:
            found = sorted(model_input) if isinstance(model_input, Mapping) else type(model_input).__name__
            raise BadInputError(f"This model needs a dict of arrays by name: {needed}; it was given {found}")
        try:
            values = np.asarray(model_input[name], np.float32)
        except (TypeError, ValueError) as error:
            raise BadInputError(f"{name} must be numbers in an array: this model needs {needed}") from error
        if values.ndim != axes:
            raise BadInputError(f"{name} has the shape {values.shape}: this model needs {needed}")
        return values


def _tagged_digests(bundle: Path) -> set[str]:
    """Return the bundle digests that versions of this model's run are tagged with; none where no server is named."""
    # Asking any other kind of address would make a database there.
    if not str(mlflow.get_registry_uri()).startswith(("http://", "https://")):
        return set()
    try:
        run_id = mlflow.models.Model.load(str(bundle.parents[1])).run_id
        found = mlflow.MlflowClient().search_model_versions(f"run_id = '{run_id}'") if run_id else []
    except mlflow.MlflowException as error:
        warnings.warn(f"The registry could not be asked for this bundle's digest: {error}", stacklevel=2)
        return set()
    return {one.tags["bundle_digest"] for one in found if one.tags.get("bundle_digest")}


mlflow.models.set_model(EnsembleModel())
