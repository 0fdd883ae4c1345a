"""The commands of qtctl that run flows teach by example and load nothing heavy to do so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from flows import commands
from flows.wording import figure, flattened, markdown_table, moment

NAMES = ("ingest", "features", "train", "shadow", "promote", "rollback", "retrain")


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_examples(name, capsys):
    """Each command's help shows how it is called, and says what every parameter means."""
    with pytest.raises(SystemExit) as ended:
        getattr(commands, name)(["--help"])
    shown = capsys.readouterr().out

    assert ended.value.code in (0, None)
    assert f"Examples:\n  qtctl {name}" in shown
    assert "--json" in shown


def test_help_is_light():
    """Asking for help loads neither Prefect nor MLflow nor torch."""
    code = "import sys, flows.commands; print({'prefect', 'mlflow', 'torch', 'pandas'} & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert result.stdout.strip() == "set()"


def test_unknown_choice_is_usage(capsys):
    """A value that is none of the choices names them and exits with the status for bad usage."""
    with pytest.raises(SystemExit) as ended:
        commands.retrain(["--size", "huge"])

    assert ended.value.code not in (0, None)
    shown = capsys.readouterr()
    assert '"tiny"' in shown.err + shown.out


@pytest.mark.parametrize(
    ("value", "shown"), [(None, "-"), (float("nan"), "-"), (0.123456, "0.1235"), (1234.0, "1234"), (0, "0")]
)
def test_figures(value, shown):
    """Numbers show some significant digits; what is missing is a dash, never a zero."""
    assert figure(value) == shown


def test_moment():
    """Moments read in UTC, to the minute."""
    assert moment(1_767_571_200_000) == "2026-01-05 00:00"
    assert moment(None) == "-"


def test_table_cells_cannot_break_the_table():
    """A bar inside a cell does not become a column."""
    assert markdown_table(("a", "b"), [("x|y", 1)]).splitlines()[-1] == "| x/y | 1 |"


def test_flattened():
    """Nested parameters get dotted names, lists one text."""
    assert flattened({"a": {"b": 1, "c": {"d": 2}}, "e": [1, 2]}) == {"a.b": 1, "a.c.d": 2, "e": "1,2"}
