"""A journal decided again by a process of its own: whose sets and mappings hash otherwise."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from inference.journal.reader import read_entries
from inference.journal.replay import replay_decisions

HASH_SEEDS = ("1", "20260")


def begin(path: Path, hash_seed: str) -> subprocess.Popen[str]:
    """Start a process that decides a journal again with another seed of its hashes."""
    return subprocess.Popen(
        [sys.executable, "-m", "infra.prove.replayed_elsewhere", str(path)],
        env={**os.environ, "PYTHONHASHSEED": hash_seed},
        stdout=subprocess.PIPE,
        text=True,
    )


def result_of(process: subprocess.Popen[str]) -> tuple[int, list[int]]:
    """
    Return how many candles a process decided again, and the entries that came out differently.

    Raises:
        ValueError: It did not come to its end.
    """
    told, _ = process.communicate()
    if process.returncode != 0:
        raise ValueError(f"The process that replays ended with {process.returncode}")
    found = json.loads(told)
    return int(found["decided"]), [int(one) for one in found["differing"]]


def main(path: str) -> None:
    """Decide a journal again and print what came of it."""
    decided, deviations = replay_decisions(read_entries(Path(path)))
    sys.stdout.write(json.dumps({"decided": decided, "differing": [one.seq for one in deviations]}))


if __name__ == "__main__":
    main(sys.argv[1])
