"""What a run says that it took of its machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time

from flows.resources import Meter, peak_memory_mb


def _works(seconds: float) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def test_work_is_measured_and_waiting_is_not():
    """Processor time is what was computed; a share of it, of all cores, lies from none to all."""
    busy, idle = Meter.start(), None
    _works(0.3)
    busy = busy.figures()
    idle = Meter.start()
    time.sleep(0.3)
    idle = idle.figures()

    assert busy["cpu_seconds"] >= 0.25
    assert idle["cpu_seconds"] < busy["cpu_seconds"]
    assert 0 <= idle["cpu_share"] < busy["cpu_share"] <= 1


def test_processes_that_it_started_count():
    """A member that is fitted in a process of its own is part of what the training took."""
    meter = Meter.start()
    code = "import time\nwhile time.process_time() < 0.5: pass"
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ)
    found = meter.figures()

    assert found["cpu_seconds"] >= 0.45
    assert found["peak_memory_mb"] == peak_memory_mb() > 1
