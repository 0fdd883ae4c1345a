"""The rooms of the architecture hold, and the contracts that guard them bite."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("feature_store", "inference", "flows", "infra")
# One line each: an import that must break a contract.
VIOLATIONS = [
    pytest.param("feature_store/candle.py", "import inference.decision", id="candles-know-no-worker"),
    pytest.param("inference/decision.py", "import asyncio", id="decisions-touch-no-io"),
    pytest.param("inference/decision.py", "import ccxt", id="decisions-know-no-venue-client"),
    pytest.param("inference/feed/history.py", "import ccxt", id="nobody-loads-every-exchange"),
    pytest.param(
        "inference/decision.py", "import feature_store.venue.ccxt_package", id="decisions-know-no-light-client-either"
    ),
    pytest.param(
        "inference/worker.py", "import inference.feed.candle_stream", id="the-worker-knows-no-transport-of-candles"
    ),
    pytest.param("inference/worker.py", "import prefect", id="the-worker-knows-no-orchestrator"),
    pytest.param("inference/worker.py", "import duckdb", id="the-worker-opens-no-warehouse"),
    pytest.param("inference/worker.py", "import inference.storage.schema", id="the-worker-knows-no-tables"),
    pytest.param("inference/telemetry/story.py", "import sqlalchemy", id="one-door-to-sqlalchemy"),
    pytest.param("flows/ingest.py", "import mlflow", id="one-door-to-mlflow"),
    pytest.param("flows/training/labels.py", "import prefect", id="training-knows-no-orchestrator"),
    pytest.param("flows/train.py", "import inference.execution.executor", id="flows-never-trade"),
    pytest.param("infra/sandbox/engine/__init__.py", "import asyncio", id="the-matching-engine-is-pure"),
    pytest.param("infra/sandbox/server.py", "import inference.domain.order", id="the-exchange-knows-no-worker"),
]


def _lint(root: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run([program, "--no-cache"], cwd=root, capture_output=True, text=True, timeout=120, check=False)


@pytest.fixture(scope="module")
def copy_of_tree(tmp_path_factory) -> Path:
    """Return a copy of the packages and pyproject.toml that a test may spoil."""
    target = tmp_path_factory.mktemp("tree")
    for package in PACKAGES:
        shutil.copytree(ROOT / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", target)
    return target


def test_contracts_hold():
    """Every import in the repository goes the way the architecture says."""
    result = _lint(ROOT)

    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize(("module", "line"), VIOLATIONS)
def test_contracts_bite(copy_of_tree, module, line):
    """A single wrong import breaks a contract."""
    path = copy_of_tree / module
    original = path.read_text()
    path.write_text(original + f"\n{line}\n")
    try:
        result = _lint(copy_of_tree)
    finally:
        path.write_text(original)

    assert result.returncode != 0, f"{line} in {module} was not noticed"


def test_candles_are_asked_for_behind_the_facade_alone():
    """In the worker no module but the feed's, and the one that tells ccxt's connections apart, names a candle call."""
    names = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "inference").rglob("*.py")
        if re.search(r"(watch|fetch)_ohlcv", path.read_text())
    }

    assert names == {
        "inference/exchange/candle_connections.py",
        "inference/feed/history.py",
    }


@pytest.mark.parametrize(
    "line",
    [
        "import time\n\nNOW = time.time()",
        "import time\n\nNOW = time.time_ns()",
        "import time\n\nNOW = time.monotonic()",
        "import time as clock\n\nNOW = clock.strftime('%Y')",
        "from time import time\n\nNOW = time()",
        "from datetime import UTC, datetime\n\nNOW = datetime.now(UTC)",
        "import datetime as dt\n\nNOW = dt.date.today()",
    ],
)
@pytest.mark.parametrize("place", ["inference/decision.py", "flows/ingest.py", "infra/sandbox/clock.py"])
def test_only_one_module_reads_the_wall_clock(place, line):
    """A look at the wall clock is refused by the linter anywhere but in the one module that may."""
    program = Path(sys.executable).with_name("ruff")

    def found(name: str) -> int:
        command = [program, "check", "--quiet", "--no-cache", "--select", "TID251", "--stdin-filename", name, "-"]
        return subprocess.run(command, cwd=ROOT, input=line, capture_output=True, text=True, check=False).returncode

    assert found(place) == 1
    assert found("feature_store/clock.py") == 0


def test_every_exception_of_the_linter_has_its_reason():
    """No rule is ignored without a word on why."""
    settings = (ROOT / "pyproject.toml").read_text().split("[tool.ruff.lint]")[1].split("[tool.ruff.lint.flake8")[0]
    rules = [line for line in settings.splitlines() if re.match(r'\s+"[A-Z]+[0-9]*",|"[^"]+" = \[.*\]', line)]

    assert len(rules) > 20
    assert [line for line in rules if not re.search(r"# \w.{6,}\.$", line)] == []


def test_mlflow_folder_does_not_shadow_the_library():
    """`import mlflow` finds the library even from the repository root."""
    assert not (ROOT / "mlflow" / "__init__.py").exists()
    assert not (ROOT / "mlflow.py").exists()

    out = subprocess.run(
        [sys.executable, "-c", "import importlib.util as u; print(u.find_spec('mlflow').origin)"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )

    assert "site-packages" in out.stdout


def test_no_flow_takes_the_name_of_a_library():
    """Prefect puts the folder of a flow's file first on the path: flows/profile.py would be cProfile's `profile`."""
    names = {path.stem for path in (ROOT / "flows").iterdir() if path.suffix == ".py" or path.is_dir()}
    libraries = set(sys.stdlib_module_names) | set(packages_distributions()) | {"coverage"}

    assert names & libraries <= {"__init__", "__pycache__"}


@pytest.mark.parametrize("package", PACKAGES)
def test_package_files_hold_a_docstring_and_nothing_else(package):
    """Importing a package loads nothing by surprise."""
    for path in (ROOT / package).rglob("__init__.py"):
        body = ast.parse(path.read_text()).body

        assert len(body) == 1, path
        assert isinstance(body[0], ast.Expr), path


def _helpers_that_assert(tree: ast.Module) -> set[str]:
    """Return the module's own functions that hold an assertion, for tests to call."""
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {one.name for one in functions if any(isinstance(node, ast.Assert) for node in ast.walk(one))}


def _can_fail(test: ast.AST, helpers: set[str]) -> bool:
    for node in ast.walk(test):
        if isinstance(node, ast.Assert):
            return True
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            if name in helpers or "raises" in name or name.split(".")[-1].startswith(("assert_", "check_")):
                return True
    return False


def test_every_test_states_its_claim_and_asserts():
    """Each test has a docstring, and something in it can fail."""
    for path in (ROOT / "tests").rglob("test_*.py"):
        tree = ast.parse(path.read_text())
        helpers = _helpers_that_assert(tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
                where = f"{path.relative_to(ROOT)}:{node.lineno} {node.name}"

                assert ast.get_docstring(node), f"{where} has no docstring"
                assert _can_fail(node, helpers), f"{where} asserts nothing"


def test_nothing_unpickles_or_evaluates():
    """No module of the product can run code from a file it reads."""
    banned = re.compile(r"\b(pickle|joblib|cloudpickle)\.loads?\(|\btorch\.load\(|(?<![\w.])(eval|exec)\(")
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for number, line in enumerate(path.read_text().splitlines(), 1):
                code = line.split("#")[0]

                assert not banned.search(code), f"{path}:{number}: {line}"
