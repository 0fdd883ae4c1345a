"""A PostgreSQL server of a test's own."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from tests.stack_fixtures import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def running_postgres(host: str = "127.0.0.1") -> Iterator[str]:
    """Run a server that trusts whoever reaches `host`; root hands it to the user of Debian's package."""
    # Not below pytest's folder, into which only root may look.
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    owner = [] if os.geteuid() else ["runuser", "-u", "postgres", "--"]
    if owner:
        shutil.chown(folder, "postgres")
    data, port = folder / "data", free_port()
    subprocess.run([*owner, shutil.which("initdb"), "-D", data, "-A", "trust", "-U", "qt"], check=True, cwd="/tmp")
    with (data / "pg_hba.conf").open("a") as rules:
        rules.write("host all all samenet trust\n")
    server = subprocess.Popen(
        [*owner, shutil.which("postgres"), "-D", data, "-p", str(port), "-h", host, "-k", folder], cwd="/tmp"
    )
    ready = [shutil.which("pg_isready"), "-h", host, "-p", str(port), "-t", "60"]
    try:
        for _ in range(300):
            if subprocess.run(ready, check=False, capture_output=True).returncode == 0:
                break
        yield f"postgresql://qt@{host}:{port}/postgres"
    finally:
        server.terminate()
        server.wait(30)
        shutil.rmtree(folder, ignore_errors=True)
