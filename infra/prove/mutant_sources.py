"""What is changed by mutants, which tests claim something of it, and all that such a test depends on."""

from __future__ import annotations

import ast
import hashlib
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_ROOMS = ("inference/risk", "inference/exits")
TARGETS = (
    *sorted(
        path.relative_to(ROOT).as_posix()
        for room in _ROOMS
        for path in (ROOT / room).glob("*.py")
        if path.name != "__init__.py"
    ),
    "inference/decision.py",
    "inference/execution/lifecycle.py",
)
"""Files that decide what may be traded, how much of it, where it ends, and what an order is: by their paths."""

TESTS = (
    "tests/golden/test_decision_golden.py",
    "tests/property/test_breaker_rules.py",
    "tests/property/test_constraints.py",
    "tests/property/test_decision_invariants.py",
    "tests/property/test_emergency_rules.py",
    "tests/property/test_exit_brain.py",
    "tests/property/test_exits_compiled.py",
    "tests/property/test_lifecycle_reports.py",
    "tests/property/test_ranking_in_chain.py",
    "tests/property/test_risk_invariants.py",
    "tests/property/test_signal_bias.py",
    "tests/unit/test_breaker_boundaries.py",
    "tests/unit/test_chain_compared.py",
    "tests/unit/test_constraints_compared.py",
    "tests/unit/test_committee_in_chain.py",
    "tests/unit/test_emergency_boundaries.py",
    "tests/unit/test_execution_errors.py",
    "tests/unit/test_exit_barriers.py",
    "tests/unit/test_exit_lines.py",
    "tests/unit/test_exit_profiles.py",
    "tests/unit/test_exit_rows.py",
    "tests/unit/test_limits_compared.py",
    "tests/unit/test_order_states.py",
    "tests/unit/test_rare_risk_states.py",
    "tests/unit/test_sizes_compared.py",
)
"""Files of tests whose claims are of the targets; of these a mutant meets the tests that run its lines."""

_OURS = ("feature_store", "flows", "inference", "infra", "tests")
CONFTEST = "tests/conftest.py"
_SETTINGS = "pyproject.toml"


def module_name(path: str) -> str:
    """Return the name by which a file is imported."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


@cache
def closure(path: str) -> frozenset[str]:
    """Return a file and all files of ours that it imports, however far away, by their paths."""
    found, waiting = set[str](), [path]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += imported(one)
    return frozenset(found)


@cache
def digest(path: str) -> str:
    """Return a digest of a file of tests and of everything that its outcome depends on, libraries aside."""
    files = {*closure(path), *closure(CONFTEST), _SETTINGS}
    told = hashlib.sha256()
    for one in sorted(files):
        told.update(one.encode())
        told.update(hashlib.sha256((ROOT / one).read_bytes()).digest())
    return told.hexdigest()[:16]


@cache
def imported(path: str) -> tuple[str, ...]:
    """Return the files of ours that a file imports itself, by their paths."""
    names: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / path).read_bytes())):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names |= {node.module, *(f"{node.module}.{one.name}" for one in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and node.value.startswith("tests."):
            # As pytest's plugins are named.
            names.add(node.value)
    return tuple(file for name in sorted(names) if name.split(".")[0] in _OURS for file in _files(name))


def _files(name: str) -> list[str]:
    """Return the file of a module and those of the packages that it lies in."""
    parts = name.split(".")
    found = []
    for length in range(1, len(parts) + 1):
        place = "/".join(parts[:length])
        found += [one for one in (f"{place}.py", f"{place}/__init__.py") if (ROOT / one).is_file()]
    return found


@cache
def digest_of_all() -> str:
    """Return a digest of all files of tests and of what their outcome depends on."""
    return hashlib.sha256(" ".join(digest(one) for one in TESTS).encode()).hexdigest()[:16]
