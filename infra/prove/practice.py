"""A champion to practise with: trained quickly through the real pipeline, and put in place by hand."""

from __future__ import annotations

import json
import urllib.parse
from typing import Any

from infra.prove.stage import ProofError, Stage, get, post

MODEL = "quantum-ensemble"
SERVERS = "sandbox,prefect-server,mlflow"


def retrain(stage: Stage, *, size: str, days: int, symbols: str = "all") -> str:
    """Make one version with `qtctl retrain` and return its number; whether gates pass it is not the point here."""
    done = stage.qtctl(
        "retrain", "--size", size, "--days", str(days), "--symbols", symbols, "--json", timeout=1200, check=False
    )
    if done.returncode not in (0, 3, 4):
        raise ProofError(f"qtctl retrain ended with {done.returncode}: {(done.stdout + done.stderr)[-2000:]}")
    result = json.loads(done.stdout.strip().splitlines()[-1])
    return str(result["version"])


def point_champion(mlflow: str, version: str) -> None:
    """Move the alias as a person does in the MLflow UI; the worker will label the version as it was judged."""
    post(f"{mlflow}/api/2.0/mlflow/registered-models/alias", {"name": MODEL, "alias": "champion", "version": version})


def champion(mlflow: str) -> dict[str, Any]:
    """Return the version that the alias champion points at."""
    query = urllib.parse.urlencode({"name": MODEL, "alias": "champion"})
    answer = get(f"{mlflow}/api/2.0/mlflow/registered-models/alias?{query}")
    version: dict[str, Any] = answer["model_version"]
    return version


def restless_policy(stage: Stage) -> str:
    """Write a policy under which nearly every signal trades, so that there is much to lose; return its path."""
    path = stage.home / "restless.toml"
    path.write_text(
        "confidence_threshold = 0.5\n"
        "cooldown_seconds = 0\n"
        "max_holding_candles = 2\n"
        'max_daily_drawdown = "0.15"\n'
        'max_weekly_drawdown = "0.25"\n'
        'taker_fee = "0"\n'
        'slippage = "0"\n'
    )
    return str(path)
