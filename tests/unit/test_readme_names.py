"""What the README names in passing exists, and a name that does not is found."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from infra.prove.readme_names import named_in, spans, unknown_names
from infra.prove.readme_text import read

ROOT = Path(__file__).resolve().parents[2]
README = read((ROOT / "README.md").read_text())


@pytest.fixture(scope="module")
def named():
    """Return what this repository has."""
    return named_in(ROOT)


def test_readme_shows_nothing_that_is_not_run():
    """Every block of the README is run, and each of its commands promises something."""
    assert README.faults == ()
    assert len(README.steps) >= 10


def test_every_name_in_the_readme_exists(named):
    """Commands with their options, targets, paths, settings and links of the README are real."""
    assert unknown_names(README.prose, named) == []
    assert len(spans(README.prose)) > 50


def test_readme_names_every_proof(named):
    """The table of claims holds each proof that the Makefile can run, and no other."""
    shown = set(re.findall(r"^\| `make (prove-[a-z-]+)` \|", README.prose, re.MULTILINE))

    assert shown == {target for target in named.targets if target.startswith("prove-")}


@pytest.mark.parametrize(
    "span",
    [
        "qtctl audit why BTC/USDT:USDT",
        ".venv/bin/qtctl up --services sandbox,mlflow",
        "QT_VENUE=binanceusdm qtctl ingest --days 30",
        "qtctl --help",
        "make",
        "make demo",
        'make demo ARGS="--fresh --replay FOLDER"',
        "make prove-kill-worker SIZE=ci",
        "make test TESTS=tests/golden",
        "--once",
        "QT_MODE=sandbox",
        "QT_SYMBOLS=BTC/USDT:USDT,ETH/USDT:USDT",
        "QUANTUM_HOME",
        "MARKET_DATA_DIR",
        "SIZE=ci",
        "infra/adr/",
        "prefect.yaml",
        "prove-readme",
        "binanceusdm",
        "champion",
        "decide()",
        "SIGTERM",
        "kill -9",
    ],
)
def test_real_names_are_known(span, named):
    """Each kind of name that a README uses is understood."""
    assert unknown_names(f"Say `{span}` here.", named) == []


@pytest.mark.parametrize(
    "span",
    [
        "qtctl trade",
        "qtctl audit whence BTC/USDT:USDT",
        "qtctl audit why",
        "qtctl ingest --dais 30",
        "qtctl ingest --days soon",
        "qtctl ingest --venue nyse",
        "QT_VENUE=nyse qtctl ingest",
        "QT_VENEU=binanceusdm qtctl ingest",
        "make deploy",
        "make tests",
        "make prove-profit",
        "make demo SPEED=2",
        "make test TESTS=tests/nothing",
        'make demo ARGS="--onse"',
        "--onse",
        "QT_COLOUR",
        "QT_MODE=casino",
        "QT_DAYS=0",
        "NO_SUCH_THING",
        "TESTS=tests/nothing",
        "infra/adr/0000-nothing.md",
        "../main/README.md",
        "/etc/passwd",
        "NOTHING.md",
        "prove-profit",
        "no-such-word-anywhere",
        "no_such_function()",
        "docker compose up",
        "qtctl 'unfinished",
    ],
)
def test_names_of_nothing_are_found(span, named):
    """A misspelled or invented name is a problem that names it."""
    problems = unknown_names(f"Say `{span}` here.", named)

    assert problems
    assert all(span.split("'")[0] in problem for problem in problems)


def test_links_and_marks_are_checked(named):
    """A link must lead to a file, a mark that opens code must close it; addresses elsewhere are left alone."""
    assert unknown_names("[a](infra/adr/) [b](https://example.org/x) [c](#top)", named) == []
    assert unknown_names("[a](infra/nothing.md#part)", named) == [
        "link to infra/nothing.md#part: there is no such file"
    ]
    assert unknown_names("A `stray mark.\n\nAnd `champion` after it.", named) == ["a stray ` in: A `stray mark."]


def test_code_of_several_marks_is_read():
    """Two marks hold code with one mark in it, and a line's end in code is a space."""
    assert spans("``a ` b`` and `make\ndemo`") == ("a ` b", "make demo")
