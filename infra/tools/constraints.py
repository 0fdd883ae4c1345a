"""Write constraints.txt: one exact version for everything that pyproject.toml asks for, extras included."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

HEADER = "# Every version that works together. Made by 'make constraints'; used by every install.\n"
EXTRAS = "pipeline,s3,api,redis,postgres,storage,ray,dev"
# The CUDA packages of a GPU build of PyTorch follow torch itself and differ by machine.
MACHINE_PREFIXES = ("nvidia-", "cuda-", "triton")


def resolve(root: Path, *, keep: Path | None) -> list[str]:
    """Return sorted `name==version` lines from pip's own resolver, without installing anything."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--ignore-installed"]
        if keep is not None:
            command += ["-c", str(keep)]
        subprocess.run([*command, "--report", str(report), f"{root}[{EXTRAS}]"], check=True)
        installs = json.loads(report.read_text())["install"]
    lines = set()
    for item in installs:
        name, version = item["metadata"]["name"], item["metadata"]["version"].split("+")[0]
        if name != "quantum-trader" and not name.startswith(MACHINE_PREFIXES):
            lines.add(f"{name}=={version}")
    return sorted(lines, key=str.lower)


def main() -> int:
    """Resolve and write; `--upgrade` forgets the versions held today."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--upgrade", action="store_true", help="take the newest versions pyproject.toml allows")
    arguments = parser.parse_args()
    root = Path(__file__).resolve().parents[2]
    target = root / "constraints.txt"
    keep = None if arguments.upgrade or not target.exists() else target
    lines = resolve(root, keep=keep)
    target.write_text(HEADER + "\n".join(lines) + "\n")
    sys.stdout.write(f"constraints.txt holds {len(lines)} versions\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
