"""Running a flow for a command of qtctl, and saying what came of it."""

from __future__ import annotations

import json as json_codec
from collections.abc import Callable
from typing import Annotated, Any

import msgspec
from cyclopts import App, Parameter

from feature_store.terminal import HELD, OK, REFUSED, help_end
from flows.reaching import reach_prefect
from flows.settings import FlowSettings

FAILED = "failed: Prefect, MLflow or the venue does not answer, or a stored file is damaged"
UNUSABLE = "bad usage: an unknown option, or a venue, symbol, timeframe or setting that cannot be used"

AsJson = Annotated[bool, Parameter(name="--json", negative=())]


def app(name: str, *examples: str, statuses: dict[int, str]) -> App:
    """Return a command whose help ends in examples and exit statuses."""
    return App(name=name, help_format="plaintext", help_epilogue=help_end(*examples, statuses=statuses, as_json=True))


def execute(
    run: Callable[[], Any],
    chosen: dict[str, Any],
    *,
    as_json: bool,
    sentence: Callable[[Any], str],
    here: bool = True,
    refused: Callable[[Any], bool] = lambda done: (
        getattr(done, "promoted", True) is False or getattr(done, "approved", True) is False
    ),
) -> int:
    """
    Run a flow with what was chosen, here with its progress shown, and say what came of it: in a sentence or JSON.

    `refused` tells of a result whether it is an answer that scripts must notice: exit status 3.
    """
    # What cannot be used is told before there is a flow run to fail.
    reach_prefect(FlowSettings.of(**chosen))
    from flows.following import shown_in_terminal  # noqa: PLC0415 - --help stays quick

    with shown_in_terminal(quiet=as_json or not here):
        done = run()
    shown = json_codec.dumps(msgspec.to_builtins(done)) if as_json else sentence(done)
    print(shown)  # noqa: T201 - a command speaks to the person who typed it
    if getattr(done, "promoted", None) is False and getattr(done, "verdict", None) == "held":
        return HELD
    return REFUSED if refused(done) else OK
