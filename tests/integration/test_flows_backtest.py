"""`qtctl backtest` as people use it: a version traded on stored candles, its warnings, its files, and bad input."""

from __future__ import annotations

import csv
import json
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest

from feature_store.candle import Series, Timeframe
from feature_store.lake import CandleLake
from flows.locked import LOCKED_USES, count_look
from flows.registry import Registry
from flows.trials import looks_at, sets_at
from tests.stack_fixtures import newest_artifacts, python_code
from tests.training_support import _candles
from tests.worker_bundle import make_bundle

SYMBOLS = tuple(f"S{number:02d}/USDT:USDT" for number in range(3))
CANDLES = 2400
COMMAND = (
    "import sys; from feature_store.terminal import run; from flows.backtest_command import backtest; "
    "sys.exit(run(backtest, sys.argv[1:]))"
)


def run_backtest(*arguments: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return python_code(COMMAND, *arguments, env=env)


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """Return a home whose lake holds the candles that the small candidate was trained on."""
    home = tmp_path_factory.mktemp("home")
    lake = CandleLake(home / "lake")
    rng = np.random.default_rng(1)
    market = rng.standard_normal(CANDLES)
    for number, symbol in enumerate(SYMBOLS):
        block = _candles(market, 1.0, np.random.default_rng([1, number]))
        lake.append(Series("sandbox", symbol, Timeframe.M5), block)
    return home


@pytest.fixture(scope="module")
def env(home, prefect_server, mlflow_server) -> dict[str, str]:
    return {**prefect_server.env, "QUANTUM_HOME": str(home), "QT_MLFLOW_URL": mlflow_server.url}


@pytest.fixture(scope="module")
def bundle(tmp_path_factory) -> Path:
    """Return a bundle that has seen nothing of these candles and has many opinions of them."""
    return make_bundle(tmp_path_factory.mktemp("model") / "bundle")


def test_a_bundle_is_traded_and_everything_is_told(env, bundle, prefect_server, tmp_path):
    """Trades, bounds, tables, sweep and a tear sheet that opens offline; both engines make the same trades."""
    out = tmp_path / "out"
    done = run_backtest(
        "--bundle", str(bundle), "--out", str(out), "--json", "--sweep", "stop_atr_multiple=1,3", "--start",
        "2025-01-03", env=env,
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["engines_agree"] is True
    assert report["figures"]["trades"] > 20
    assert {"sharpe", "sortino", "max_drawdown", "turnover_per_day", "exposure", "win_rate"} <= set(report["figures"])
    assert set(report["bounds"]) == {"pessimistic", "optimistic"}
    assert [row["key"] for row in report["by_symbol"]][-1] == "TOTAL"
    assert [one["changed"] for one in report["sweep"]] in (
        [{"stop_atr_multiple": "1"}, {"stop_atr_multiple": "3"}],
        [{"stop_atr_multiple": "3"}, {"stop_atr_multiple": "1"}],
    )
    same = next(one for one in report["sweep"] if one["changed"] == {"stop_atr_multiple": "3"})
    assert same["figures"] == pytest.approx(report["figures"])
    trades = list(csv.DictReader((out / "trades.csv").read_text().splitlines()))
    assert len(trades) == report["figures"]["trades"]
    assert sum(float(one["net"]) for one in trades) == pytest.approx(report["figures"]["net_profit"], abs=1e-6)
    page = (out / "tear-sheet.html").read_text()
    assert "Sharpe" in page
    assert re.findall(r"(?:src=|url\()[\"']?https?://|<(?:link|script)[^>]*https?://", page) == []
    assert "By exit reason" in newest_artifacts(prefect_server)["backtest-report"]["data"]


def test_every_rule_can_be_swept_by_the_workers_own_decisions(env, bundle, tmp_path):
    """What the compiled engine refuses by name is tried with --engine word; what no backtest replays is said."""
    rules = tmp_path / "policy.toml"
    rules.write_text('breaker_losses = 2\nbias_mode = "enforce"\n')
    asked = ("--bundle", str(bundle), "--policy", str(rules), "--start", "2025-01-04", "--out", str(tmp_path / "out"),
             "--sweep", "breaker_losses=1,none", "--json")  # fmt: skip

    refused = run_backtest(*asked, env=env)
    done = run_backtest(*asked, "--engine", "word", env=env)

    assert refused.returncode == 2
    assert "does not know breaker_losses" in refused.stdout + refused.stderr
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["engines_agree"] is None
    assert {one["changed"]["breaker_losses"] for one in report["sweep"]} == {"1", "none"}
    assert set(report["bounds"]) == {"pessimistic", "optimistic"}
    assert any("bias_mode may refuse" in one for one in report["warnings"])


def test_a_registered_version_is_warned_about_and_its_looks_are_counted(env, real_candidate, mlflow_server):
    """What was seen in training is said aloud, a look into the locked window is counted, and MLflow keeps the rest."""
    registry = Registry(mlflow_server.url)
    run_id = registry.start_run("candidate to backtest", {}, "For a test.")
    version = registry.register(run_id, real_candidate.bundle, tags={}, description="Not judged yet.").version
    registry.finish_run(run_id)

    count_look(registry, run_id, "shadow", "2025-01-01T00:00:00")
    done = run_backtest(version, env=env)
    again = run_backtest(
        version, "--start", "2025-01-02", "--sweep", "stop_atr_multiple=1,3", "--engine", "fast", "--json", env=env
    )

    assert done.returncode == 0, done.stderr
    assert "LOCKED WINDOW" in done.stdout
    assert "look 2" in done.stdout
    assert "IN-SAMPLE" not in done.stdout
    assert "EXIT REASON" in done.stdout
    report = json.loads(again.stdout)
    assert report["looks"] == 3
    assert any("this is look 3, at 2 sets of rules besides" in one for one in report["warnings"])
    assert any(one.startswith("IN-SAMPLE") for one in report["warnings"])
    tags = registry.run_tags(run_id)
    assert (len(looks_at(tags)), sets_at(tags), registry.metrics(run_id)[LOCKED_USES]) == (3, 2, 3.0)
    run = report["page"].split("/runs/")[1].split("?")[0]
    assert registry.metrics(run)["backtest/trades"] == report["figures"]["trades"]
    assert "symbol,direction" in registry.read_text(run, "trades.csv")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["987654"], "no version '987654'", id="unknown-version"),
        pytest.param(["--sweep", "stop=1,2"], "stop_atr_multiple", id="unknown-rule"),
        pytest.param(["--sweep", "max_positions=2.5"], "whole numbers", id="not-a-whole-number"),
        pytest.param(["--sweep", "risk_per_trade=0.9"], "risk_per_trade must lie", id="outside-its-bounds"),
        pytest.param(["--start", "yesterday"], "2026-03-01", id="no-date"),
        pytest.param(["--balance", "-5"], "--balance", id="no-money"),
        pytest.param(["--start", "2019-01-01", "--end", "2019-02-01", "--bundle", "{bundle}"], "stored is", id="empty"),
        pytest.param(["--bundle", "{bundle}", "--venue", "binance"], "qtctl ingest", id="no-candles"),
        pytest.param(["--bundle", "{bundle}", "--symbols", "XYZ/USDT:USDT"], "XYZ/USDT:USDT", id="unknown-symbol"),
        pytest.param(["--bundle", "/nowhere"], "manifest.json", id="no-bundle"),
    ],
)
def test_bad_input_is_one_sentence_and_status_2(env, bundle, arguments, words):
    """Whatever cannot be used is said in a sentence that names what can."""
    done = run_backtest(*(one.format(bundle=bundle) for one in arguments), env=env)

    assert done.returncode == 2, done.stderr
    assert words in done.stderr
    assert "Traceback" not in done.stderr
