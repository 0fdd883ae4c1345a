"""The commands that look at decisions again: the whole story of a trade, and every decision made anew."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from feature_store.terminal import help_end
from inference.commands import Home, Journal, Json, journal_of

explain = App(
    name="explain",
    help="""Tell the whole story of one trade: its candle, inputs and what they did, members, guards, orders, exit.

A part of an input is by how much the expected return changes where that input has its mean over the window instead.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl explain BTC/USDT:USDT",
        "qtctl explain 4be0c1d95f2a7e63180c --json | jq .guards",
        statuses={0: "told", 1: "there is no journal, or it knows nothing of that name"},
        as_json=True,
    ),
)
replay = App(
    name="replay",
    help="""Make every decision of the journal again, from the inputs that were recorded with it.

Under the policy that each was made under, all come out identical to the byte; what does not is shown. With --policy,
what those rules would have answered instead, and by which numbers; each decision alone on the recorded state.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl replay",
        "qtctl replay --journal /backup/journal.jsonl --json",
        "qtctl replay --policy stricter.toml --lines 50",
        statuses={
            0: "all identical; or, with --policy, compared, whatever differs",
            1: "a decision comes out differently, or the journal is missing or damaged",
        },
        as_json=True,
    ),
)


@explain.default
def explain_trade(
    trade: Annotated[
        str, Parameter(help="A trade's id, an order's client id, a trace id, or a symbol for its newest.")
    ],
    /,
    *,
    journal: Journal = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Tell the whole story of one trade."""
    from inference.telemetry import explain_command  # noqa: PLC0415 - as in inference/commands.py

    return explain_command.explain(journal_of(journal, home), trade, as_json=json)


@replay.default
def replay_journal(
    *,
    journal: Journal = None,
    home: Home = None,
    policy: Annotated[
        Path | None, Parameter(help="TOML file with other rules; by default those that each was made under.")
    ] = None,
    lines: Annotated[int, Parameter(help="With --policy: how many differences are shown.")] = 20,
    json: Json = False,
) -> int:
    """Make every decision of the journal again."""
    from inference.policy.policy_file import read_policy  # noqa: PLC0415 - as in inference/commands.py
    from inference.telemetry import replay_command  # noqa: PLC0415 - as in inference/commands.py

    path = journal_of(journal, home)
    if policy is None:
        return replay_command.same(path, as_json=json)
    return replay_command.under(path, read_policy(policy), lines=lines, as_json=json)
