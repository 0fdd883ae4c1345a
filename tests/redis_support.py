"""A real Redis server of a test's own, on a socket in its folder."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def running_redis(folder: Path) -> Iterator[str]:
    """Start `redis-server` without files and without a port; yield its address, end it with the block."""
    # A path of a socket may be 108 characters long, a folder of pytest longer.
    link = Path("/tmp") / f"redis-{folder.stat().st_ino}"
    link.unlink(missing_ok=True)
    link.symlink_to(folder)
    process = start_redis(link / "redis.sock")
    try:
        yield f"unix://{link / 'redis.sock'}"
    finally:
        process.kill()
        process.wait()
        link.unlink(missing_ok=True)


def start_redis(socket: Path) -> subprocess.Popen[bytes]:
    """Start a server on a socket and wait until it is there."""
    options = ["--port", "0", "--unixsocket", str(socket), "--save", "", "--appendonly", "no"]
    process = subprocess.Popen(["redis-server", *options], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for _ in range(600):
        if socket.exists():
            return process
        time.sleep(0.05)
    process.kill()
    raise RuntimeError("redis-server did not start within 30 s")
