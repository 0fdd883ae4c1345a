"""The command of qtctl that lets the previous champion trade again, whichever servers answer."""

from __future__ import annotations

import json as json_codec
import sys
from typing import TYPE_CHECKING

import msgspec

from feature_store.errors import QuantumError
from feature_store.terminal import HELD, OK, REFUSED
from flows.reaching import OrchestratorUnavailableError, reach_prefect
from flows.running import AsJson, app
from flows.settings import FlowSettings

if TYPE_CHECKING:
    from flows.outcome import Rollback

rollback = app(
    "rollback",
    "qtctl rollback",
    "qtctl rollback --json | jq .version",
    statuses={
        0: "the previous version is champion again; so it is when the same was ordered before",
        1: "failed: there is nothing to go back to, or MLflow refused to record it",
        3: "the champion is set aside and enters nothing more, but the previous version cannot take its place",
        4: "done in this home only, since MLflow does not answer: run it again once it does",
    },
)


@rollback.default
def _rollback(*, json: AsJson = False) -> int:
    """
    Set the champion aside and let the version before it trade again; the worker follows within one candle.

    The version before is verified as the worker verifies it. Where it fails, the champion is set aside all the same.
    Without Prefect no run of it is kept. Without MLflow the worker of this home goes back to the bundle that traded
    before, from its own files. Doing it twice changes nothing.

    Args:
        json: Print the result, or the error, as one JSON document and nothing else.
    """
    settings = FlowSettings.of()
    done = _ordered(settings, quiet=json)
    shown = json_codec.dumps(msgspec.to_builtins(done)) if json else done.sentence
    print(shown)  # noqa: T201 - a command speaks to the person who typed it
    if not done.restored:
        return REFUSED
    return HELD if done.only_here else OK


def _ordered(settings: FlowSettings, *, quiet: bool) -> Rollback:
    try:
        reach_prefect(settings)
        from flows.following import shown_in_terminal  # noqa: PLC0415 - --help stays quick

        with shown_in_terminal(quiet=quiet):
            from flows.rollback import rollback as flow  # noqa: PLC0415 - see flows/commands.py

            return flow()
    except OrchestratorUnavailableError as error:
        why = str(error)
    except QuantumError:
        raise
    except Exception as error:  # noqa: BLE001 - whatever becomes of Prefect: going back must not hang on it
        why = f"Prefect failed ({type(error).__name__}: {error})"
    from flows.rolling_back import roll_back  # noqa: PLC0415 - see flows/commands.py

    done = roll_back(settings)
    print(f"No run of this is kept: {why[:300]}", file=sys.stderr)  # noqa: T201 - the result itself is the last line
    return done
