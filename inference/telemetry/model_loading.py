"""A verified model for notebooks: found as `qtctl models` finds it, while nothing that lies in the registry is run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from feature_store.extensions.settings import ViewSettings
from inference.models.bundle import Bundle, load_bundle
from inference.telemetry.model_reference import Places, found_bundle


def load_verified(reference: str = "champion", *, home: Path | None = None, mlflow_url: str | None = None) -> Bundle:
    """
    Return the model of a version, an alias, a folder or a kept bundle's first digits, verified as the worker does it.

    The registry's digest is compared first, every file is taken apart before a library reads it, and the golden vectors
    are reproduced. Unlike `mlflow.pyfunc.load_model` it runs no code that was stored with the model.

    Args:
        reference: What is wanted, as `qtctl models verify` takes it.
        home: Where kept bundles and the stack's record lie; by default QUANTUM_HOME, else ./var.
        mlflow_url: Address of the MLflow server; by default QT_MLFLOW_URL, else that of the stack of the home.

    Raises:
        BadInputError: It names nothing, or several bundles.
        BundleError: The bundle cannot be trusted.
        NothingPromotedError: There is no such version or alias.
        RegistryUnavailableError: MLflow does not answer.
    """
    places = Places.of(home=home, mlflow_url=mlflow_url)
    # A notebook runs an event loop of its own, inside which no other can run.
    with ThreadPoolExecutor(max_workers=1) as thread:
        return thread.submit(_load, reference, places).result()


def _load(reference: str, places: Places) -> Bundle:
    with found_bundle(reference, places) as found:
        fingerprint = ViewSettings.of().view().fingerprint()
        return load_bundle(found.path, expected_fingerprint=fingerprint, expected_digest=found.digest())
