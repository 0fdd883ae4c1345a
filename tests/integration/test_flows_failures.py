"""What fails says so once: in the terminal, and as the state of the flow run."""

from __future__ import annotations

import os
import signal
import subprocess
import time

import mlflow
import pyarrow.parquet as pq
import pytest

from flows.registry import Registry
from flows.train import OWNER_TAG
from tests.stack_fixtures import BIN, QUIET, ROOT, ask, free_port, qtctl, sandbox_venue


@pytest.fixture
def env(prefect_server, mlflow_server, tmp_path):
    return {**prefect_server.env, "QUANTUM_HOME": str(tmp_path), "QT_MLFLOW_URL": mlflow_server.url}


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    with sandbox_venue(tmp_path_factory.mktemp("venue"), symbols=1, history_days=2) as url:
        yield url


def _newest_run(prefect_server, flow: str):
    body = {"flows": {"name": {"any_": [flow]}}, "sort": "START_TIME_DESC", "limit": 1}
    return ask(f"{prefect_server.url}/api/flow_runs/filter", body)[0]["state"]


def test_venue_down(prefect_server, env):
    """A venue that does not answer fails the run with the sentence that the terminal shows."""
    done = qtctl("ingest", "--days", "2", env={**env, "QT_VENUE_URL": f"http://127.0.0.1:{free_port()}"})
    state = _newest_run(prefect_server, "ingest")

    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1].startswith("The venue does not answer; check QT_VENUE_URL")
    assert "Traceback" not in done.stderr
    assert state["type"] == "FAILED"
    assert "The venue does not answer; check QT_VENUE_URL" in state["message"]


def test_ctrl_c(prefect_server, env, venue):
    """Ctrl-C in the middle of a flow ends it with the status that shells know, and the run is not left running."""
    fault = qtctl("sandbox", "fault", "--path", "klines", "--action", "hang", "--p", "1", env={"QT_VENUE_URL": venue})
    assert fault.returncode == 0, fault.stderr
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "QT_"))}
    fetching = {"task_runs": {"name": {"like_": "ingest-"}, "state": {"type": {"any_": ["RUNNING"]}}}}
    with subprocess.Popen(
        [BIN / "qtctl", "ingest", "--days", "1", "--json"],
        cwd=ROOT,
        env={**clean, **QUIET, **env, "QT_VENUE_URL": venue},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            until = time.perf_counter() + 200
            while not ask(f"{prefect_server.url}/api/task_runs/filter", fetching) and time.perf_counter() < until:
                time.sleep(0.2)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=200)
        finally:
            process.kill()
            qtctl("sandbox", "fault", "--op", "clear", env={"QT_VENUE_URL": venue})

    assert process.returncode == 130, err
    assert out == ""
    assert "Traceback" not in err
    assert _newest_run(prefect_server, "ingest")["type"] != "RUNNING"


def test_registry_down(prefect_server, env, venue):
    """A registry that does not answer fails the run before any training starts."""
    assert qtctl("ingest", "--days", "1", env={**env, "QT_VENUE_URL": venue}).returncode == 0
    done = qtctl("train", "--size", "tiny", env={**env, "QT_MLFLOW_URL": f"http://127.0.0.1:{free_port()}"})
    state = _newest_run(prefect_server, "train")

    assert done.returncode == 1
    assert "start it with 'qtctl up'" in done.stderr
    assert "Traceback" not in done.stderr
    assert state["type"] == "FAILED"
    assert "does not answer" in state["message"]


def test_the_traces_of_a_killed_training_are_closed(prefect_server, mlflow_server, env, venue, tmp_path):
    """The next training closes the MLflow run of a flow run that died, with its folder, and leaves a live one's."""
    registry = mlflow.MlflowClient(tracking_uri=mlflow_server.url)
    flow = ask(f"{prefect_server.url}/api/flows/", {"name": "a-training-of-a-test"})["id"]
    left = {}
    for state in ("CRASHED", "RUNNING"):
        order = {"flow_id": flow, "state": {"type": state}}
        owner = ask(f"{prefect_server.url}/api/flow_runs/", order)["id"]
        left[state] = Registry(mlflow_server.url).start_run(f"a {state} training", {OWNER_TAG: owner}, "For a test.")
        (tmp_path / "candidates" / f"{left[state]}-x" / "bundle").mkdir(parents=True)
    assert qtctl("ingest", "--days", "1", env={**env, "QT_VENUE_URL": venue}).returncode == 0

    # A day is too little to train on; that does not matter here.
    qtctl("train", "--size", "tiny", env=env)
    states = {state: registry.get_run(run_id).info.status for state, run_id in left.items()}
    newest = registry.search_runs([registry.get_run(left["CRASHED"]).info.experiment_id], max_results=1)[0]
    registry.set_terminated(left["RUNNING"])

    assert states == {"CRASHED": "KILLED", "RUNNING": "RUNNING"}
    assert [folder.name for folder in (tmp_path / "candidates").iterdir()] == [f"{left['RUNNING']}-x"]
    assert newest.data.tags[OWNER_TAG] == _newest_run(prefect_server, "train")["state_details"]["flow_run_id"]


def test_prefect_down(env):
    """Without a Prefect server a command says how to start one, at once."""
    done = qtctl("retrain", env={**env, "PREFECT_API_URL": f"http://127.0.0.1:{free_port()}/api"})

    assert done.returncode == 1
    assert "start it with 'qtctl up'" in done.stderr


def test_nothing_ingested(prefect_server, env):
    """Features of no candles say what to run first, and the run has failed."""
    done = qtctl("features", env=env)

    assert done.returncode == 2
    assert "run 'qtctl ingest' first" in done.stderr
    assert _newest_run(prefect_server, "features")["type"] == "FAILED"


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        pytest.param("QT_VENUE", "kraken", "QT_VENUE", id="unknown-venue"),
        pytest.param("QT_TIMEFRAME", "7m", "QT_TIMEFRAME", id="unknown-timeframe"),
        pytest.param("QT_DAYS", "soon", "QT_DAYS", id="no-number"),
    ],
)
def test_unusable_setting(env, name, value, expected):
    """A setting that cannot be used is named with what it was."""
    done = qtctl("ingest", env={**env, name: value})

    assert done.returncode == 2
    assert expected in done.stderr
    assert value in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_symbol(prefect_server, env, venue):
    """A symbol that the venue does not list is named beside some that it does."""
    done = qtctl("ingest", "--symbols", "NOPE/USDT:USDT", "--days", "1", env={**env, "QT_VENUE_URL": venue})

    assert done.returncode == 2
    assert "has no symbol 'NOPE/USDT:USDT'" in done.stderr
    assert "BTC/USDT:USDT" in done.stderr
    assert "Traceback" not in done.stderr
    assert _newest_run(prefect_server, "ingest")["type"] == "FAILED"


def test_torn_candle_file(env, venue, tmp_path):
    """A torn partition fails the flow that reads it by name; `ingest --repair` sets it aside and fetches it again."""
    env = {**env, "QT_VENUE_URL": venue}
    assert qtctl("ingest", "--days", "1", env=env).returncode == 0
    path = max(tmp_path.glob("lake/**/*.parquet"))
    whole, candles = path.read_bytes(), pq.read_metadata(path).num_rows
    path.write_bytes(whole[: len(whole) // 2])
    torn = qtctl("features", env=env)
    repaired = qtctl("ingest", "--days", "1", "--repair", "--json", env=env)

    assert torn.returncode == 1
    assert str(path) in torn.stderr
    assert "ingest --repair" in torn.stderr
    assert "Traceback" not in torn.stderr
    assert repaired.returncode == 0, repaired.stderr
    assert pq.read_metadata(path).num_rows >= candles - 1  # The day that is asked for again begins later.
    assert whole[: len(whole) // 2] in [aside.read_bytes() for aside in path.parent.iterdir() if aside != path]


def test_unknown_version(env):
    """A version that does not exist cannot be promoted, and the error names it."""
    done = qtctl("promote", "4711", env=env)

    assert done.returncode == 1
    assert "4711" in done.stderr
