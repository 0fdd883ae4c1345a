"""Which tests can run here: what a marker asks for and is absent deselects its tests, and says so."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

# Servers that several rooms' tests share, one of each in a session.
pytest_plugins = ("tests.stack_fixtures",)

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
    "needs_postgres": (lambda: shutil.which("initdb") is not None, "install Debian's package postgresql"),
}

_deselected: dict[str, int] = {}


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect tests whose service is absent; with REQUIRE_ALL=1 an absent service is an error."""
    absent = {name: advice for name, (is_there, advice) in AVAILABLE.items() if not is_there()}
    keep, drop = [], []
    for item in items:
        missing = [name for name in absent if item.get_closest_marker(name)]
        (drop if missing else keep).append(item)
        for name in missing:
            _deselected[name] = _deselected.get(name, 0) + 1
    if drop and os.environ.get("REQUIRE_ALL"):
        wants = "; ".join(f"{name}: {absent[name]}" for name in _deselected)
        raise pytest.UsageError(f"REQUIRE_ALL is set, but some tests cannot run here ({wants})")
    if drop:
        config.hook.pytest_deselected(items=drop)
        items[:] = keep


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what was left out and how to have it."""
    for name, count in _deselected.items():
        terminalreporter.write_line(f"deselected {count} test(s) marked {name}: {AVAILABLE[name][1]}")
