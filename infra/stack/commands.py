"""`qtctl up`, `down`, `status`, `doctor` and `demo`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from cyclopts import App, Parameter
from rich.console import Console

from feature_store.errors import BadInputError
from feature_store.terminal import INTERRUPTED, REFUSED, help_end
from infra.stack import doctor as doctor_module
from infra.stack import overview
from infra.stack.checks import Level
from infra.stack.demo import Demo, DemoOptions, check_options
from infra.stack.errors import StackError
from infra.stack.home import Programs, home_from_environment
from infra.stack.local_stack import check_settings, check_timeframe, make_stack, settle
from infra.stack.retraining import are_scheduled
from infra.stack.screen import Screen
from infra.stack.services import NAMES, PREFECT, PREFECT_WORKER, StackSettings
from infra.stack.supervisor import Supervisor

_AsJson = Annotated[bool, Parameter(name="--json", negative=())]


def _command(name: str, summary: str, *examples: str, statuses: dict[int, str], as_json: bool = True) -> App:
    lines = (f"qtctl {name} {example}".rstrip() for example in examples)
    end = help_end(*lines, statuses=statuses, as_json=as_json)
    return App(name=name, help=summary, help_epilogue=end, help_format="plaintext")


up = _command(
    "up",
    "Start the local stack and return; what already runs with the same settings is kept.",
    "",
    "--speed 300 --edge 0",
    "--venue binanceusdm --services prefect-server,mlflow,prefect-worker",
    "--json | jq .services.mlflow.url",
    statuses={
        0: "every service answers",
        1: "failed: a service does not start, a database is damaged, the disk is full, or a demonstration is under way",
        130: "interrupted by Ctrl-C or SIGTERM; 'qtctl down' stops what was started",
    },
)
down = _command(
    "down",
    "Stop the local stack, everything it started and nothing else.",
    "",
    "--json | jq .killed",
    statuses={
        0: "nothing of it runs any more",
        1: "failed: another command is changing the stack, or a demonstration is under way and --unless-demo was given",
    },
)
status = _command(
    "status",
    "Show what runs, where, and how it is.",
    "",
    "--json | jq .services",
    statuses={
        0: "all that was started runs",
        1: "something that should run does not, or the record is damaged",
        3: "all runs, and no retraining has come to its end for twice the schedule's interval (QT_RETRAIN_HOURS)",
    },
)
doctor = _command(
    "doctor",
    "Check this machine and QUANTUM_HOME, and say how to mend what is wrong.",
    "",
    "--json | jq '.[] | select(.level != \"ok\")'",
    statuses={0: "fit to run, perhaps with warnings", 1: "something is wrong; each finding says how to mend it"},
)
demo = _command(
    "demo",
    "Train, promote and trade on embedded defaults, then sum up; Ctrl-C stops everything cleanly. A second run goes on "
    "from what is there.",
    "",
    "--once",
    "--once --edge 0 --fresh",
    "--replay candles/ --fresh --report summary.json",
    statuses={
        0: "it ended as asked; with --once, the trades were closed",
        1: "failed: a step did, or with --once something is missing",
        3: "with --once: the gates refused the model or hold it back, and nothing was promoted",
        130: "interrupted by Ctrl-C before there was anything to sum up",
    },
    as_json=False,
)

# A trade may take an hour of market time; here an hour passes in half a minute.
_DEMO_SPEED = 120.0


def _say(sentence: str) -> None:
    print(sentence, flush=True)  # noqa: T201 - a command speaks to the person who typed it


def _mention(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)  # noqa: T201 - as above, beside a result for machines


def _run(work: Coroutine[Any, Any, int]) -> int:
    """
    Run a command; Ctrl-C, SIGTERM and a closed terminal cancel it in order.

    Raises:
        StackError: The disk or a folder gave way in a place that has no sentence of its own.
    """

    async def cancellable() -> int:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()

        def stop(number: signal.Signals) -> None:
            if number is signal.SIGHUP:
                _forget_terminal()
            if task is not None:
                task.cancel()

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            # nohup ignores SIGHUP for us, and means it.
            if signal.getsignal(number) is not signal.SIG_IGN:
                loop.add_signal_handler(number, stop, number)
        return await work

    try:
        return asyncio.run(cancellable())
    except (asyncio.CancelledError, KeyboardInterrupt):
        return INTERRUPTED
    except OSError as error:
        raise StackError(f"{error}; `qtctl doctor` looks at disk and folders") from error


def _forget_terminal() -> None:
    """Write to nowhere from now on: the terminal was closed, and stopping in order must not fail on that."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for descriptor in (1, 2):
        os.dup2(nowhere, descriptor)
    os.close(nowhere)


@up.default
def _up(
    *,
    venue: str | None = None,
    symbols: int | None = None,
    seed: int | None = None,
    speed: float | None = None,
    edge: float | None = None,
    replay: Path | None = None,
    services: str = "all",
    json: _AsJson = False,
) -> int:
    """
    Start the local stack and return; what already runs with the same settings is kept.

    Args:
        venue: sandbox, binanceusdm, binance or bitfinex; by default QT_VENUE, else sandbox.
        symbols: How many symbols the sandbox exchange trades; by default 20 in a new home.
        seed: The seed of the sandbox's market; by default 7 in a new home.
        speed: How many times faster than the wall the sandbox's clock runs; by default 60 in a new home.
        edge: Strength of the predictable component of the sandbox's market; by default 0.45 in a new home, 0 leaves
            nothing to find.
        replay: Recorded candles (a Parquet or CSV file, or a folder) that the sandbox replays; by default a synthetic
            market.
        services: all, or a comma list of sandbox, prefect-server, mlflow, prefect-worker, worker.
        json: Print what `qtctl status --json` prints, once everything is ready.
    """
    venue = venue or os.environ.get("QT_VENUE") or None
    asked = {"venue": venue, "symbols": symbols, "seed": seed, "speed": speed, "edge": edge, "replay": replay}
    return _run(_start_all(asked, services, as_json=json))


def _absolute(path: Path | None) -> str | None:
    if path is None:
        return None
    if not path.exists():
        raise BadInputError(
            f"--replay {path} does not exist; name a Parquet or CSV file of candles, or a folder of them"
        )
    return str(path.resolve())


async def _start_all(asked: dict[str, Any], services: str, *, as_json: bool) -> int:
    names = NAMES if services == "all" else tuple(part.strip() for part in services.split(",") if part.strip())
    if unknown := set(names) - set(NAMES):
        raise BadInputError(f"Unknown service {', '.join(sorted(unknown))}; --services takes: all, {', '.join(NAMES)}")
    home = home_from_environment()
    say = _mention if as_json else _say
    stack = make_stack(home, settle(home, **asked | {"replay": _absolute(asked["replay"])}), say)
    with stack.supervisor.exclusive("demo"), stack.supervisor.exclusive():
        stack.prepare(names)
        await stack.start_servers()
        if PREFECT in names and "prefect-worker" in names and await stack.deploy():
            say("Deployed prefect.yaml.")
        await stack.start_worker()
    if as_json:
        _say(msgspec.json.encode(await overview.look(home)).decode())
        return 0
    for name, url in stack.urls.items():
        _say(f"{name:16} {url}")
    return 0


@down.default
def _down(*, unless_demo: Annotated[bool, Parameter(negative=())] = False, json: _AsJson = False) -> int:
    """
    Stop everything that `up` or `demo` started under QUANTUM_HOME.

    Args:
        unless_demo: Stop nothing, and fail, while a demonstration or another `up` is under way.
        json: Print one JSON object: what was stopped, what had to be killed, and what was mended first.
    """
    return _run(_stop_all(unless_demo=unless_demo, as_json=json))


async def _stop_all(*, unless_demo: bool, as_json: bool) -> int:
    home = home_from_environment()
    names, killed, mended = [], [], []
    if home.root.exists():
        supervisor = Supervisor(home, _mention if as_json else _say)
        no_demo = supervisor.exclusive("demo") if unless_demo else contextlib.nullcontext()
        with no_demo, supervisor.exclusive():
            mended = supervisor.load()
            names = list(supervisor.record.services)
            killed = await supervisor.stop()
    if as_json:
        _say(msgspec.json.encode({"stopped": names, "killed": killed, "mended": mended}).decode())
        return 0
    for sentence in mended:
        _say(sentence)
    if names:
        _say(f"Stopped {', '.join(names)}.")
    for name in killed:
        _say(f"{name} did not end when asked and was killed; see its log in {home.logs}.")
    return 0


@status.default
def _status(*, json: _AsJson = False) -> int:
    """
    Show each service with its address, health and memory, the champion, the worker's state, and how retraining stands.

    Args:
        json: Print one JSON object instead of a table.
    """
    return _run(_show_status(as_json=json))


async def _show_status(*, as_json: bool) -> int:
    view = await overview.look(home_from_environment())
    if as_json:
        _say(msgspec.json.encode(view).decode())
    else:
        overview.show(view, Console())
    if not all(service.health == "ready" for service in view.services.values()):
        return 1
    # Whoever pauses the schedules, or runs no Prefect worker, expects no retraining.
    is_scheduled = PREFECT_WORKER in view.services and are_scheduled()
    return REFUSED if is_scheduled and view.retraining is not None and view.retraining.is_stale else 0


@doctor.default
def _doctor(*, json: _AsJson = False) -> int:
    """
    Look at versions, disk, ports, clock, venue, servers and files; exit status 1 where one of them fails.

    Args:
        json: Print a JSON list of findings instead of a table.
    """
    return _run(_examine(as_json=json))


async def _examine(*, as_json: bool) -> int:
    findings = await doctor_module.examine(home_from_environment(), Programs())
    if as_json:
        _say(msgspec.json.encode(findings).decode())
    else:
        doctor_module.show(findings, Console())
    return 1 if any(one.level is Level.FAIL for one in findings) else 0


@demo.default
def _demo(
    *,
    once: Annotated[bool, Parameter(negative=())] = False,
    trades: int | None = None,
    minutes: float | None = None,
    days: int = 30,
    symbols: int | None = None,
    edge: float | None = None,
    seed: int | None = None,
    speed: float | None = None,
    replay: Path | None = None,
    size: Literal["full", "quick", "tiny"] | None = None,
    fresh: Annotated[bool, Parameter(negative=())] = False,
    retrain: Annotated[bool, Parameter(negative=())] = False,
    report: Path | None = None,
) -> int:
    """
    Train, promote and trade on embedded defaults, then sum up; Ctrl-C stops everything cleanly.

    Args:
        once: End without being asked: after the trades, after the minutes, or when there is nothing to trade.
        trades: How many trades, on at least five symbols, must close before --once ends; by default 20.
        minutes: For how long to trade at most; by default 10 with --once, otherwise until Ctrl-C. If these are up
            before the trades are closed, that is a failure unless only the minutes were named.
        days: How many days of candles to train on.
        symbols: How many symbols the sandbox exchange trades; by default 20 in a new home.
        edge: Strength of the predictable component of the sandbox's market; by default 0.45 in a new home, with 0 the
            gates must refuse.
        seed: The seed of the sandbox's market; by default 7 in a new home.
        speed: How many times faster than the wall the sandbox's clock runs; by default 120 in a new home.
        replay: Recorded candles (a Parquet or CSV file, or a folder) to trade; by default a synthetic market.
        size: How long the models train: full, quick or tiny (tiny only tries the machinery); by default QT_SIZE,
            else full.
        fresh: Forget what earlier runs left.
        retrain: Make another candidate although a champion is here.
        report: Write the summary to this file as JSON; by default to none.
    """
    options = DemoOptions(
        once=once,
        trades=trades,
        minutes=minutes,
        days=days,
        fresh=fresh,
        retrain=retrain,
        size=size,
        report=None if report is None else report.resolve(),
    )
    asked = {"symbols": symbols, "seed": seed, "speed": speed, "edge": edge, "replay": replay}
    return _run(_play(options, asked))


async def _play(options: DemoOptions, asked: dict[str, Any]) -> int:
    home = home_from_environment()
    asked |= {"venue": "sandbox", "replay": _absolute(asked["replay"])}
    settings = settle(home, StackSettings(speed=_DEMO_SPEED), fresh=options.fresh, **asked)
    check_options(options)
    check_settings(settings)
    check_timeframe(os.environ)
    return await Demo(options=options, home=home, settings=settings, screen=Screen()).run()
