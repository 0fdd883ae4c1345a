"""Many mutants tried by several processes on a copy of the sources; what is known is kept, and not tried again."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from threading import Lock
from typing import Self

import msgspec
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from infra.prove.mutant_sources import ROOT, TARGETS, TESTS, digest, digest_of_all, imported
from infra.prove.mutant_zygote import UNCHANGED, Answer, Order, Seen
from infra.prove.mutating import Mutant, mutants_of

_COPIED = ("feature_store", "flows", "inference", "infra", "mlflow", "tests")
# What is slower than its tests usually are has lost its way.
_LEAST_SECONDS, _TIMES = 10, 8

Named = tuple[str, int]
"""A target, and the number of one of its mutants."""


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What became of one mutant, and a digest of the sources and the tests that say so."""

    target: str
    mutant: str
    answer: Answer
    evidence: str

    @property
    def is_killed(self) -> bool:
        """Whether a test failed, or did not end in its time."""
        return bool(self.answer.killer) or self.answer.late

    @property
    def still_holds(self) -> bool:
        """Whether sources and tests are those that it came from: of a killed one the test that failed, or else all."""
        return self.evidence == _evidence(self.answer)


def all_mutants(targets: Sequence[str]) -> dict[Named, Mutant]:
    """Return every mutant of some files, by target and number."""
    return {
        (target, number): mutant
        for target in targets
        for number, mutant in enumerate(mutants_of((ROOT / target).read_text(encoding="utf-8")))
    }


def campaign(mutants: Mapping[Named, Mutant], folder: Path, *, lanes: int) -> dict[Named, Verdict]:
    """
    Return a verdict for each mutant, in `lanes` processes at a time; what `folder` knows is not tried again.

    Raises:
        ValueError: A test fails on the sources as they are, so that it says nothing of a change.
    """
    folder.mkdir(parents=True, exist_ok=True)
    kept = folder / "verdicts.jsonl"
    known = {(one.target, one.mutant): one for one in _read(kept) if one.still_holds}
    found = {name: known[name[0], one.key] for name, one in mutants.items() if (name[0], one.key) in known}
    missing = {name: one for name, one in mutants.items() if name not in found}
    if not missing:
        return found
    lock = Lock()
    with _progress() as progress, kept.open("ab") as file, _copy() as root:
        task = progress.add_task("mutants", total=len(mutants), completed=len(found))

        def tell(name: Named, answer: Answer) -> None:
            verdict = Verdict(target=name[0], mutant=mutants[name].key, answer=answer, evidence=_evidence(answer))
            with lock:
                found[name] = verdict
                file.write(msgspec.json.encode(verdict) + b"\n")
                file.flush()
                progress.advance(task)

        work = _Work(missing)
        with ThreadPoolExecutor(lanes) as pool:
            for lane in [pool.submit(_lane, work, root, tell) for _ in range(lanes)]:
                lane.result()
    return found


class _Work:
    """What is still to be tried: within functions one by one, and by target what needs an import."""

    def __init__(self, mutants: Mapping[Named, Mutant]) -> None:
        self.mutants = mutants
        self._within = deque(name for name, one in mutants.items() if not one.at_import)
        of_imports = (name for name, one in mutants.items() if one.at_import)
        self._targets = deque(list(some) for _, some in groupby(of_imports, key=lambda name: name[0]))

    def within(self) -> Iterator[Named]:
        """Hand out mutants of functions until there are no more; several lanes may ask."""
        while self._within:
            try:
                yield self._within.popleft()
            except IndexError:
                return

    def targets(self) -> Iterator[list[Named]]:
        """Hand out, target by target, the mutants that need an import."""
        while self._targets:
            try:
                yield self._targets.popleft()
            except IndexError:
                return


class _Tests:
    """Which tests run a mutant's lines, the quick ones first."""

    def __init__(self, seen: Sequence[Seen]) -> None:
        failing = [one.test for one in seen if not one.passed]
        if failing:
            raise ValueError(f"Tests fail on the sources as they are: {', '.join(failing[:5])}")
        self._seen = sorted(seen, key=lambda one: one.seconds)

    def of(self, target: str, mutant: Mutant) -> list[list[Seen]]:
        """
        Return the tests of a mutant in the steps in which they are tried.

        What is changed where a module is imported may be read anywhere: first come the files that import it by name,
        which are the quickest to import anew.
        """
        if not mutant.at_import:
            lines = range(mutant.first_line, mutant.last_line + 1)
            some = [one for one in self._seen if any(line in lines for line in one.lines.get(target, ()))]
            return [some] if some else []
        near = {file for file in TESTS if target in imported(file)}
        is_near = [one.test.split("::")[0] in near for one in self._seen]
        first = [one for one, close in zip(self._seen, is_near, strict=True) if close]
        rest = [one for one, close in zip(self._seen, is_near, strict=True) if not close and target in one.lines]
        return [some for some in (first, rest) if some]


class _Zygote:
    """A process that forks for each mutant; see `infra.prove.mutant_zygote`."""

    def __init__(self, root: Path, target: str) -> None:
        environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "PYTHONHASHSEED": "0"}
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "infra.prove.mutant_zygote", target, *TESTS],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=root,
            env=environment,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def seen(self) -> list[Seen]:
        """Return what the tests do to the sources as they are."""
        return msgspec.json.decode(self._line(), type=list[Seen])

    def tries(self, name: Named, steps: Sequence[Sequence[Seen]]) -> Answer:
        """Return what became of a mutant."""
        answer = Answer()
        for tests in steps:
            order = Order(
                target=name[0],
                number=name[1],
                tests=tuple(one.test for one in tests),
                seconds=int(_LEAST_SECONDS + _TIMES * sum(one.seconds for one in tests)),
            )
            if self._process.stdin is None:
                raise BrokenPipeError("There is nobody to try a mutant")
            self._process.stdin.write(msgspec.json.encode(order) + b"\n")
            self._process.stdin.flush()
            answer = msgspec.json.decode(self._line(), type=Answer)
            if answer != Answer():
                break
        return answer

    def _line(self) -> bytes:
        line = self._process.stdout.readline() if self._process.stdout is not None else b""
        if not line:
            raise ChildProcessError(f"A process that tries mutants ended with {self._process.wait()}")
        return line


def _lane(work: _Work, root: Path, tell: Callable[[Named, Answer], None]) -> None:
    with _Zygote(root, "all") as zygote:
        seen = zygote.seen()
        tests = _Tests(seen)
        _must_notice_nothing(zygote, TARGETS[0], [seen])
        for name in work.within():
            tell(name, zygote.tries(name, tests.of(name[0], work.mutants[name])))
    for names in work.targets():
        with _Zygote(root, names[0][0]) as zygote:
            _must_notice_nothing(zygote, names[0][0], tests.of(names[0][0], work.mutants[names[0]]))
            for name in names:
                tell(name, zygote.tries(name, tests.of(name[0], work.mutants[name])))


def _must_notice_nothing(zygote: _Zygote, target: str, steps: Sequence[Sequence[Seen]]) -> None:
    """Try the source as it is, in the same way: what is noticed there says nothing of a mutant."""
    answer = zygote.tries((target, UNCHANGED), steps)
    if answer != Answer():
        raise ValueError(f"Something is noticed of {target} though nothing is changed: {answer}")


def _evidence(answer: Answer) -> str:
    file = answer.killer.split("::")[0]
    return digest(file) if file in TESTS else digest_of_all()


def _read(path: Path) -> Iterator[Verdict]:
    for line in path.read_bytes().splitlines() if path.exists() else ():
        try:
            yield msgspec.json.decode(line, type=Verdict)
        except msgspec.MsgspecError:
            # The line that an interruption cut short.
            continue


@contextmanager
def _copy() -> Iterator[Path]:
    """Yield a copy of all that tests import, so that no mutant can reach the files of a person."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        root = Path(folder)
        for name in _COPIED:
            # Compiled files come along: what was compiled once need not be again.
            shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("node_modules", "kept"))
        shutil.copy2(ROOT / "pyproject.toml", root)
        yield root


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn()
    )
