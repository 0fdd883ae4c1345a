"""Every command of qtctl teaches: what it does, how it is called, what its exit status means, what its defaults are."""

from __future__ import annotations

import io
import re
import shlex

import pytest
from cyclopts import App
from rich.console import Console

from feature_store import terminal
from inference import cli
from tests.stack_fixtures import qtctl

PATHS = cli.command_paths()
QTCTL = cli.build(sorted(PATHS), PATHS)


def _leaves(app: App, path: tuple[str, ...] = ()) -> dict[tuple[str, ...], App]:
    below = {name: one for name, one in app.resolved_commands().items() if not name.startswith("-")}
    if not below:
        return {path: app}
    # A command may do something itself and have subcommands: `qtctl features` and `qtctl features profile`.
    own = {path: app} if path and app.default_command is not None else {}
    return own | {key: leaf for name, one in below.items() for key, leaf in _leaves(one, (*path, name)).items()}


LEAVES = _leaves(QTCTL)
GROUPS = ((), ("audit",), ("db",), ("models",), ("policy",), ("sandbox",), ("universe",))
NAMES = [" ".join(path) for path in LEAVES]


def _help(path: tuple[str, ...]) -> str:
    said = io.StringIO()
    # Wide, so that no line is broken: what is tested is what is said.
    QTCTL.help_print(list(path), console=Console(file=said, width=400))
    return said.getvalue()


def _section(shown: str, title: str) -> list[str]:
    _, found, rest = shown.partition(f"\n{title}:\n")
    assert found, f"no section {title!r} in:\n{shown}"
    return [line.strip() for line in rest.split("\n\n")[0].splitlines()]


def _statuses(shown: str) -> dict[int, str]:
    lines = _section(shown, "Exit status")
    return {int(line.split()[0]): line for line in lines if re.match(r"\d+ ", line)}


def test_every_command_is_walked():
    """The tree holds every command and subcommand there is, so that none escapes the tests below."""
    assert {path[0] for path in LEAVES} == set(PATHS)
    assert {("audit", "why"), ("models", "show"), ("sandbox", "fault")} <= set(LEAVES)


@pytest.mark.parametrize("path", [*LEAVES, *GROUPS], ids=" ".join)
def test_help_teaches(path):
    """A sentence on what it does, an example of just this command, and what success, failure and bad usage return."""
    shown = _help(path)
    examples = _section(shown, "Examples")
    statuses = _statuses(shown)

    assert re.search(r"\n\n[A-Z].*\.\n", shown.split("╭")[0])
    assert any(line.startswith(" ".join(["qtctl", *path])) for line in examples)
    assert {0, 1, 2, 130} <= set(statuses)
    assert "bad usage" in statuses[2]


@pytest.mark.parametrize("path", LEAVES, ids=NAMES)
def test_every_option_says_its_default(path):
    """Each option is explained, and what holds when it is left out is said."""
    arguments = LEAVES[path].assemble_argument_collection(parse_docstring=True)
    shown = _help(path).split("╭─ Parameters")[-1].split("╰")[0]
    rows = {row.split()[1]: row for row in shown.splitlines() if re.match(r"│\s+\S*--|│ +[A-Z]+ --", row)}

    assert len(rows) == sum(1 for one in arguments if any(name.startswith("--") for name in one.names))
    for name, row in rows.items():
        text = re.sub(r"\[(default|choices|env var).*?\]", "", row.strip("│ "))
        assert len(text.split()) >= 4, f"{name} is not explained: {row}"
        assert "default" in row, f"{name} does not say its default: {row}"


@pytest.mark.parametrize("path", [*LEAVES, *GROUPS], ids=" ".join)
def test_examples_parse(path):
    """Each example is a command line that qtctl takes as it stands."""
    for line in _section(_help(path), "Examples"):
        program, *tokens = shlex.split(line.split(" | ")[0], comments=True)
        command, bound, _ = QTCTL.parse_args(tokens, exit_on_error=False, print_error=False)

        assert program == "qtctl"
        assert callable(command)
        assert bound is not None


@pytest.mark.parametrize("path", LEAVES, ids=NAMES)
def test_unknown_option_is_the_stated_status(path, capsys):
    """An unknown option returns what the help calls bad usage, in one sentence that names it and the help."""
    status = cli.run([*path, "--no-such-option", "--json"])
    said = capsys.readouterr()

    assert status == terminal.BAD_USAGE
    assert said.err.count("\n") == 1
    assert f"See 'qtctl {' '.join(path)} --help'." in said.err


@pytest.mark.parametrize("path", ["up", "retrain", "worker", "audit why", "models verify", "sandbox fault"])
def test_unknown_option_of_the_real_command(path, tmp_path):
    """The command that a person types answers the same, writes nothing, and shows no traceback."""
    done = qtctl(*path.split(), "--no-such-option", "7", env={"QUANTUM_HOME": str(tmp_path / "home")})

    assert done.returncode == 2
    assert "--no-such-option" in done.stderr or "requires an argument" in done.stderr
    assert f"See 'qtctl {path} --help'." in done.stderr
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert not (tmp_path / "home").exists()
