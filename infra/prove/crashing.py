"""
`python -m infra.prove.crashing TASK before|after`: run `retrain` in this process, which kills itself at one task.

Without a task it runs to its end and prints what came of it. `before` dies as the task begins, `after` when the task
has done what it does and nobody could note that yet. `--list` prints the tasks.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import pkgutil
import signal
import sys
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any

import msgspec

from flows.reaching import reach_prefect
from flows.settings import FlowSettings
from flows.training.verdict import Finding, Verdict

if TYPE_CHECKING:
    from prefect import Task

# The flows that retrain is made of, in the order in which it comes to them.
_MODULES = ("ingest", "features", "train", "trainers", "shadow", "promote")


def tasks() -> dict[str, Task[..., Any]]:
    """Return every task of the flows that retrain calls, as `module.function`."""
    from prefect import Task  # noqa: PLC0415 - Prefect reads its environment at import

    import flows  # noqa: PLC0415 - as above

    names = [one.name for one in pkgutil.iter_modules(flows.__path__) if one.name in _MODULES]
    modules = {name: import_module(f"flows.{name}") for name in sorted(names, key=_MODULES.index)}
    return {
        f"{name}.{value.fn.__name__}": value
        for name, module in modules.items()
        for value in vars(module).values()
        if isinstance(value, Task) and value.fn.__module__ == module.__name__
    }


def _dies(do: Callable[..., Any], when: str, *, is_async: bool) -> Callable[..., Any]:
    def die() -> None:
        sys.stderr.write(f"dying {when} {do.__name__}\n")
        sys.stderr.flush()
        os.kill(os.getpid(), signal.SIGKILL)

    if is_async:

        @functools.wraps(do)
        async def dying_later(*args: Any, **kwargs: Any) -> Any:
            if when == "after":
                await do(*args, **kwargs)
            die()

        return dying_later

    @functools.wraps(do)
    def dying(*args: Any, **kwargs: Any) -> Any:
        if when == "after":
            do(*args, **kwargs)
        die()

    return dying


def _everything_passes() -> None:
    """Let every version pass the gates: one of the size that there is time for never would, and aliases must move."""
    from flows import promote  # noqa: PLC0415 - as above

    judge = promote.judge

    def held(*given: Any, **more: Any) -> Verdict:
        checks = (msgspec.structs.replace(check, finding=Finding.HELD) for check in judge(*given, **more).checks)
        return Verdict(checks=tuple(checks))

    promote.judge = held


def main() -> int:
    """Run retrain, and perhaps die on the way."""
    parser = argparse.ArgumentParser(prog="infra.prove.crashing", description=__doc__)
    parser.add_argument("task", nargs="?")
    parser.add_argument("when", nargs="?", choices=["before", "after"], default="before")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--parameters", default="{}", help="of the flow, as JSON")
    parser.add_argument("--promotes", action="store_true", help="let every version pass the gates")
    arguments = parser.parse_args()
    reach_prefect(FlowSettings.of())
    known = tasks()
    if arguments.list:
        print("\n".join(known))
        return 0
    if arguments.task is not None:
        chosen = known[arguments.task]
        chosen.fn = _dies(chosen.fn, arguments.when, is_async=chosen.isasync)
    if arguments.promotes:
        _everything_passes()
    from flows.retrain import retrain  # noqa: PLC0415 - as above

    print(json.dumps(msgspec.to_builtins(retrain(**json.loads(arguments.parameters)))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
