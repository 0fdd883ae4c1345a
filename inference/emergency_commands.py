"""`qtctl stop`, `resume` and `flatten`: a person's hand on the emergency stop, with no server in between."""

from __future__ import annotations

import getpass
import json as json_text
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import psutil
from cyclopts import App, Parameter

from feature_store.clock import monotonic, utc_now
from feature_store.errors import BadInputError, QuantumError
from feature_store.terminal import FAILED, OK, help_end
from inference.commands import Home, Json, home_of
from inference.risk.emergency import ACTIONS, FLATTEN, Action, Evaluator
from inference.supervision.emergency_latch import MAX_REASON, Latch, ResetOrder, StopOrder, key_of
from inference.supervision.status import Status, read_status

_LATCHED = "latched, and the worker that runs, if any, is halted"
_CANNOT = "failed: the home cannot be written, or the worker did not answer in time"
_HELD = "The latch is a file: the next worker of this home starts halted."

stop = App(
    name="stop",
    help="""Stop trading now: nothing more is entered, entries that rest are cancelled, stops stay at the venue.

Works while the database, MLflow or Prefect is down, and while no worker runs: the next one starts halted. Exits go on.
Stays until 'qtctl resume', through every restart.""",
    help_format="plaintext",
    help_epilogue=help_end(
        'qtctl stop --reason "odd fills on ETH"',
        "qtctl stop --reason drill --json | jq .worker",
        statuses={0: _LATCHED, 1: _CANNOT},
        as_json=True,
    ),
)
flatten = App(
    name="flatten",
    help="""Stop trading now, as 'qtctl stop' does, and close every position at market, again until the venue confirms.

A worker has to run: it closes what is open. Without one the stop is latched, and the next worker closes all at its
start.""",
    help_format="plaintext",
    help_epilogue=help_end(
        'qtctl flatten --reason "leave before the upgrade"',
        "qtctl flatten --reason drill --wait 60",
        statuses={
            0: "latched, and nothing is open any more",
            1: f"{_CANNOT}; or no worker runs, and nothing is closed",
        },
        as_json=True,
    ),
)
resume = App(
    name="resume",
    help="""Reset the emergency stop: entries are let through again, and drawdown is measured from today's equity.

A cause that still holds stops anew at once. The reason is journaled with who gave it.""",
    help_format="plaintext",
    help_epilogue=help_end(
        'qtctl resume --reason "ETH was a bad print, fills checked"',
        "qtctl resume --reason drill --json",
        statuses={0: "reset; or nothing was latched", 1: _CANNOT},
        as_json=True,
    ),
)

Reason = Annotated[str, Parameter(help="Why, in a sentence, for the journal; by default none, which is refused.")]
Wait = Annotated[float, Parameter(help="Seconds to wait for the worker's answer; 0 does not wait.")]


@stop.default
def run_stop(*, reason: Reason = "", wait: Wait = 5.0, home: Home = None, json: Json = False) -> int:
    """Latch the emergency stop."""
    return _latch(home_of(home), reason, ACTIONS[Evaluator.MANUAL], source="stop", wait=wait, as_json=json)


@flatten.default
def run_flatten(*, reason: Reason = "", wait: Wait = 30.0, home: Home = None, json: Json = False) -> int:
    """Latch the emergency stop and close everything."""
    return _latch(home_of(home), reason, FLATTEN, source="flatten", wait=wait, as_json=json)


@resume.default
def run_resume(*, reason: Reason = "", wait: Wait = 5.0, home: Home = None, json: Json = False) -> int:
    """Reset the emergency stop."""
    place = home_of(home)
    latch, status = Latch(place), _running(place)
    try:
        standing = {one.key for one in latch.read().standing}
        if status is not None and status.risk is not None:
            # What could not be written to the home stands in the worker's memory and journal.
            standing |= {one.key for one in status.risk.stops}
        if not standing:
            return _say({"worker": _worker(status), "reset": []}, "Nothing is latched.", as_json=json)
        at = utc_now().isoformat(timespec="milliseconds")
        order = ResetOrder(
            key=key_of(at, "resume"), stops=tuple(sorted(standing)), reason=_checked(reason), at=at, by=_who()
        )
        latch.reset(order)
    except OSError as error:
        raise QuantumError(_unwritable(latch, error)) from error
    told: dict[str, object] = {"worker": _worker(status), "reset": sorted(standing)}
    if status is None:
        return _say(told, "Reset. No worker runs; the next one starts without a stop.", as_json=json)

    def is_reset(now: Status) -> bool:
        # A worker that has only begun to start tells of no stops, also where it has not looked yet.
        left = latch.read()
        waits = standing & {one.key for one in left.stops} or order.key in {one.key for one in left.resets}
        return not standing & _keys(now) and not waits

    if wait > 0 and not _wait_for(place, wait, is_reset):
        return _say(told, f"Left for worker {status.pid}, which did not answer in {wait:g} s.", as_json=json, ok=False)
    return _say(told, f"Reset; worker {status.pid} trades on as far as nothing else holds it.", as_json=json)


def _latch(place: Path, reason: str, actions: tuple[Action, ...], *, source: str, wait: float, as_json: bool) -> int:
    latch, at = Latch(place), utc_now().isoformat(timespec="milliseconds")
    order = StopOrder(
        key=key_of(at, f"{source}-{os.getpid()}"),
        evaluator=Evaluator.MANUAL,
        reason=_checked(reason),
        actions=actions,
        at=at,
        by=_who(),
    )
    try:
        latch.stop(order)
    except OSError as error:
        raise QuantumError(_unwritable(latch, error)) from error
    status = _running(place)
    told: dict[str, object] = {"key": order.key, "actions": list(actions), "worker": _worker(status)}
    closes = Action.FLATTEN in actions
    if status is None:
        words = (
            f"Latched, but no worker runs in {place}: nothing was cancelled{' or closed' if closes else ''}. {_HELD}"
        )
        if closes:
            words += " It closes what is open; or close it at the venue."
        return _say(told, words, as_json=as_json, ok=not closes)
    if wait <= 0:
        return _say(told, f"Latched for worker {status.pid}.", as_json=as_json)
    done = _wait_for(place, wait, lambda now: _is_done(now, order.key, must_finish=closes))
    if done is None:
        words = f"Latched, and worker {status.pid} did not {'finish' if closes else 'answer'} in {wait:g} s. {_HELD}"
        return _say(told, words, as_json=as_json, ok=False)
    open_positions = 0 if done.risk is None else done.risk.open_positions
    told |= {"trading_state": done.trading_state, "open_positions": open_positions}
    words = f"Latched; worker {status.pid} is {done.trading_state}, {open_positions} positions open."
    return _say(told, words, as_json=as_json)


def _is_done(status: Status, key: str, *, must_finish: bool) -> bool:
    stops = () if status.risk is None else status.risk.stops
    return any(one.key == key and (one.done or not must_finish) for one in stops)


def _keys(status: Status) -> set[str]:
    return set() if status.risk is None else {one.key for one in status.risk.stops}


def _running(place: Path) -> Status | None:
    """Return the status of the worker of this home that runs, None where none does."""
    status = read_status(place / "worker" / "status.json")
    if status is None or status.state == "stopped":
        return None
    try:
        alive = psutil.Process(status.pid).status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return None
    return status if alive else None


def _wait_for(place: Path, seconds: float, holds: Callable[[Status], bool]) -> Status | None:
    until = monotonic() + seconds
    while monotonic() < until:
        status = _running(place)
        if status is None:
            return None
        if holds(status):
            return status
        time.sleep(0.1)
    return None


def _checked(reason: str) -> str:
    words = " ".join(reason.split())
    if not words:
        raise BadInputError('--reason is empty: say why in a sentence, for example --reason "odd fills on ETH"')
    if len(words) > MAX_REASON:
        raise BadInputError(f"--reason takes at most {MAX_REASON} characters, was {len(words)}")
    return words


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"uid {os.getuid()}"


def _worker(status: Status | None) -> str:
    return "none" if status is None else f"{status.pid} {status.state}"


def _unwritable(latch: Latch, error: OSError) -> str:
    return (
        f"{latch.folder} cannot be used: {error.strerror or error}; nothing is latched. Name another home with --home, "
        "mend the folder, or end the worker with SIGTERM: its stops stay at the venue"
    )


def _say(told: dict[str, object], words: str, *, as_json: bool, ok: bool = True) -> int:
    print(json_text.dumps({**told, "ok": ok, "said": words}) if as_json else words)  # noqa: T201 - a command speaks
    return OK if ok else FAILED
