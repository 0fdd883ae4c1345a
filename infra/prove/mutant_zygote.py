"""
`python -m infra.prove.mutant_zygote`: a process that has imported what tests need, and forks for each mutant.

It reads one order per line from standard input and answers each with one line, both in JSON. A mutant is compiled in
memory and lives in its fork alone: no file ever holds it. A change within a function takes the place of that function's
code, in a session of pytest that has collected everything; a change of what is made when a module is imported needs
that module, all that depends on it and the tests imported anew.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.abc
import importlib.util
import os
import resource
import select
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, BinaryIO

import msgspec
import pytest
from hypothesis import Phase, settings

from feature_store.clock import monotonic
from infra.prove.mutant_sources import CONFTEST, ROOT, TARGETS, closure, module_name
from infra.prove.mutating import Mutant, mutants_of, mutated

# A process may get a small part of a core only; what sleeps for ever is ended all the same.
_WALL_FACTOR = 60
UNCHANGED = -1


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """
    Which mutant to try, by its number, against which tests in which order, and how many seconds of a core it has.

    The number of no mutant, `UNCHANGED`, tries the source as it is: nothing may be noticed then.
    """

    target: str
    number: int
    tests: tuple[str, ...]
    seconds: int


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """
    What became of a mutant: the test that failed, empty where none did.

    `stillborn` is one that cannot be imported, `late` one that did not end in its time.
    """

    killer: str = ""
    stillborn: bool = False
    late: bool = False


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """What one test did to the sources as they are: its outcome, its time, and the lines it ran of each target."""

    test: str
    passed: bool
    seconds: float
    lines: dict[str, list[int]]


class _Mutated(importlib.abc.MetaPathFinder, importlib.abc.InspectLoader):
    """Finds one module by its name and gives it other code than its file holds."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self._name, self._path, self._code = name, path, code

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> Any:
        del path, target
        if fullname != self._name:
            return None
        return importlib.util.spec_from_file_location(fullname, self._path, loader=self)

    def get_source(self, fullname: str) -> str:
        del fullname
        return self._path.read_text(encoding="utf-8")

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        return self._code


class _Repeatable:
    """Draws the same examples each time and keeps the name of the first test that failed."""

    def __init__(self) -> None:
        self.failed = ""

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection(self) -> None:
        """Settle how examples are drawn; conftest.py has loaded its own settings before, the tests come after."""
        repeatable = settings(
            settings.get_profile("unhurried"),
            derandomize=True,
            database=None,
            # To see a mutant is enough, the smallest example of it is not looked for.
            phases=(Phase.explicit, Phase.generate),
        )
        settings.register_profile("mutants", repeatable)
        settings.load_profile("mutants")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep the name of what failed first."""
        if report.failed and not self.failed:
            self.failed = report.nodeid


class _Lines:
    """Watches which lines of the targets run."""

    def __init__(self) -> None:
        self._names = {str(ROOT / one): one for one in TARGETS}
        self._found: dict[str, set[int]] = {}

    @contextlib.contextmanager
    def watched(self) -> Iterator[dict[str, set[int]]]:
        """Trace what runs within, and yield the lines that it ran."""
        self._found = {one: set() for one in TARGETS}
        sys.settrace(self._trace)
        try:
            yield self._found
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, _event: str, _argument: object) -> Any:
        name = self._names.get(frame.f_code.co_filename)
        if name is None:
            return None
        add = self._found[name].add

        def local(inner: FrameType, event: str, _argument: object) -> Any:
            if event == "line":
                add(inner.f_lineno)
            return local

        return local


class _Session(_Repeatable):
    """A session of pytest that tells what each test does, then lets forks of itself try mutants."""

    def __init__(self, orders: BinaryIO, answers: BinaryIO) -> None:
        super().__init__()
        self._orders, self._answers = orders, answers

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        """Run everything once as it is, then answer orders."""
        if session.testsfailed:
            raise session.Interrupted("The tests cannot be collected")
        self._tell(msgspec.json.encode([self._seen(item) for item in session.items]))
        items = {item.nodeid: item for item in session.items}
        for line in self._orders:
            order = _ordered(line)
            self._tell(msgspec.json.encode(forked(order, partial(self._tried, order, items))))
        return True

    def _tell(self, line: bytes) -> None:
        self._answers.write(line + b"\n")
        self._answers.flush()

    def _seen(self, item: pytest.Item) -> Seen:
        self.failed = ""
        began = resource.getrusage(resource.RUSAGE_SELF).ru_utime
        with _Lines().watched() as lines:
            _run(item)
        return Seen(
            test=item.nodeid,
            passed=not self.failed,
            seconds=resource.getrusage(resource.RUSAGE_SELF).ru_utime - began,
            lines={name: sorted(some) for name, some in lines.items() if some},
        )

    def _tried(self, order: Order, items: dict[str, pytest.Item]) -> Answer:
        self.failed = ""
        if order.number != UNCHANGED:
            _exchange(order)
        for name in order.tests:
            _run(items[name])
            if self.failed:
                break
        return Answer(killer=self.failed)


class _Some(_Repeatable):
    """A session of pytest that runs the tests asked for in the order asked for, until one fails."""

    def __init__(self, tests: Sequence[str]) -> None:
        super().__init__()
        self._turn = {name: number for number, name in enumerate(tests)}

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        """Leave what is asked for."""
        items[:] = sorted((one for one in items if one.nodeid in self._turn), key=lambda one: self._turn[one.nodeid])


def _run(item: pytest.Item) -> None:
    item.config.hook.pytest_runtest_protocol(item=item, nextitem=None)


def _ordered(line: bytes) -> Order:
    """Return an order, its target's mutants known already to every fork that is to come."""
    order = msgspec.json.decode(line, type=Order)
    mutants_of((ROOT / order.target).read_text(encoding="utf-8"))
    return order


def _pytest(plugin: object, *arguments: str) -> int:
    # What else is installed takes a second to load, in each fork.
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    wanted = [word for name in ("asyncio", "timeout", "hypothesispytest") for word in ("-p", name)]
    # Hypothesis was imported before pytest could rewrite its assertions, of which it has none.
    quiet = ["-q", "-s", "-p", "no:cacheprovider", "-W", "ignore::pytest.PytestAssertRewriteWarning"]
    return int(pytest.main([*wanted, *quiet, "--timeout=0", f"--rootdir={ROOT}", *arguments], plugins=[plugin]))


def _compiled(order: Order) -> tuple[Mutant, CodeType]:
    path = ROOT / order.target
    source = path.read_text(encoding="utf-8")
    mutant = mutants_of(source)[order.number]
    return mutant, compile(mutated(source, mutant), str(path), "exec", dont_inherit=True)


def _exchange(order: Order) -> None:
    """Put the code of one changed function in the place of what was there, wherever the function was imported."""
    mutant, code = _compiled(order)
    held: Any = importlib.import_module(module_name(order.target))
    names = mutant.function.split(".")
    for depth, name in enumerate(names, 1):
        held = vars(held)[name]
        held = held.fget if isinstance(held, property) else held
        if isinstance(held, FunctionType):
            held.__code__ = _code_of(code, ".".join(names[:depth]))
            return
    raise LookupError(f"{mutant.function} of {order.target} is no function")


def _code_of(code: CodeType, name: str) -> CodeType:
    waiting = [code]
    while waiting:
        one = waiting.pop()
        if one.co_qualname == name:
            return one
        waiting += [inner for inner in one.co_consts if isinstance(inner, CodeType)]
    raise LookupError(f"There is no code of {name}")


def _tried_anew(order: Order) -> Answer:
    """Import the changed module, and with it all that was not imported before because it depends on it."""
    name = module_name(order.target)
    if order.number != UNCHANGED:
        sys.meta_path.insert(0, _Mutated(name, ROOT / order.target, _compiled(order)[1]))
    try:
        importlib.import_module(name)
    except Exception:  # noqa: BLE001 - whatever it is, the module cannot be imported
        return Answer(stillborn=True)
    chosen = _Some(order.tests)
    status = _pytest(chosen, "-x", *sorted({test.split("::")[0] for test in order.tests}))
    # A product or a test that cannot be imported any more notices too.
    return Answer(killer=chosen.failed or ("" if status == 0 else f"pytest ended with {status}"))


def forked(order: Order, tried: Callable[[], Answer]) -> Answer:
    """Try a mutant in a fork and return what became of it; what does not end in its time is ended, children too."""
    ours, theirs = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.setsid()
            os.close(ours)
            resource.setrlimit(resource.RLIMIT_CPU, (order.seconds, order.seconds + 1))
            quiet = os.open(os.devnull, os.O_RDWR)
            for stream in (0, 1, 2):
                os.dup2(quiet, stream)
            os.write(theirs, msgspec.json.encode(tried()))
        finally:
            # Nothing of the process that forked may go on in here.
            os._exit(0)
    os.close(theirs)
    told = b""
    end = monotonic() + order.seconds * _WALL_FACTOR
    while (left := end - monotonic()) > 0 and select.select([ours], [], [], left)[0]:
        part = os.read(ours, 65_536)
        if not part:
            break
        told += part
    os.close(ours)
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, signal.SIGKILL)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not told and status not in (-signal.SIGXCPU, -signal.SIGKILL):
        raise ChildProcessError(f"{order} came to nothing (status {status})")
    return msgspec.json.decode(told, type=Answer) if told else Answer(late=True)


def _preload(target: str, files: Sequence[str]) -> None:
    """Import whatever the tests need that does not depend on what is to be changed."""
    needed = set[str]().union(*(closure(one) for one in (*files, CONFTEST))) - {*files, CONFTEST}
    for one in sorted(needed):
        if target not in closure(one):
            importlib.import_module(module_name(one))


def main() -> int:
    """Answer orders until there are no more: `all FILE…` within functions, `TARGET FILE…` what needs an import."""
    target, *files = sys.argv[1:]
    orders, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    # What tests print is no answer.
    os.dup2(2, 1)
    with orders, answers:
        if target == "all":
            return _pytest(_Session(orders, answers), *files)
        _preload(target, files)
        for line in orders:
            order = _ordered(line)
            answer = forked(order, partial(_tried_anew, order))
            answers.write(msgspec.json.encode(answer) + b"\n")
            answers.flush()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
