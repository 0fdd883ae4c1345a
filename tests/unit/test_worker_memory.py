"""A process that runs for weeks tells its allocator and its collector so."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

SAID = """
import gc, json
from inference.bootstrap.memory import bound_allocator, settle
told = bound_allocator()
kept = [[number] for number in range(50_000)]
settle()
frozen, tracked = gc.get_freeze_count(), len(gc.get_objects())
cycle = []
cycle.append(cycle)
del cycle
print(json.dumps({"told": told, "frozen": frozen, "tracked": tracked, "found": gc.collect(), "kept": len(kept)}))
"""


def test_what_the_start_made_is_walked_through_no_more():
    """Objects of the start are put aside, cycles made afterwards are found, and the C allocator is bounded."""
    out = subprocess.run([sys.executable, "-c", SAID], capture_output=True, text=True, check=True, timeout=60)
    said = json.loads(out.stdout)

    assert said["frozen"] >= 50_000 == said["kept"]
    assert said["tracked"] < 5_000
    assert said["found"] >= 1
    assert said["told"] == (platform.libc_ver()[0] == "glibc")
