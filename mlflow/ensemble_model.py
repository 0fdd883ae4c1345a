"""The bundle as an MLflow model, logged from this code: `mlflow.pyfunc` scores what the worker scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np

from feature_store.features.definition import fingerprint
from inference.models.bundle import Bundle, load_bundle


class EnsembleModel(mlflow.pyfunc.PythonModel):
    """Loads the very bundle that the worker loads, with the same checks."""

    _bundle: Bundle

    def load_context(self, context: Any) -> None:
        """
        Verify the bundle among the model's artifacts.

        Raises:
            BundleError: It cannot be trusted.
        """
        self._bundle = load_bundle(Path(context.artifacts["bundle"]), expected_fingerprint=fingerprint())

    # MLflow reads type hints here as a schema of its own, so there are none.
    def predict(self, context, model_input, params=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, ARG002
        """
        Score `inputs` [n, M], `windows` [n, 64, M] and `returns` [n, 64].

        Without `inputs` the newest row of each window is taken. Where the ensemble abstains, the expected return is
        NaN and the probability 0.5.
        """
        windows = np.asarray(model_input["windows"], np.float32)
        inputs = np.asarray(model_input["inputs"], np.float32) if "inputs" in model_input else windows[:, -1]
        output = self._bundle.score(inputs, windows, np.asarray(model_input["returns"], np.float32))
        return {
            "expected_return": output.expected_return,
            "probability_up": output.probability_up,
            "consensus": output.consensus,
            **{f"member_{name}": values for name, values in output.members.items()},
        }


mlflow.models.set_model(EnsembleModel())
