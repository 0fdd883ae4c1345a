"""How long a candidate trains: named sizes of a training run."""

from __future__ import annotations

import subprocess
from datetime import datetime
from importlib.metadata import version

from msgspec.structs import replace

from flows.settings import REPOSITORY, FlowSettings
from flows.training.config import NetConfig, TrainingConfig, TreeConfig


def training_config(settings: FlowSettings, now: datetime) -> TrainingConfig:
    """Return the configuration of a size; `full` is what trades, `tiny` only tries the machinery."""
    full = TrainingConfig(
        created_at=now.isoformat(timespec="seconds"), code_version=code_version(), timeframe=settings.timeframe
    )
    match settings.size:
        case "full":
            return full
        case "quick":
            return replace(
                full,
                xgboost=replace(full.xgboost, rounds=100),
                lightgbm=replace(full.lightgbm, rounds=100),
                nhits=replace(full.nhits, max_steps=100),
                patchtst=replace(full.patchtst, max_steps=60),
                bootstrap_samples=300,
            )
        case "tiny":
            trees = TreeConfig(rounds=10, depth=2, min_leaf_rows=20)
            return replace(
                full,
                xgboost=trees,
                lightgbm=replace(trees, linear_leaves=True),
                nhits=NetConfig(max_steps=4, learning_rate=1e-3, hidden=8, windows_per_batch=32),
                patchtst=NetConfig(max_steps=4, learning_rate=1e-3, hidden=8, windows_per_batch=32),
                bootstrap_samples=50,
                evaluation_stride=3,
            )


def code_version() -> str:
    """Return the version of this code, with its commit where the repository is there to ask."""
    released = version("quantum-trader")
    asked = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    commit = asked.stdout.strip()
    return f"{released}+{commit}" if asked.returncode == 0 and commit else released
