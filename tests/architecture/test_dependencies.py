"""What the code imports is what pyproject.toml declares, at pinned versions."""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from importlib.metadata import packages_distributions, version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
OURS = {"feature_store", "inference", "flows", "infra", "tests"}
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def canonical(requirement: str) -> str:
    name = re.split(r"[\[<>=!~; ]", requirement, maxsplit=1)[0]
    return re.sub(r"[-_.]+", "-", name).lower()


BASE = {canonical(one) for one in PROJECT["dependencies"]}
DECLARED = {
    # PostgreSQL's library is asked for only where a lease or tables are kept there, and the rest only for tables.
    "inference": BASE
    | {canonical(one) for extra in ("postgres", "storage") for one in PROJECT["optional-dependencies"][extra]},
    "feature_store": BASE
    | {canonical(one) for extra in ("pipeline", "s3") for one in PROJECT["optional-dependencies"][extra]},
    "flows": BASE
    | {canonical(one) for extra in ("pipeline", "ray") for one in PROJECT["optional-dependencies"][extra]},
    "mlflow": BASE | {canonical(one) for one in PROJECT["optional-dependencies"]["pipeline"]},
    "infra/sandbox": BASE | {canonical(one) for one in PROJECT["optional-dependencies"]["pipeline"]},
    "infra/stack": BASE,
    "infra/prove": BASE | {canonical(one) for extra in PROJECT["optional-dependencies"].values() for one in extra},
    "tests": BASE | {canonical(one) for extra in PROJECT["optional-dependencies"].values() for one in extra},
}


def imported(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {one.name.split(".")[0] for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names.add(node.module.split(".")[0])
    return names - set(sys.stdlib_module_names) - OURS


@pytest.mark.parametrize("package", DECLARED)
def test_every_direct_import_is_declared(package):
    """No package of ours leans on a library that arrives only because another one needs it."""
    distributions = packages_distributions()
    for path in (ROOT / package).rglob("*.py"):
        for name in imported(path):
            offered = {canonical(one) for one in distributions.get(name, [name])}

            assert offered & DECLARED[package], f"{path.relative_to(ROOT)} imports {name}, which is not declared"


def test_constraints_pin_what_is_installed():
    """The environment that runs the tests holds the very versions of constraints.txt."""
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")
    )

    assert all("==" not in value and value for value in pinned.values())
    for requirement in sorted(DECLARED["tests"]):
        held = {canonical(name): value for name, value in pinned.items()}
        assert requirement in held, f"{requirement} is declared but not pinned; run 'make constraints'"
        assert version(requirement).split("+")[0] == held[requirement]
