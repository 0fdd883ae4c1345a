"""Whether what a README names in passing exists: commands, options, targets, paths, settings and words of the code."""

from __future__ import annotations

import functools
import re
import shlex
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from cyclopts import App, CycloptsError
from pydantic import TypeAdapter, ValidationError
from pydantic_settings import BaseSettings

from feature_store.errors import BadInputError
from feature_store.extensions.settings import ViewSettings
from feature_store.venue.budget_place import BudgetPlace
from flows.settings import FlowSettings
from flows.source_settings import SourceSettings
from inference.cli import build, command_paths
from inference.settings import Settings
from inference.storage.settings import StorageSettings

# Programs of any system that the text may speak of.
PROGRAMS = frozenset({"kill"})
SOURCES = ("feature_store", "inference", "flows", "infra", "tests")

_SPAN = re.compile(r"(?<!`)(`+)(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]*)\)")
_ASSIGNED = re.compile(r"([A-Z][A-Z0-9_]*)=(.*)", re.DOTALL)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
_TARGET = re.compile(r"^([A-Za-z][\w-]*):(?!=)")
_MAKE_VARIABLE = re.compile(r"^(?:export )?([A-Z][A-Z0-9_]*)\s*[?:]?=", re.MULTILINE)
_QUOTED = re.compile(r"""["']([\w.-]+)["']""")
_DEFINED = re.compile(r"^\s*(?:async )?def (\w+)\(", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Named:
    """What there is to be named in a repository."""

    root: Path
    targets: frozenset[str]
    variables: frozenset[str]
    words: frozenset[str]
    functions: frozenset[str]


def spans(prose: str) -> tuple[str, ...]:
    """Return the inline code of some prose, in order."""
    return tuple(" ".join(found[2].split()) for found in _SPAN.finditer(prose))


def unknown_names(prose: str, named: Named) -> list[str]:
    """Return a sentence for each name in inline code, and for each relative link, that does not exist."""
    problems = []
    for paragraph in re.split(r"\n\s*\n|\n(?=[|-]|\d+\. |#)", prose):
        if "`" in _SPAN.sub("", paragraph):
            problems.append(f"a stray ` in: {' '.join(paragraph.split())[:80]}")
        for span in spans(paragraph):
            problems += [f"`{span}`: {problem}" for problem in _problems(span, named)]
        for target in _LINK.findall(_SPAN.sub("", paragraph)):
            path = target.partition("#")[0]
            if path and "://" not in path and not _is_inside(path, named.root):
                problems.append(f"link to {target}: there is no such file")
    return problems


def _problems(span: str, named: Named) -> Iterator[str]:
    try:
        words = shlex.split(span)
    except ValueError as error:
        yield f"cannot be typed in: {error}"
        return
    while words and (assigned := _ASSIGNED.fullmatch(words[0])):
        yield from _setting(assigned[1], assigned[2], named)
        words = words[1:]
    if not words:
        return
    match words[0].rpartition("/")[2], words[1:]:
        case "qtctl", arguments:
            yield from _command(arguments)
        case "make", arguments:
            yield from _make(arguments, named)
        case program, [_, *_]:
            if program not in PROGRAMS:
                yield f"{program} is no program that the README may take for granted"
        case _:
            yield from _word(words[0], named)


def _word(word: str, named: Named) -> Iterator[str]:
    if word.startswith("-"):
        if word not in _options():
            yield "no command of qtctl takes this option"
    elif word.endswith("()"):
        if word.removesuffix("()") not in named.functions:
            yield "no function has this name"
    elif "/" in word and ":" not in word:
        if not _is_inside(word, named.root):
            yield "there is no such path"
    elif word.startswith("QT_") or (_VARIABLE.fullmatch(word) and word not in signal.Signals.__members__):
        yield from _setting(word, None, named)
    elif not (
        word in named.words
        or word in named.targets
        or word in command_paths()
        or word in signal.Signals.__members__
        or _is_inside(word, named.root)
    ):
        yield "nothing in the repository has this name"


def _setting(name: str, value: str | None, named: Named) -> Iterator[str]:
    if not name.startswith("QT_"):
        if name not in named.variables and name not in named.words:
            yield f"neither the Makefile nor the code knows {name}"
        elif name == "TESTS" and value and not _is_inside(value, named.root):
            yield f"there is no such path: {value}"
        return
    field = next(
        (
            found
            for one in (FlowSettings, SourceSettings, ViewSettings, BudgetPlace, StorageSettings, Settings)
            if (found := _field(one, name))
        ),
        None,
    )
    if field is None:
        yield f"no setting is called {name}"
    elif value is not None and not _is_accepted(field, value):
        yield f"{name} does not take {value!r}"


def _field(schema: type[BaseSettings], name: str) -> str | None:
    """Return the field that a variable of the environment fills."""
    fields = schema.model_fields.items()
    return next((field for field, one in fields if name in (one.validation_alias, f"QT_{field.upper()}")), None)


def _is_accepted(field: str, value: str) -> bool:
    try:
        if field in FlowSettings.model_fields:
            FlowSettings.of(**{field: value})
        elif field in SourceSettings.model_fields:
            SourceSettings.of(**{field: value}).chosen()
        elif field in ViewSettings.model_fields:
            ViewSettings.of(**{field: value})
        elif field in BudgetPlace.model_fields or field in StorageSettings.model_fields:
            return bool(value)
        else:
            annotation: Any = Settings.model_fields[field].annotation
            TypeAdapter(annotation).validate_python(value)
    except (BadInputError, ValidationError):
        return False
    return True


def _make(arguments: list[str], named: Named) -> Iterator[str]:
    targets = [one for one in arguments if not _ASSIGNED.fullmatch(one)]
    for target in targets:
        if target not in named.targets:
            yield f"the Makefile has no target {target}"
    for assigned in filter(None, map(_ASSIGNED.fullmatch, arguments)):
        if assigned[1] not in named.variables:
            yield f"the Makefile has no variable {assigned[1]}"
        elif assigned[1] == "ARGS" and targets == ["demo"]:
            yield from _command(["demo", *shlex.split(assigned[2])])
        elif assigned[1] == "TESTS":
            yield from _setting("TESTS", assigned[2], named)


def _command(arguments: list[str]) -> Iterator[str]:
    try:
        _qtctl().parse_args(arguments, exit_on_error=False, print_error=False)
    except CycloptsError as error:
        yield str(error)


@functools.cache
def _qtctl() -> App:
    paths = command_paths()
    return build(sorted(paths), paths)


@functools.cache
def _options() -> frozenset[str]:
    return frozenset({"--help", "--version"}.union(*map(_options_of, _apps(_qtctl()))))


def _apps(app: App) -> Iterator[App]:
    yield app
    for name in app:
        if not name.startswith("-"):
            yield from _apps(app[name])


def _options_of(app: App) -> set[str]:
    if app.default_command is None:
        return set()
    return {name for one in app.assemble_argument_collection() for name in one.names}


def _is_inside(path: str, root: Path) -> bool:
    """Whether there is such a path in the repository, and not somewhere else on this machine."""
    if path.startswith(("/", "~")) or ".." in Path(path).parts:
        return False
    return (root / path).exists()


def named_in(root: Path) -> Named:
    """Look at a repository for what its README may name."""
    makefile = (root / "Makefile").read_text()
    sources = [
        path.read_text()
        for folder in SOURCES
        for path in sorted((root / folder).rglob("*.py"))
        # A test of this very check quotes names that do not exist.
        if path.name != "test_readme_names.py"
    ]
    configuration = (root / "prefect.yaml").read_text()
    return Named(
        root=root,
        targets=_targets(root),
        variables=frozenset(_MAKE_VARIABLE.findall(makefile)),
        words=frozenset(word for text in sources for word in _QUOTED.findall(text))
        | frozenset(re.findall(r"^\s*(?:- )?name: (\S+)$", configuration, re.MULTILINE))
        | frozenset(str(value) for field in _literals() for value in field),
        functions=frozenset(name for text in sources for name in _DEFINED.findall(text)),
    )


def _literals() -> Iterator[tuple[object, ...]]:
    for field in FlowSettings.model_fields.values():
        yield get_args(field.annotation)


def _targets(root: Path) -> frozenset[str]:
    """Return the targets that make itself knows, those of pattern rules written out."""
    database = subprocess.run(
        ["make", "--question", "--print-data-base", "--no-builtin-rules", "help"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    ).stdout.splitlines()
    return frozenset(
        found[1]
        for before, line in zip(["", *database], database, strict=False)
        if before != "# Not a target:" and (found := _TARGET.match(line))
    )
