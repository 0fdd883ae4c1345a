"""A tuning that is killed at random moments: as many trials as were asked for, none lost and none twice."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from feature_store.clock import monotonic
from flows.tuning.studies import Place, bury, open_study, tried
from infra.prove.proof import Proof, Size
from infra.prove.stage import ROOT

TRIALS = {Size.FULL: 120, Size.CI: 10}
KILLS = {Size.FULL: 20, Size.CI: 2}
_SEARCH = """
import sys
from pathlib import Path
from msgspec.structs import replace
from flows.training.config import TrainingConfig
from flows.tuning.search import Task, search
from flows.tuning.space import Space
from flows.tuning.studies import Place
from infra.prove.gate_markets import synthetic_frames

if __name__ == "__main__":
    folder, trials = Path(sys.argv[1]), int(sys.argv[2])
    base = TrainingConfig(created_at="1970-01-01T00:00:00+00:00", code_version="prove", evaluation_stride=6)
    frames, _truth = synthetic_frames(4, 8, 0.45, 3)
    task = Task(base=replace(base, members=("xgboost",)), space=Space(), frames={"forward": frames})
    search(Place(name="proof", folder=folder), task, trials=trials, processes=2, progress=lambda _step, _share: None)
"""


def prove(size: Size) -> Proof:
    """Search with two processes, kill everything at random, and begin again until the study is whole."""
    wanted, rng = TRIALS[size], random.Random(7)
    with tempfile.TemporaryDirectory(prefix="tuning-") as name:
        folder = Path(name)
        place, script = Place(name="proof", folder=folder), folder / "search.py"
        script.write_text(_SEARCH)
        kills, seen = 0, 0
        while True:
            running = _begin(script, folder, wanted)
            aim = wanted * (kills + 1) // (KILLS[size] + 1) if kills < KILLS[size] else None
            if aim is None:
                status = running.wait(timeout=1800)
                break
            _wait_for(place, aim, running)
            time.sleep(rng.uniform(0.0, 0.4))
            _kill(running)
            kills += 1
            seen = max(seen, len(tried(open_study(place))))
        study = open_study(place)
        left = bury(study)
        counted = tried(study)
        numbers = Counter(one.number for one in counted)
        again = [one for one in study.trials if "died" in one.user_attrs]
        states = Counter(one.state.name for one in study.trials)
        fine = status == 0 and len(counted) == wanted and max(numbers.values()) == 1 and left == 0
    return Proof(
        name="tuning",
        figure=f"{len(counted)} trials of {wanted} after {kills} kills of all processes; {len(again)} choices of dead"
        f" processes tried again, {left} left open, exit {status}",
        bar="exactly as many as were asked for, none left open",
        holds=fine,
        details=(
            f"{seen} trials were whole at the last kill",
            f"states: {dict(states)}",
        ),
    )


def _begin(script: Path, folder: Path, trials: int) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(script), str(folder), str(trials)]
    return subprocess.Popen(command, cwd=ROOT, env=environment, start_new_session=True)


def _wait_for(place: Place, count: int, running: subprocess.Popen[bytes]) -> None:
    until = monotonic() + 600
    while len(tried(open_study(place))) < count and running.poll() is None:
        if monotonic() > until:
            raise TimeoutError(f"The search made no {count} trials within ten minutes")
        time.sleep(0.1)


def _kill(running: subprocess.Popen[bytes]) -> None:
    """Kill the search and its processes, which are of one session."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(running.pid, signal.SIGKILL)
    running.wait(60)
