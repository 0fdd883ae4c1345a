"""The commands of the event bus: what is told on it, what was given up, and how it does."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import App, Parameter

from feature_store.terminal import help_end
from inference.commands import Home, Json

if TYPE_CHECKING:
    from inference.bus.port import EventBus

_GONE = "the bus does not answer, or its file cannot be read"
_BAD = "bad usage: an unknown option, or a pattern, a time or a group's name that cannot be one"

events = App(
    name="events",
    help="""Look at the event bus, on which the worker tells what it journals.

Groups of consumers read it at their own pace: each event reaches each group at least once. What a group gave up is a
dead letter until somebody has it delivered again.""",
    help_format="plaintext",
    help_epilogue=help_end(
        "qtctl events tail 'trade.*'",
        "qtctl events replay --since 2026-03-01T12:00 --json",
        "qtctl events stats",
        statuses={0: "answered", 1: _GONE},
        as_json=True,
    ),
)

Bus = Annotated[
    str | None,
    Parameter(
        name="--bus",
        help="Address, such as redis://host:6379/0; by default QT_BUS, else worker/bus.db in the home folder.",
    ),
]
Group = Annotated[str, Parameter(help="The group of consumers.")]


@events.command(
    help_epilogue=help_end(
        "qtctl events tail",
        "qtctl events tail 'trade.*' risk.entry_denied --lines 50",
        "qtctl events tail 'signal.*' --follow --json",
        statuses={0: "printed; with --follow, interrupted by whoever reads", 1: _GONE, 2: _BAD},
        as_json=True,
    )
)
def tail(
    *patterns: Annotated[str, Parameter(help="Types of events, * for any characters (trade.*); by default all.")],
    lines: Annotated[int, Parameter(help="How many events; by default 20.")] = 20,
    follow: Annotated[
        bool, Parameter(negative="", help="Go on with what comes, until interrupted; by default end.")
    ] = False,
    bus: Bus = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Print the newest events; with --json one in each line."""
    from inference.telemetry import event_printing  # noqa: PLC0415 - only who runs it pays for its imports

    return event_printing.tail(_bus(bus, home), patterns, lines=lines, follow=follow, as_json=json)


@events.command(
    help_epilogue=help_end(
        "qtctl events replay --from-offset 1200",
        "qtctl events replay 'trade.*' --since 2026-03-01T12:00:00Z --json | jq .data",
        "qtctl events replay --group dashboard --from-offset 1",
        statuses={0: "printed, or the group reads on from there", 1: _GONE, 2: _BAD},
        as_json=True,
    )
)
def replay(
    *patterns: Annotated[str, Parameter(help="Types of events, * for any characters (trade.*); by default all.")],
    from_offset: Annotated[int, Parameter(help="First offset; by default the oldest that is kept.")] = 0,
    since: Annotated[
        str | None, Parameter(help="Of events at or after this moment (UTC, 2026-03-01T12:00); by default all.")
    ] = None,
    group: Annotated[
        str | None, Parameter(help="Let this group read on from the offset, and print nothing; by default print.")
    ] = None,
    bus: Bus = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Print the events that are kept, in order, from an offset or a time; with --json one in each line."""
    from inference.telemetry import event_printing  # noqa: PLC0415 - as above

    chosen = event_printing.Chosen(patterns=patterns, from_offset=from_offset, since=since, group=group)
    return event_printing.replay(_bus(bus, home), chosen, as_json=json)


@events.command(
    help_epilogue=help_end(
        "qtctl events dead",
        "qtctl events dead --group dashboard --json | jq '.[].reason'",
        statuses={0: "listed, also where there are none", 1: _GONE},
        as_json=True,
    )
)
def dead(
    *,
    group: Annotated[str | None, Parameter(help="Of one group of consumers; by default of all.")] = None,
    bus: Bus = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """List the dead letters: events that a group gave up, after how many deliveries and why."""
    from inference.telemetry import event_printing  # noqa: PLC0415 - as above

    return event_printing.dead(_bus(bus, home), group, as_json=json)


@events.command(
    help_epilogue=help_end(
        "qtctl events requeue dashboard",
        "qtctl events requeue dashboard 9e99a844-ea42-51b0-9b8f-3a23b2ea1d9a",
        statuses={0: "delivered again from now on", 1: f"{_GONE}, or there is no such group or dead letter", 2: _BAD},
        as_json=True,
    )
)
def requeue(
    group: Group,
    /,
    *event_ids: Annotated[str, Parameter(help="Their event_id, as `qtctl events dead` shows it; by default all.")],
    bus: Bus = None,
    home: Home = None,
    json: Json = False,
) -> int:
    """Have a group's dead letters delivered to it again: all, or those named."""
    from inference.telemetry import event_printing  # noqa: PLC0415 - as above

    return event_printing.requeue(_bus(bus, home), group, event_ids, as_json=json)


@events.command(
    help_epilogue=help_end(
        "qtctl events stats",
        "qtctl events stats --json | jq '.groups[].pending'",
        statuses={0: "counted", 1: _GONE},
        as_json=True,
    )
)
def stats(*, bus: Bus = None, home: Home = None, json: Json = False) -> int:
    """Count what is on the bus: published and kept, and for each group delivered, pending, dead and dropped."""
    from inference.telemetry import event_printing  # noqa: PLC0415 - as above

    return event_printing.stats(_bus(bus, home), as_json=json)


@events.command(
    help_epilogue=help_end(
        "qtctl events kinds",
        "qtctl events kinds --json | jq '.[].event_type'",
        statuses={0: "listed", 1: "the list could not be printed"},
        as_json=True,
    )
)
def kinds(*, json: Json = False) -> int:
    """List which events there are, who says them, and what they mean."""
    from inference.telemetry import event_printing  # noqa: PLC0415 - as above

    return event_printing.kinds(as_json=json)


def _bus(address: str | None, home: Path | None) -> EventBus:
    from inference.telemetry import event_printing  # noqa: PLC0415 - as above

    # Looking at the bus needs no venue, so the worker's settings and their rules do not apply.
    folder = home or Path(os.environ.get("QUANTUM_HOME") or "var")
    return event_printing.existing_bus(address or os.environ.get("QT_BUS") or None, folder)
