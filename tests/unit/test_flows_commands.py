"""The commands of qtctl that run flows teach by example and load nothing heavy to do so."""

from __future__ import annotations

import subprocess
import sys

import pytest

from feature_store.errors import BadInputError
from feature_store.sources.importing import Imports, Selection
from feature_store.sources.kind_importing import KindSelection
from feature_store.sources.kind_opening import open_kinds
from feature_store.sources.opening import open_source
from flows import commands, model_commands
from flows.importing import Brought, told
from flows.wording import figure, flattened, markdown_table, moment

NAMES = ("ingest", "features", "train", "shadow", "promote", "approve", "rollback", "retrain")


@pytest.mark.parametrize("name", NAMES)
def test_help_shows_examples(name, capsys):
    """Each command's help shows how it is called, and says what every parameter means."""
    with pytest.raises(SystemExit) as ended:
        getattr(commands if name in ("ingest", "features") else model_commands, name)(["--help"])
    shown = capsys.readouterr().out

    assert ended.value.code in (0, None)
    assert f"Examples:\n  qtctl {name}" in shown
    assert "--json" in shown


def test_every_command_of_features_says_what_it_does(capsys):
    """The list of commands has a sentence for each of them."""
    commands.features(["--help"], exit_on_error=False, result_action="return_value")
    lines = capsys.readouterr().out.splitlines()
    for name in ("catalogue", "check", "export", "labels", "profile", "query", "skew"):
        assert any(line.split()[1:2] == [name] and len(line.split()) > 5 for line in lines), name


def test_a_reader_that_has_enough_is_no_failure():
    """Output into a pipe whose reader is gone ends with 141 and without a traceback."""
    code = "import sys; from cyclopts import App; from feature_store.terminal import run; app = App()\n"
    code += "@app.default\ndef many():\n    for _ in range(100_000): print('x' * 100)\nsys.exit(run(app, []))"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.stdout.close()
        assert child.stderr is not None
        shown = child.stderr.read()
    assert (child.returncode, shown) == (141, b"")


def test_an_import_of_what_was_imported_says_what_next():
    """Where nothing new came, the next step is named: read again."""
    done = Imports(parts=1, known=1, candles=0, appended=0, series=(), refused=())
    assert "--repair reads those again" in told(Brought(done))


def test_an_empty_place_is_not_the_working_folder(tmp_path, monkeypatch):
    """`--from ""` (an unset shell variable) is refused; it does not read the folder one happens to be in."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInputError, match="is empty"):
        open_source("", selection=Selection(), now_ms=0, days=1)
    with pytest.raises(BadInputError, match="is empty"):
        open_kinds(" ", None, KindSelection(()), now_ms=0, days=1)


def test_help_is_light():
    """Asking for help loads neither Prefect nor MLflow nor torch."""
    code = "import sys, flows.commands, flows.model_commands; heavy = {'prefect', 'mlflow', 'torch', 'pandas'}; "
    code += "print(heavy & set(sys.modules))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    assert result.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--derive", "5m,2m", "--timeframe", "1m"], "2m"),
        (["--derive", "1h", "--timeframe", "5m"], "--timeframe 1m"),
        (["--kinds", "fundin"], "funding"),
        (["--kinds", "funding", "--derive", "5m", "--timeframe", "1m"], "does not go with --kinds"),
        (["--kinds", "funding", "--derive", "5m", "--from", "somewhere"], "does not go with --kinds"),
        (["--sources", "rsss"], "rss"),
    ],
)
def test_what_cannot_be_used_is_told_without_a_server(options, said, tmp_path, monkeypatch):
    """A typing error is told by its name and the choices, before anybody has to start a server."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInputError, match=said):
        commands.ingest(options, exit_on_error=False, result_action="return_value")


def test_a_date_that_is_none_is_told_without_a_server(tmp_path, monkeypatch):
    """`qtctl train --as-of soon` says what a moment looks like before anybody has to start a server."""
    monkeypatch.setenv("QUANTUM_HOME", str(tmp_path))
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    with pytest.raises(BadInputError, match="such as 2026-03-01"):
        model_commands.train(["--as-of", "soon"], exit_on_error=False, result_action="return_value")


def test_unknown_choice_is_usage(capsys):
    """A value that is none of the choices names them and exits with the status for bad usage."""
    with pytest.raises(SystemExit) as ended:
        model_commands.retrain(["--size", "huge"])

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
