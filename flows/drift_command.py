"""`qtctl drift`: what the champion sees, says and earns now, against when it was made."""

from __future__ import annotations

import importlib.util
from typing import Any

from flows.running import AsJson, app, execute

# See flows/commands.py.
if importlib.util.find_spec("prefect") is None:
    raise ModuleNotFoundError("Flows need Prefect: pip install 'quantum-trader[pipeline]'", name="prefect")

drift = app(
    "drift",
    "qtctl drift",
    "qtctl drift --hours 48 --json | jq .drifted",
    statuses={
        0: "nothing drifted; or nothing could be judged yet (no champion, too few rows), which is said",
        1: "failed: Prefect or MLflow does not answer, or a stored file is damaged",
        2: "bad usage: an unknown option, or the hours reach into what the champion was fitted on",
        3: "the champion degraded, or what it sees drifted",
    },
)


@drift.default
def _drift(*, hours: int = 24, json: AsJson = False) -> int:
    """
    Compare inputs, predictions, outcomes and results of the champion with those of its training.

    Results rank above inputs. What is found is logged to the champion's run in MLflow, with Evidently's page, and
    becomes an event in Prefect, which retrains unless that was asked for within QT_DRIFT_COOLDOWN_HOURS (12). A
    champion whose live opinions a worker found poor degraded as well. The inputs of a challenger that is held back are
    compared too; that is only said. Where nothing changed, 2 % of checks find something, and of champions that a worker
    watches 1 % more are ever called poor.

    Args:
        hours: How many hours, counted back from the newest stored candle, are compared with stretches as long.
        json: Print the result, or the error, as one JSON document and nothing else.
    """

    def run() -> Any:
        from flows.drift import drift as flow  # noqa: PLC0415 - see flows/commands.py

        return flow(hours=hours)

    return execute(run, {}, as_json=json, sentence=_sentence, refused=lambda done: bool(done.found))


def _sentence(done: Any) -> str:
    beside = done.challenger
    return f"{done.summary}." if beside is None else f"{done.summary}. {beside.summary}."
