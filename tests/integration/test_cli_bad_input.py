"""A venue, symbol or timeframe that cannot be used: one sentence, bad usage, and nothing was written."""

from __future__ import annotations

import json
import re

import pytest

from tests.stack_fixtures import ask, free_port, prefect_command, prefect_worker, qtctl, sandbox_venue

FLOWS = ("ingest", "features", "train", "retrain")
NOPE = "NOPE/USDT:USDT"


@pytest.fixture(scope="module")
def venue(tmp_path_factory):
    with sandbox_venue(tmp_path_factory.mktemp("venue"), symbols=2, history_days=2) as url:
        yield url


@pytest.fixture
def env(prefect_server, mlflow_server, tmp_path, venue):
    """Everything answers: only what is asked for is wrong."""
    settings = {"QUANTUM_HOME": str(tmp_path / "home"), "QT_MLFLOW_URL": mlflow_server.url, "QT_VENUE_URL": venue}
    return {**prefect_server.env, **settings}


@pytest.fixture(scope="module")
def stocked(prefect_server, mlflow_server, venue, tmp_path_factory):
    """A home whose lake holds two series of 5m candles."""
    home = tmp_path_factory.mktemp("stocked")
    env = {**prefect_server.env, "QUANTUM_HOME": str(home), "QT_VENUE_URL": venue, "QT_MLFLOW_URL": mlflow_server.url}
    done = qtctl("ingest", "--days", "1", env=env)
    assert done.returncode == 0, done.stderr
    return home, env


def _files(home):
    return sorted(path for path in home.rglob("*") if path.is_file()) if home.exists() else []


def _runs(prefect_server) -> int:
    return ask(f"{prefect_server.url}/api/flow_runs/count", {})


def _mlflow_runs(mlflow_server) -> int:
    found = ask(f"{mlflow_server.url}/api/2.0/mlflow/experiments/search", {"max_results": 100})
    ids = [one["experiment_id"] for one in found.get("experiments", [])]
    body = {"experiment_ids": ids, "max_results": 1000}
    return len(ask(f"{mlflow_server.url}/api/2.0/mlflow/runs/search", body).get("runs", []))


def _sentence(done) -> str:
    """Return the one sentence that a person sees."""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.strip() and "━" not in line]
    return lines[-1]


@pytest.mark.parametrize("command", [*FLOWS, "worker"])
@pytest.mark.parametrize(
    ("options", "settings", "given", "possible"),
    [
        pytest.param(("--venue", "kraken"), {}, "kraken", "binanceusdm", id="venue"),
        pytest.param((), {"QT_VENUE": "kraken"}, "kraken", "binanceusdm", id="venue-setting"),
        pytest.param(("--timeframe", "7m"), {}, "7m", "15m", id="timeframe"),
        pytest.param((), {"QT_TIMEFRAME": "1w"}, "1w", "15m", id="timeframe-setting"),
    ],
)
def test_unknown_venue_and_timeframe(prefect_server, env, tmp_path, command, options, settings, given, possible):
    """What was given and what is possible are in one sentence, before there is a flow run or a file."""
    before = _runs(prefect_server)
    done = qtctl(command, *options, env={**env, **settings})
    sentence = _sentence(done)

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert given in sentence
    assert possible in sentence
    assert re.search(r"--help|set QT_|use one of|QT_\w+:", sentence)
    assert _runs(prefect_server) == before
    assert not (tmp_path / "home").exists()


def test_a_worker_does_not_follow_the_universe(env, tmp_path):
    """What ingest and training take is refused by the worker, with what to set instead, and nothing is written."""
    done = qtctl("worker", env={**env, "QT_SYMBOLS": "universe"})

    assert done.returncode == 2
    assert done.stdout == ""
    assert len(done.stderr.strip().splitlines()) == 1
    assert "follows a list only" in _sentence(done)
    assert "`qtctl universe show`" in _sentence(done)
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize("command", ["ingest", "retrain"])
def test_symbol_that_the_venue_does_not_list(env, tmp_path, command):
    """The symbol is named beside some that are listed, and no candle was stored."""
    done = qtctl(command, "--symbols", f"BTC/USDT:USDT,{NOPE}", "--days", "1", env=env)
    sentence = _sentence(done)

    assert done.returncode == 2
    assert sentence.startswith(f"Venue 'sandbox' has no symbol '{NOPE}'; set QT_SYMBOLS to")
    assert "BTC/USDT:USDT" in sentence
    assert done.stdout == ""
    assert [one for one in _files(tmp_path / "home") if one.parent.name != "budgets"] == []


@pytest.mark.parametrize(
    ("command", "options", "says"),
    [
        pytest.param("features", ("--symbols", NOPE), f"has no symbol '{NOPE}'", id="features-symbol"),
        pytest.param("train", ("--symbols", NOPE), f"has no symbol '{NOPE}'", id="train-symbol"),
        pytest.param("features", ("--timeframe", "4h"), "run 'qtctl ingest' first", id="features-timeframe"),
        pytest.param("train", ("--venue", "bitfinex"), "run 'qtctl ingest' first", id="train-venue"),
    ],
)
def test_series_of_which_nothing_is_stored(mlflow_server, stocked, command, options, says):
    """What is not in the lake is named with what to do, and neither the home nor MLflow has changed."""
    home, env = stocked
    files, runs = _files(home), _mlflow_runs(mlflow_server)
    done = qtctl(command, *options, env=env)

    assert done.returncode == 2
    assert says in _sentence(done)
    assert done.stdout == ""
    assert _files(home) == files
    assert _mlflow_runs(mlflow_server) == runs


def test_worker_knows_no_such_symbol(env, tmp_path):
    """The worker ends before it trades, and leaves no journal entry of a decision."""
    done = qtctl("worker", "--symbols", NOPE, "--log-format", "json", env=env)

    assert done.returncode == 2
    assert _sentence(done).startswith(f"Venue 'sandbox' has no symbol '{NOPE}'")
    assert "BTC/USDT:USDT" in _sentence(done)
    assert not list((tmp_path / "home").glob("bundles/*"))


@pytest.mark.parametrize("command", FLOWS)
def test_errors_are_one_json_document(env, command):
    """With --json the error is an object on standard output, and the same sentence is on standard error."""
    done = qtctl(command, "--json", "--timeframe", "7m", env=env)
    answer = json.loads(done.stdout)

    assert done.returncode == answer["exit_status"] == 2
    assert "7m" in answer["error"]
    assert answer["error"] == done.stderr.strip()


@pytest.mark.parametrize(
    ("command", "status"),
    [
        pytest.param(("audit", "verify"), 1, id="no-journal"),
        pytest.param(("models", "show", "ffff"), 2, id="no-bundle"),
        pytest.param(("models", "verify", "/no/such"), 1, id="no-folder"),
        pytest.param(("sandbox", "status"), 1, id="no-exchange"),
        pytest.param(("up", "--services", "broker"), 2, id="no-service"),
        pytest.param(("promote", "4711"), 1, id="no-version"),
        pytest.param(("rollback",), 1, id="no-server-and-no-bundle"),
    ],
)
def test_every_error_is_one_json_document(env, command, status):
    """Whatever fails, and wherever: one object with the sentence and the status."""
    nowhere = f"http://127.0.0.1:{free_port()}"
    changed = {"QT_VENUE_URL": nowhere}
    if command == ("rollback",):
        changed |= {"PREFECT_API_URL": f"{nowhere}/api", "QT_MLFLOW_URL": nowhere}
    done = qtctl(*command, "--json", env={**env, **changed})
    answer = json.loads(done.stdout)

    assert done.returncode == answer["exit_status"] == status
    assert answer["error"] == done.stderr.strip()
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("options", "says"),
    [
        pytest.param(("--symbols", NOPE), f"has no symbol '{NOPE}'", id="symbol"),
        pytest.param(("--days", "0"), "QT_DAYS", id="days"),
        pytest.param(("--timeframe", "7m"), "7m", id="timeframe"),
        pytest.param(("--venue", "kraken"), "kraken", id="venue"),
    ],
)
def test_no_run_is_scheduled_for_bad_input(prefect_server, env, options, says):
    """A run of the deployment that could only fail is refused before it is scheduled."""
    before = _runs(prefect_server)
    done = qtctl("retrain", "--deployment", *options, env=env)

    assert done.returncode == 2
    assert says in _sentence(done)
    assert _runs(prefect_server) == before


def test_a_failed_run_tells_its_own_sentence(prefect_server, env, tmp_path):
    """What only the Prefect worker can find out reaches the terminal in the run's own words."""
    prefect_command(prefect_server, "work-pool", "create", "quantum", "--type", "process", "--overwrite")
    prefect_command(prefect_server, "deploy", "--all", env={"QT_SCHEDULES": "false"})
    # From here the exchange is unknown, the Prefect worker can reach it.
    here = {name: value for name, value in env.items() if name != "QT_VENUE_URL"}
    with prefect_worker(prefect_server, env):
        done = qtctl("retrain", "--deployment", "--symbols", NOPE, "--json", env=here)
    answer = json.loads(done.stdout)

    assert done.returncode == answer["exit_status"] == 1
    assert re.match(rf"Run \S+ .*ended Failed: Venue 'sandbox' has no symbol '{NOPE}'; set QT_SYMBOLS", answer["error"])
    assert "Traceback" not in done.stderr
    assert not list((tmp_path / "home").glob("lake/**/*.parquet"))
