"""Older pages of drift are deleted where a server allows it; where it does not, drift is said and asked for as ever."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from types import SimpleNamespace

import pytest

from flows import drift as flow
from flows.drifting.check import DriftReport
from flows.drifting.degrading import Degradation
from flows.registered import RegisteredVersion, RegistryError
from flows.registry import Registry
from inference.domain.errors import RegistryUnavailableError

PAGES = [f"202603{day:02}T0000.html" for day in range(1, 17)]


class _Server(BaseHTTPRequestHandler):
    """An MLflow whose storage answers each DELETE with one status."""

    answer = 403

    def do_GET(self) -> None:
        """Tell of the run and of its pages."""
        if "runs/get" in self.path:
            info = {"run_id": "r", "run_uuid": "r", "experiment_id": "1", "artifact_uri": "mlflow-artifacts:/1/r"}
            self._say(200, {"run": {"info": info, "data": {}}})
        else:
            self._say(200, {"files": [{"path": name, "is_dir": False, "file_size": 3} for name in PAGES]})

    def do_POST(self) -> None:
        """Know of no models."""
        self._say(200, {"models": []})

    def do_DELETE(self) -> None:
        """Refuse."""
        self._say(self.answer, {})

    def _say(self, status: int, told: object) -> None:
        content = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        """Keep quiet."""


@contextmanager
def _serving(status: int) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("Refusing", (_Server,), {"answer": status}))
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()


@pytest.mark.parametrize("status", [401, 403, 405])
def test_a_server_that_forbids_deleting_has_refused_it(status):
    """It answers, so that nobody is told to start it; the sentence has the page and the answer."""
    with _serving(status) as url, pytest.raises(RegistryError, match=rf"did not delete drift/.*{PAGES[0]}.*{status}"):
        Registry(url).keep_last("r", "drift/evidently", 14)


class _Kept:
    """A registry that keeps what it is told, and may delete nothing."""

    def __init__(self, refusal: Exception) -> None:
        self.tags: dict[str, str] = {}
        self._refusal = refusal

    def run_page(self, *_told: object) -> str:
        """Return a page."""
        return "http://page"

    def log(self, *_told: object) -> None:
        """Keep nothing of it."""

    def tag(self, _number: str, tags: dict[str, str]) -> None:
        """Keep the tags."""
        self.tags |= tags

    def keep_last(self, *_told: object) -> None:
        """Refuse."""
        raise self._refusal


@pytest.mark.parametrize(
    "refusal", [RegistryError("MLflow did not delete it (403)"), RegistryUnavailableError("MLflow does not answer")]
)
def test_pages_that_cannot_be_deleted_end_no_check(refusal, tmp_path, monkeypatch):
    """A champion that degraded is tagged and its event is out, and the run says that pages pile up."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    registry, events, said = _Kept(refusal), [], []
    report = DriftReport(
        version="7", end_ms=1_760_000_000_000, hours=24, false_alarm_rate=0.02, groups=(),
        performance=Degradation(state="judged", note="ic says most", evidence=150.0, limit=100.0, days=9.0),
    )  # fmt: skip
    version = RegisteredVersion(version="7", run_id="r", aliases=("champion",), tags={})
    champion = flow.Champion(version, SimpleNamespace(created_at="2026-01-01T00:00:00+00:00"), None)
    replaced = {
        "Registry": lambda _address: registry,
        "heed": lambda _settings: None,
        "find_champion": lambda _settings: champion,
        "download": lambda _settings, _version, folder: folder,
        "compare": lambda *_given: (report, None),
        "evidently_page": lambda *_given: "<html>",
        "log_drift": flow.log_drift.fn,
        "delete_older_pages": flow.delete_older_pages.fn,
        "_publish": lambda *_given: None,
        "find_challenger": lambda _settings: None,
        "emit_event": lambda name, resource, payload: events.append((name, resource["quantum.retrain"])),
        "say": lambda sentence, *values: said.append(sentence % values),
    }
    for name, value in replaced.items():
        monkeypatch.setattr(flow, name, value)

    result = flow.drift.fn()

    assert result.verdict == "degraded"
    assert events == [("quantum.model.degraded", "wanted")]
    assert {"drift_verdict", "degraded_at", "drift_retraining_asked_at"} <= set(registry.tags)
    assert said == [f"Older pages of drift were not deleted: {refusal}"]
