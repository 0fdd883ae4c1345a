"""`qtctl features skew`: what decisions read against what the lake says, without a flow run."""

from __future__ import annotations

import json as json_codec
from typing import Annotated

from cyclopts import App, Parameter

from feature_store.terminal import FAILED, OK, help_end
from flows.settings import FlowSettings

skew = App(
    name="skew",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl features skew",
        "qtctl features skew --hours 168 --json | jq .unexplained",
        statuses={
            0: "nothing differs, or every difference has its cause",
            1: "something differs and nothing explains it, or other code computed it, or a stored file is damaged",
            2: "bad usage: an unknown option, or no decision is in the journal",
        },
        as_json=True,
    ),
)


@skew.default
def _skew(*, hours: int = 24, json: Annotated[bool, Parameter(name="--json", negative=())] = False) -> int:
    """
    Recompute from the lake the features that decisions read, and name what differs and why.

    Args:
        hours: How many hours, counted back from the newest decision in the journal; by default a day.
        json: Print the result, or the error, as one JSON document and nothing else; by default sentences.
    """
    from flows.skewing import audit_skew, document, told  # noqa: PLC0415 - --help stays quick

    report = audit_skew(FlowSettings.of(), hours)
    print(json_codec.dumps(document(report)) if json else told(report))  # noqa: T201 - a command speaks to its person
    return FAILED if report.unexplained else OK
