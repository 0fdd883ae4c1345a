"""Finding the Prefect server that runs, before Prefect is imported."""

from __future__ import annotations

import os
import urllib.error
import urllib.request

from feature_store.errors import QuantumError
from flows.settings import FlowSettings


class OrchestratorUnavailableError(QuantumError):
    """No Prefect server answers, so no flow can run."""


def reach_prefect(settings: FlowSettings) -> None:
    """
    Point this process at the Prefect server that runs, before Prefect is imported.

    Raises:
        OrchestratorUnavailableError: None is known, or it does not answer.
    """
    url = os.environ.get("PREFECT_API_URL")
    if not url and (stack := settings.address("prefect-server")):
        url = f"{stack}/api"
    if not url:
        raise OrchestratorUnavailableError(
            "No Prefect server is known; start the stack with 'qtctl up', or set PREFECT_API_URL to a server's address"
        )
    try:
        with urllib.request.urlopen(f"{url}/health", timeout=5):  # noqa: S310 - the address is the operator's own
            pass
    except (OSError, ValueError, urllib.error.URLError) as error:
        raise OrchestratorUnavailableError(
            f"Prefect at {url} does not answer ({error}); start it with 'qtctl up', or set PREFECT_API_URL"
        ) from error
    os.environ["PREFECT_API_URL"] = url
    os.environ.setdefault("PREFECT_HOME", str(settings.home / "prefect"))
    os.environ.setdefault("DO_NOT_TRACK", "1")
    # The server keeps every line; the terminal shows progress, and at the end one sentence.
    os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")
