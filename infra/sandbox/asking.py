"""Asking a running sandbox exchange from the command line."""

from __future__ import annotations

import json as json_codec
import sys
import urllib.error
import urllib.request
from typing import Annotated, Any

from cyclopts import Parameter

from feature_store.errors import QuantumError
from feature_store.terminal import help_end
from infra.sandbox.serve import OptionError
from infra.sandbox.stack_note import home_from_environment, stack_sandbox

DEFAULT_PORT = 9100

Url = Annotated[
    str | None,
    Parameter(
        env_var="QT_VENUE_URL",
        help="Where the venue listens; by default where the stack of QUANTUM_HOME runs its exchange, else "
        f"http://127.0.0.1:{DEFAULT_PORT}.",
    ),
]
AsJson = Annotated[bool, Parameter(name="--json", negative=(), help="Print compact JSON, on one line.")]


class NoAnswerError(QuantumError):
    """No sandbox answers, or it refuses what was asked of it."""


def asking(*examples: str) -> str:
    """Return the end of a help text of a command that asks the venue."""
    statuses = {0: "the venue answered", 1: "no venue answers, or it refuses; the message says which"}
    return help_end(*examples, statuses=statuses, as_json=True)


def ask(named: str | None, path: str, body: dict[str, Any] | None = None) -> Any:
    """Ask the venue, or tell it what to do; return its answer."""
    url = named or stack_sandbox(home_from_environment()) or f"http://127.0.0.1:{DEFAULT_PORT}"
    if not url.startswith(("http://", "https://")):
        raise OptionError(f"--url expects http://HOST:PORT, was '{url}'.")
    data = None if body is None else json_codec.dumps(body).encode()
    request = urllib.request.Request(url.rstrip("/") + path, data=data)  # noqa: S310 - the scheme is checked above.
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            return json_codec.load(answer)
    except urllib.error.HTTPError as error:
        raise NoAnswerError(f"The venue refused: {error.read().decode(errors='replace')}") from None
    except (OSError, ValueError) as error:
        raise NoAnswerError(
            f"No sandbox answers at {url} ({error}); start one with `qtctl sandbox serve`, or name another with --url."
        ) from None


def show(answer: Any, *, compact: bool = False) -> None:
    """Print an answer as JSON."""
    sys.stdout.write(json_codec.dumps(answer, indent=None if compact else 2) + "\n")
