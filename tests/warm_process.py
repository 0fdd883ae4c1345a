"""One process that has imported what flows need, and forks a copy of itself for each command that is to be run.

A command starts in a process of its own, as a person's does, without the seconds that imports take each time.
It reads one order (JSON) a line and answers with the exit status; only the standard library is imported before that.
"""

from __future__ import annotations

import atexit
import functools
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

IMPORTED = (
    "mlflow", "mlflow.pyfunc", "prefect.cli", "prefect.cli.deploy", "flows.approve", "flows.backtest",
    "flows.backtest_command", "flows.drift", "flows.drift_command", "flows.live_shadow", "flows.promote",
    "flows.rollback", "flows.shadow", "inference.cli",
)  # fmt: skip


class WarmProcess:
    """The process, as tests see it: one order at a time."""

    def __init__(self, env: Mapping[str, str]) -> None:
        """`env` is what libraries read when they are imported; each order brings an environment of its own."""
        self._process = subprocess.Popen(
            [sys.executable, __file__], cwd=ROOT, env={**env, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._answer()
        atexit.register(self.close)

    def run(
        self, code: str, arguments: Sequence[str], env: Mapping[str, str], *, seconds: int = 560
    ) -> subprocess.CompletedProcess[str]:
        """Run code with arguments, as a fresh interpreter would, and return what it printed."""
        with tempfile.TemporaryDirectory() as folder:
            out, err = Path(folder) / "out", Path(folder) / "err"
            order = {"code": code, "arguments": list(arguments), "env": dict(env), "seconds": seconds}
            self._process.stdin.write(json.dumps(order | {"out": str(out), "err": str(err)}) + "\n")
            self._process.stdin.flush()
            status = int(self._answer())
            return subprocess.CompletedProcess(["qtctl", *arguments], status, out.read_text(), err.read_text())

    def close(self) -> None:
        """Let it end."""
        self._process.stdin.close()
        self._process.wait(30)

    def _answer(self) -> str:
        line = self._process.stdout.readline()
        assert line, "The process that runs commands has ended"
        return line.strip()


@functools.cache
def warm_process(env: tuple[tuple[str, str], ...]) -> WarmProcess:
    """Return the one process of this session that was started in an environment."""
    return WarmProcess(dict(env))


def serve() -> None:
    """Run each order of standard input in a copy of this process, until there is no more."""
    for name in IMPORTED:
        importlib.import_module(name)
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        order = json.loads(line)
        copy = os.fork()
        if copy == 0:
            _leave(_become(order))
        _, status = os.waitpid(copy, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


def _become(order: dict) -> int:
    """Take over environment and output that were asked for, run the code, and return the status that it ends with."""
    for descriptor, path in ((1, order["out"]), (2, order["err"])):
        target = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        os.dup2(target, descriptor)
        os.close(target)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    # Whoever waits cannot give up; this does.
    signal.alarm(order["seconds"])
    os.environ.clear()
    os.environ.update(order["env"])
    sys.argv = ["qtctl", *order["arguments"]]
    try:
        exec(order["code"], {"__name__": "__main__"})
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception:  # noqa: BLE001 - an interpreter prints whatever comes, and ends with 1
        traceback.print_exc()
        return 1
    return 0


def _leave(status: int) -> None:
    """End as an interpreter ends, but without libraries' own endings: they wait for threads that a copy lacks."""
    threading._shutdown()
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


if __name__ == "__main__":
    serve()
