from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PURE = [
    "inference/decision.py",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "inference" / "domain").glob("*.py")),
    *(
        str(path.relative_to(ROOT))
        for room in ("risk", "exits", "portfolio")
        for path in sorted((ROOT / "inference" / room).glob("*.py"))
    ),
    "inference/execution/book.py",
    "inference/execution/client_order_id.py",
    "inference/execution/lifecycle.py",
    "inference/execution/next_step.py",
    "inference/execution/reconcile.py",
    "inference/execution/result.py",
    "inference/supervision/prediction_quality.py",
    "inference/supervision/signal_bias.py",
]
SHELL = {"asyncio", "logging", "os", "random", "socket", "threading", "time", "structlog", "ccxt", "aiohttp"}


@pytest.mark.parametrize("path", PURE)
def test_the_core_imports_nothing_that_acts(path):
    """What decides has no clock, no network, no files, no tasks and no chance in reach."""
    tree = ast.parse((ROOT / path).read_text())
    imported = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }

    assert imported & SHELL == set()


def test_deciding_loads_no_event_loop_and_no_venue():
    """A fresh interpreter that can decide and rebuild a book has loaded neither asyncio nor ccxt nor numpy."""
    script = (
        "import sys, inference.decision, inference.execution.book, inference.execution.reconcile;"
        "print(sorted({'asyncio', 'ccxt', 'aiohttp', 'numpy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=60, check=True
    )

    assert done.stdout.strip() == "[]"
