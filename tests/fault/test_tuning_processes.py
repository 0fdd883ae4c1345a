"""A study of several processes: exactly as many trials as were asked for, whatever dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from optuna.trial import TrialState

from feature_store.errors import BadInputError
from flows.training.config import TrainingConfig
from flows.tuning.search import Task, search
from flows.tuning.space import Space
from flows.tuning.studies import Place, best, bury, claim, open_study, tried
from tests.stack_fixtures import ROOT, free_port
from tests.training_support import make_frames

_CLAIMS = """
import sys, time
from pathlib import Path
from optuna.trial import TrialState
from flows.tuning.studies import Place, claim, open_study
place = Place(name="many", folder=Path(sys.argv[1]), address=sys.argv[2] or None)
study = open_study(place, int(sys.argv[3]))
while (trial := claim(study, 12)) is not None:
    trial.suggest_float("x", 0, 1)
    if len(sys.argv) > 4:
        print("holding", flush=True)
        time.sleep(600)
    time.sleep(0.01)
    study.tell(trial, trial.params["x"])
"""


def _claimer(place: Place, number: int, *more: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", _CLAIMS, str(place.folder), place.address or "", str(number), *more]
    return subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}
    )


def _killed(place: Place) -> None:
    """Begin a trial in a process of its own, and kill that."""
    holder = _claimer(place, 9, "hold")
    assert holder.stdout is not None
    assert holder.stdout.readline().strip() == "holding"
    holder.send_signal(signal.SIGKILL)
    holder.wait(30)
    holder.stdout.close()


@pytest.fixture
def postgres() -> Iterator[str]:
    """A PostgreSQL server of its own; it refuses to run as root, so root hands it to the user of Debian's package."""
    folder = Path(tempfile.mkdtemp(prefix="pg-"))
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres")
    port, data = free_port(), folder / "data"
    common: dict[str, Any] = {"capture_output": True, "cwd": folder, "timeout": 60}
    subprocess.run(
        [*as_user, "initdb", "-D", str(data), "-U", "tuner", "--auth=trust", "--no-sync"], check=True, **common
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories={folder} -c fsync=off"
    log = str(folder / "log")
    subprocess.run([*as_user, "pg_ctl", "-D", str(data), "-l", log, "-o", options, "-w", "start"], check=True, **common)
    try:
        yield f"postgresql+psycopg://tuner@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*as_user, "pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop"], check=True, **common)
        shutil.rmtree(folder, ignore_errors=True)


def test_processes_do_exactly_what_was_asked_for(tmp_path: Path) -> None:
    """Three processes and one that was killed do twelve trials, the choice of the dead one among them."""
    place = Place(name="many", folder=tmp_path)
    study = open_study(place)
    _killed(place)
    assert [trial.state for trial in study.trials] == [TrialState.RUNNING]
    assert bury(study) == 1
    assert bury(study) == 0
    claimers = [_claimer(place, number) for number in range(3)]
    for claimer in claimers:
        claimer.communicate(timeout=120)
        assert claimer.returncode == 0
    counted = tried(study)
    assert len(counted) == 12
    assert claim(study, 12) is None
    # What the dead process had chosen was tried again.
    (dead,) = (
        one for one in study.trials if one.state is TrialState.FAIL and one.params and "surplus" not in one.user_attrs
    )
    assert dead.params in [one.params for one in counted]


@pytest.mark.needs_postgres
def test_machines_share_a_study_on_postgresql(tmp_path: Path, postgres: str) -> None:
    """Two processes that only share a database do twelve trials between them."""
    place = Place(name="many", folder=tmp_path, address=postgres)
    claimers = [_claimer(place, number) for number in range(2)]
    for claimer in claimers:
        claimer.communicate(timeout=200)
        assert claimer.returncode == 0
    assert len(tried(open_study(place))) == 12


def test_a_database_that_is_down_keeps_its_password(tmp_path: Path) -> None:
    """The error names the setting, and not what is in it."""
    address = "postgresql+psycopg://user:secret@127.0.0.1:1/none"
    with pytest.raises(BadInputError, match="QT_TUNING_STORAGE") as told:
        open_study(Place(name="a", folder=tmp_path, address=address))
    assert "secret" not in str(told.value)


def test_another_aim_needs_another_study(tmp_path: Path) -> None:
    """A study keeps the aim it was begun with."""
    open_study(Place(name="a", folder=tmp_path))
    with pytest.raises(BadInputError, match="another aim"):
        open_study(Place(name="a", folder=tmp_path, aim="net-and-drawdown"))


@pytest.mark.parametrize("aim", ["net", "net-and-drawdown"])
def test_a_search_goes_on_where_it_was(tmp_path: Path, aim) -> None:
    """A second call does what is missing, and a third nothing."""
    config = TrainingConfig(created_at="2026-01-01T00:00:00+00:00", code_version="test", evaluation_stride=6)
    base = replace(config, members=("xgboost",), summarised_inputs=())
    task = Task(base=base, space=Space(parts=("ensemble",)), frames={"forward": make_frames(series=2, candles=1600)})
    place = Place(name="goes-on", folder=tmp_path, aim=aim)
    seen: list[float] = []
    search(place, task, trials=1, processes=1, progress=lambda _step, share: seen.append(share))
    study = search(place, task, trials=2, processes=1, progress=lambda _step, _share: None)
    assert seen == [1.0]
    assert [one.state for one in study.trials] == [TrialState.COMPLETE] * 2
    assert all(len(one.user_attrs["folds"]) == 3 for one in study.trials)
    found = best(study)
    assert found is not None
    assert found.values[0] == max(one.values[0] for one in study.best_trials)
    search(place, task, trials=2, processes=2, progress=lambda _step, _share: None)
    assert len(study.trials) == 2
