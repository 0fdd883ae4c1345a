"""Tuning against a real Prefect and a real MLflow: runs inside a run, and a training that takes what was found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from feature_store.lake import CandleLake
from flows.registry import EXPERIMENT, Registry
from flows.trials import trials_on
from inference.models.manifest import TimeWindow
from inference.policy.policy_file import read_policy
from tests.feature_support import BTC, ETH, market
from tests.stack_fixtures import QUIET, ROOT, ask, newest_artifacts

DAYS = 6
# Commands as people write them, in one interpreter: each alone would load Prefect, MLflow and Optuna again.
COMMANDS = """
import contextlib, io, json, sys
from inference.cli import run
for arguments in json.loads(sys.argv[1]):
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = run(arguments)
    print("done", json.dumps([status, out.getvalue(), err.getvalue()]), flush=True)
"""


@pytest.fixture(scope="module")
def done(prefect_server, mlflow_server, tmp_path_factory):
    """Run each command once, and return what it ended with: status, output and errors."""
    home = tmp_path_factory.mktemp("home")
    lake = CandleLake(home / "lake")
    for series in (BTC, ETH):
        lake.append(series, market(DAYS * 288, seed=len(series.symbol)))
    policy = home / "mine.toml"
    policy.write_text("max_positions = 7\n")
    env = {
        **prefect_server.env, "QUANTUM_HOME": str(home), "QT_MLFLOW_URL": mlflow_server.url,
        "QT_SIZE": "tiny", "QT_DAYS": str(DAYS),
    }  # fmt: skip
    once = ("tune", "--study", "flow", "--processes", "1", "--parts", "ensemble,exits", "--policy", str(policy))
    commands = [
        ("tune", "--study", "short", "--trials", "1", "--processes", "1", "--parts", "ensemble", "--days", "5"),
        (*once, "--json", "--trials", "2"),
        (*once, "--json", "--trials", "3"),
        ("train", "--tuned", "flow", "--members", "xgboost", "--json"),
        ("train", "--tuned", "other"),
        ("tune", "--study", "flow", "--trials", "4", "--parts", "ensemble"),
        ("train", "--tuned", "short", "--members", "xgboost"),
    ]
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "QT_", "QUANTUM_"))}
    ran = subprocess.run(
        [sys.executable, "-c", COMMANDS, json.dumps(commands)],
        cwd=ROOT, env={**clean, **QUIET, **env}, capture_output=True, text=True, timeout=280, check=False,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr
    return [json.loads(line.removeprefix("done ")) for line in ran.stdout.splitlines() if line.startswith("done ")]


@pytest.fixture(scope="module")
def tuned(done):
    """Return what two runs of one study found."""
    for status, _out, err in done[1:3]:
        assert status == 0, err
    return [json.loads(out) for _status, out, _err in done[1:3]]


def test_a_second_run_goes_on(tuned):
    """The second run tries one more, and finds nothing worse."""
    first, second = tuned
    assert (first["trials"], second["trials"]) == (2, 3)
    assert second["net_per_slot_bps"] >= first["net_per_slot_bps"]
    assert second["config"]["members"] == ["xgboost", "lightgbm"]


def test_each_trial_is_one_run_inside_the_study(tuned, mlflow_server):
    """Three runs inside one, each trial once, though the study was logged twice."""
    experiment = ask(f"{mlflow_server.url}/api/2.0/mlflow/experiments/get-by-name?experiment_name={EXPERIMENT}")
    body = {
        "experiment_ids": [experiment["experiment"]["experiment_id"]],
        "filter": "tags.tuning_study = 'flow'",
        "max_results": 50,
    }
    runs = ask(f"{mlflow_server.url}/api/2.0/mlflow/runs/search", body)["runs"]
    runs = [(run["info"]["run_id"], {one["key"]: one["value"] for one in run["data"]["tags"]}) for run in runs]
    (parent,) = (run_id for run_id, told in runs if "tuning_trial" not in told and "prefect.flow_run" not in told)
    children = [told for _run_id, told in runs if "tuning_trial" in told]
    assert sorted(told["tuning_trial"] for told in children) == ["0", "1", "2"]
    assert {told["mlflow.parentRunId"] for told in children} == {parent}
    assert Registry(mlflow_server.url).metrics(parent)["tuning/trials"] == 3
    # Candidates of the market find the study itself, and not each of its trials.
    market = Registry(mlflow_server.url).runs_tagged({"venue": "sandbox", "timeframe": "5m"})
    (study,) = (one for one in market if one.tags.get("tuning_study") == "flow" and "tuning_from_ms" in one.tags)
    assert study.run_id == parent
    assert {name: int(study.tags[f"tuning_{end}_ms"]) for name, end in (("start_ms", "from"), ("end_ms", "until"))} == (
        tuned[1]["looked_at"]
    )
    assert trials_on(TimeWindow(start_ms=2**51, end_ms=2**52), [study], ours="").count == 1 + 3
    # The policy of the best is there as well, as it is in the home.
    assert Registry(mlflow_server.url).read_text(parent, "policy.toml") == Path(tuned[1]["policy"]).read_text()


def test_artifacts_say_what_was_found(tuned, prefect_server):
    """The page says how to take what was found, the table has every trial."""
    found = newest_artifacts(prefect_server)
    assert "qtctl train --tuned flow" in found["tuning"]["data"]
    assert tuned[1]["policy"] in found["tuning"]["data"]
    assert len(json.loads(found["tuning-trials"]["data"])) == 3


def test_exits_are_a_policy_that_a_worker_reads(tuned):
    """The file has the exits that were found, and the rules of the one that the search began with."""
    policy, exits = read_policy(Path(tuned[1]["policy"])), tuned[1]["config"]["traded_exits"]
    assert float(policy.stop_atr_multiple) == exits["stop_atr_multiple"]
    assert float(policy.target_atr_multiple) == exits["target_atr_multiple"]
    assert policy.max_holding_candles == exits["holding_candles"]
    assert policy.max_positions == 7


def test_a_training_takes_what_was_found(done, tuned, mlflow_server):
    """A training has the settings of the best trial, and says among how many it won; the gates count them."""
    status, out, err = done[3]
    assert status == 0, err
    run_id, registry = json.loads(out)["run_id"], Registry(mlflow_server.url)
    config = json.loads(registry.read_text(run_id, "reports/config.json"))
    assert (config["tuning_study"], config["tuning_trials"]) == ("flow", 3)
    assert config["market_share_removed"] == tuned[1]["config"]["market_share_removed"]
    assert config["traded_exits"] == tuned[1]["config"]["traded_exits"]
    assert config["members"] == ["xgboost"]
    own = [run for run in registry.runs_tagged({"venue": "sandbox"}) if run.run_id == run_id]
    assert trials_on(TimeWindow(start_ms=0, end_ms=2**52), own, ours=run_id).count == 1 + 3


def test_a_study_that_found_nothing_is_told(done):
    """The error lists the studies there are."""
    status, _out, err = done[4]
    assert status == 2
    assert "there are flow" in err


def test_a_study_keeps_to_its_search(done):
    """Scores of another search are not put beside those that are there."""
    status, _out, err = done[5]
    assert status == 2
    assert "was begun with other parts and policy" in " ".join(err.split())


def test_candles_that_judge_were_not_tuned_on(done):
    """A training refuses what was chosen by candles after those that its members learn from."""
    status, _out, err = done[0]
    assert status == 0, err
    status, _out, err = done[6]
    assert status == 2
    assert "weigh and judge this training" in " ".join(err.split())
