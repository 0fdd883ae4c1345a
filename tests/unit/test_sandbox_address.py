"""Which exchange `qtctl sandbox` asks: the one that was named, else this home's own, else the usual port."""

from __future__ import annotations

import http.server
import json
import threading

import pytest

from infra.sandbox import asking, cli
from tests.stack_fixtures import free_port


class Exchange(http.server.BaseHTTPRequestHandler):
    """Answers every question with the port that was asked."""

    def do_GET(self):
        """Answer."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps({"port": self.server.server_port}).encode())

    def do_POST(self):
        """Answer what is ordered as what is asked."""
        self.do_GET()

    def log_message(self, *_):
        """Say nothing."""


@pytest.fixture
def exchanges():
    """Return the addresses of three exchanges."""
    servers = [http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exchange) for _ in range(3)]
    for server in servers:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    yield [f"http://127.0.0.1:{server.server_port}" for server in servers]
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def home(monkeypatch, tmp_path):
    """Return an empty QUANTUM_HOME, where nothing else names an exchange."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("QT_VENUE_URL", raising=False)
    return tmp_path


def asked(capsys, *arguments: str) -> str:
    """Ask with one command and return the address that answered."""
    cli.app(arguments, result_action="return_value")
    return f"http://127.0.0.1:{json.loads(capsys.readouterr().out)['port']}"


@pytest.mark.parametrize("command", ["status", "audit", "truth", "fault"])
def test_the_nearest_name_of_an_exchange_wins(home, exchanges, monkeypatch, capsys, command):
    """The option wins over QT_VENUE_URL, and that over what the stack of QUANTUM_HOME runs."""
    option, setting, running = exchanges
    (home / "stack.json").write_text(json.dumps({"services": {"sandbox": {"url": running, "pid": 1}}}))

    assert asked(capsys, command) == running
    monkeypatch.setenv("QT_VENUE_URL", setting)
    assert asked(capsys, command) == setting
    assert asked(capsys, command, "--url", option) == option


@pytest.mark.parametrize(
    "record",
    [
        pytest.param(None, id="none"),
        pytest.param('{"services": {"sandbox": {"url": "http://127', id="torn"),
        pytest.param('{"services": {"mlflow": {"url": "http://127.0.0.1:1"}}}', id="stopped"),
        pytest.param('{"services": ["sandbox"]}', id="strange"),
        pytest.param('{"services": {"sandbox": {"url": null}}}', id="no-address"),
    ],
)
def test_without_a_running_exchange_the_usual_port_is_asked(home, monkeypatch, record):
    """A home whose record is missing, damaged or without an exchange leads to the usual port, in one sentence."""
    port = free_port()
    monkeypatch.setattr(asking, "DEFAULT_PORT", port)
    if record is not None:
        (home / "stack.json").write_text(record)

    with pytest.raises(asking.NoAnswerError, match=f"No sandbox answers at http://127.0.0.1:{port} "):
        cli.app(["status"], result_action="return_value")
