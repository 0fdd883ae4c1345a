"""Which tests can run here: what a marker asks for and is absent deselects its tests, and says so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from tests.network_support import can_make_networks

# Servers that several rooms' tests share, one of each in a session, and tables that several files fill.
pytest_plugins = ("tests.stack_fixtures", "tests.storage_fixtures")

# How long an example takes says how busy the machine is, and nothing of what is claimed.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


def _has_market_data() -> bool:
    folder = os.environ.get("MARKET_DATA_DIR")
    return bool(folder) and any(Path(folder).glob("*.parquet"))


AVAILABLE = {
    "needs_market_data": (_has_market_data, "set MARKET_DATA_DIR to a folder of recorded candles"),
    "needs_chromium": (lambda: shutil.which("chromium") is not None, "install Debian's package chromium"),
    "needs_systemd": (lambda: shutil.which("systemd-analyze") is not None, "install Debian's package systemd"),
    "needs_redis": (lambda: shutil.which("redis-server") is not None, "install Debian's package redis-server"),
    "needs_namespaces": (can_make_networks, "run as root with iproute2, where namespaces of the network can be made"),
    "needs_postgres": (lambda: shutil.which("initdb") is not None, "install Debian's package postgresql"),
}

# Files that take longest come first, so that no process of tests is left alone with one of them at the end.
LONGEST = (
    "fault/test_demo_recovery.py",
    "integration/test_worker_process.py",
    "integration/test_flows_retrain.py",
    "integration/test_demo_end_to_end.py",
    "integration/test_cli_bad_input.py",
    "integration/test_flows_failures.py",
    "integration/test_flows_promote.py",
    "integration/test_feed_live.py",
    "integration/test_worker_models.py",
    "integration/test_single_writer.py",
    "unit/test_feature_proofs.py",
    "integration/test_features_machine_code.py",
    "integration/test_backtest_wire.py",
    "fault/test_budget_processes.py",
)

_deselected: dict[str, int] = {}
_REFUSED = pytest.StashKey[str]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests whose service is absent; with REQUIRE_ALL=1 that is an error, but for what MAY_LACK names."""
    absent = {name: advice for name, (is_there, advice) in AVAILABLE.items() if not is_there()}
    excused = set(os.environ.get("MAY_LACK", "").split()) if os.environ.get("REQUIRE_ALL") else set(absent)
    keep, drop, refused = [], [], []
    for item in items:
        missing = [name for name in absent if item.get_closest_marker(name)]
        (keep if not missing else drop if excused.issuperset(missing) else refused).append(item)
        for name in missing:
            _deselected[name] = _deselected.get(name, 0) + 1
    if refused:
        reason = "; ".join(f"{name}: {absent[name]}" for name in _deselected if name not in excused)
        reason = f"REQUIRE_ALL is set, but some tests cannot run here ({reason})"
        if not hasattr(config, "workerinput"):
            raise pytest.UsageError(reason)
        # One of several processes cannot refuse the run in words: its tests say it.
        for item in refused:
            item.stash[_REFUSED] = reason
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep + refused
    items.sort(key=_place)


def _place(item: pytest.Item) -> int:
    """Return which turn the file of a test has; within one, and among all others, tests stay in their order."""
    name = item.path.relative_to(Path(__file__).parent).as_posix()
    return LONGEST.index(name) if name in LONGEST else len(LONGEST)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Fail a test that cannot run where all are required."""
    if _REFUSED in item.stash:
        pytest.fail(item.stash[_REFUSED], pytrace=False)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Tell the process that prints the summary what this one left out."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["deselected"] = dict(_deselected)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over what a process of tests left out; all of them collect the same."""
    _deselected.update(getattr(node, "workeroutput", {}).get("deselected", {}))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out and how to have it."""
    for name, count in _deselected.items():
        terminalreporter.write_line(f"deselected {count} test(s) marked {name}: {AVAILABLE[name][1]}")
