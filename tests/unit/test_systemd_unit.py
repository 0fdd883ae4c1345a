"""The worker as a service: its unit is sound, and readiness reaches the manager."""

from __future__ import annotations

import configparser
import socket
import subprocess
from pathlib import Path

import pytest

from inference.supervision.service_manager import ServiceManager

FOLDER = Path(__file__).resolve().parents[2] / "infra" / "systemd"
UNITS = ("quantum-worker.service", "quantum-shadow.service")
BACKUP = ("quantum-backup.service", "quantum-backup.timer")


def sections(name: str) -> configparser.ConfigParser:
    """Return a unit's sections."""
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str
    parser.read(FOLDER / name)
    return parser


@pytest.fixture(params=UNITS)
def unit(request) -> configparser.ConfigParser:
    """Return each unit's sections."""
    return sections(request.param)


@pytest.mark.needs_systemd
@pytest.mark.parametrize("name", [*UNITS, *BACKUP])
def test_systemd_accepts_the_unit(name):
    """`systemd-analyze verify` has nothing to say against it."""
    command = ["systemd-analyze", "verify", FOLDER / name]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)

    assert done.returncode == 0, done.stderr
    assert name not in done.stderr, done.stderr


def test_a_shadow_worker_gets_no_key_and_gives_way():
    """It reads the worker's settings without its key, shares its home, and goes first where memory is short."""
    worker, shadow = ((FOLDER / name).read_text() for name in UNITS)

    assert "worker.key" in worker.split("[Service]")[1]
    assert "worker.key" not in shadow.split("[Service]")[1]
    assert sections(UNITS[0])["Service"]["User"] == sections(UNITS[1])["Service"]["User"]
    assert int(sections(UNITS[1])["Service"]["OOMScoreAdjust"]) > int(sections(UNITS[0])["Service"]["OOMScoreAdjust"])


def test_backups_are_made_daily_by_the_worker_s_user_and_give_way():
    """Each day, of the worker's home and as its user, a fortnight of them; what trades goes first."""
    worker, service = (sections(name)["Service"] for name in (UNITS[0], BACKUP[0]))

    assert sections(BACKUP[1])["Timer"]["OnCalendar"].startswith("*-*-*")
    assert service["User"] == worker["User"]
    assert worker["StateDirectory"] in service["StateDirectory"].split()
    assert "inference.cli backup" in service["ExecStart"]
    assert service["ExecStart"].endswith("--keep 14")
    assert int(service["OOMScoreAdjust"]) > int(worker["OOMScoreAdjust"])
    assert service["ProtectSystem"] == "strict"


def test_unit_restarts_watches_limits_and_hardens(unit):
    """The unit restarts after a failure, not after bad settings; it has a watchdog, a memory limit and few rights."""
    service = unit["Service"]

    assert service["Type"] == "notify"
    assert service["Restart"] == "on-failure"
    assert service["RestartPreventExitStatus"] == "2"
    assert int(service["WatchdogSec"]) >= 10
    assert service["MemoryMax"].endswith("M")
    assert service["ProtectSystem"] == "strict"
    assert service["NoNewPrivileges"] == "yes"
    assert service["CapabilityBoundingSet"] == ""


@pytest.mark.parametrize("abstract", [False, True], ids=["path", "abstract"])
def test_readiness_reaches_the_socket_it_was_given(tmp_path, abstract):
    """Ready, alive and stopping are said in sd_notify's words, over a path or an abstract name."""
    address = "\0quantum-test-notify" if abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(address)
        listener.settimeout(60)
        manager = ServiceManager({"NOTIFY_SOCKET": address.replace("\0", "@"), "WATCHDOG_USEC": "30000000"})
        manager.ready("following candles")
        manager.alive("ACTIVE")
        manager.stopping()
        said = [listener.recv(256).decode() for _ in range(3)]

    assert said == ["READY=1\nSTATUS=following candles", "WATCHDOG=1\nSTATUS=ACTIVE", "STOPPING=1"]
    assert manager.watchdog_seconds == 30


def test_without_a_manager_nothing_is_sent(tmp_path):
    """Started by hand, or with a manager that went away, the worker says nothing and does not fail."""
    ServiceManager({}).ready("x")
    gone = ServiceManager({"NOTIFY_SOCKET": str(tmp_path / "nobody")})

    gone.alive("x")

    assert gone.watchdog_seconds is None
