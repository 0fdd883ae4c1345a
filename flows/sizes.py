"""How long a candidate trains: named sizes of a training run."""

from __future__ import annotations

import subprocess
from datetime import datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError
from feature_store.universe.candle_filters import CandleFilters
from flows.home_exits import exits_for
from flows.learned_labels import barrier_sizes
from flows.settings import REPOSITORY, FlowSettings, LabelName, TrainingSize, parse_moment
from flows.training.config import (
    FoldConfig,
    ForestConfig,
    HeadConfig,
    MlpConfig,
    NetConfig,
    TrainingConfig,
    TreeConfig,
)
from flows.training.device import check_device
from flows.training.members.catalogue import parse_members
from flows.training.tripwire_bounds import TripwireBounds
from flows.tuned import tuned_for
from flows.tuning.space import applied
from flows.universes import rules_of
from inference.domain.policy import Policy
from inference.policy.policy_file import read_policy

# What folds cost has to bear a proportion to what members do.
_FEW_FOLDS = FoldConfig(walk_forward=3, groups=4, rounds=10, most_rows=3_000)


def training_config(
    settings: FlowSettings,
    now: datetime,
    *,
    as_of: str | None = None,
    label: LabelName | None = None,
    policy: str | None = None,
) -> TrainingConfig:
    """
    Return the configuration of a size; `full` is what trades, `tiny` only tries the machinery.

    Args:
        settings: Of the flow.
        now: When the run begins.
        as_of: A moment to train as of, as people write it.
        label: What trees learn.
        policy: File of the policy whose exits end trades; only the label `barrier` asks it. Without one it takes the
            exits that a tuning found, if any.

    Raises:
        BadInputError: The moment is none, or the file cannot be used, or nothing asks it, or QT_TUNED names no
            study, or one of another market.
    """
    exits = exits_of(label, policy)
    rules = rules_of(settings) if settings.follows_universe else None
    full = TrainingConfig(
        created_at=now.isoformat(timespec="seconds"),
        code_version=code_version(),
        timeframe=settings.timeframe,
        threads=settings.train_threads,
        as_of=None if as_of is None else parse_moment(as_of).isoformat(),
        label=label or "forward",
        barriers=None
        if exits is None
        else barrier_sizes(exits, Timeframe.parse(settings.timeframe), exits_for(settings, exits)),
        universe=None if rules is None else rules.fingerprint,
        universe_filters=None if rules is None else CandleFilters.of(rules.policy),
        **ensemble_of(settings),
    )
    sized = _of_size(full, settings.size)
    tuned = tuned_for(settings)
    if tuned is None:
        return sized
    # What a person says of members, weights and labels wins over what a search found.
    config = applied(sized, tuned.config, members=tuned.takes_members and not settings.members.strip())
    config = replace(config, tuning_study=tuned.study, tuning_trials=tuned.trials, tuning_looked_at=tuned.looked_at)
    if settings.weighting is not None or settings.ensemble_mode is not None:
        config = replace(config, weighting=sized.weighting, member_shares=None)
    if label is None:
        return config
    searched = config.traded_exits if label == "barrier" and policy is None else None
    return replace(config, label=sized.label, barriers=searched or sized.barriers)


def _of_size(full: TrainingConfig, size: TrainingSize) -> TrainingConfig:
    match size:
        case "full":
            return full
        case "quick":
            return replace(
                full,
                xgboost=replace(full.xgboost, rounds=100),
                lightgbm=replace(full.lightgbm, rounds=100),
                nhits=replace(full.nhits, max_steps=100),
                patchtst=replace(full.patchtst, max_steps=60),
                dlinear=replace(full.dlinear, max_steps=60),
                forest=replace(full.forest, trees=15),
                mlp=replace(full.mlp, passes=3),
                head=replace(full.head, rounds=60),
                bootstrap_samples=300,
                folds=_FEW_FOLDS,
            )
        case "tiny":
            trees = TreeConfig(rounds=10, depth=2, min_leaf_rows=20)
            return replace(
                full,
                xgboost=trees,
                lightgbm=replace(trees, linear_leaves=True),
                nhits=NetConfig(max_steps=4, learning_rate=1e-3, hidden=8, windows_per_batch=32),
                patchtst=NetConfig(max_steps=4, learning_rate=1e-3, hidden=8, windows_per_batch=32),
                dlinear=NetConfig(max_steps=4, learning_rate=1e-3, hidden=1, windows_per_batch=32),
                forest=ForestConfig(trees=5, depth=3, min_leaf_rows=10),
                mlp=MlpConfig(passes=2, row_stride=12),
                head=HeadConfig(rounds=10, depth=2, min_leaf_rows=20),
                bootstrap_samples=50,
                evaluation_stride=3,
                folds=_FEW_FOLDS,
                # A few days of a few symbols try the machinery; nothing that is chosen by so few outcomes may trade,
                # and the gates refuse it.
                tripwires=TripwireBounds(independent_outcomes=2.0),
            )


def ensemble_of(settings: FlowSettings) -> dict[str, Any]:
    """
    Return what the settings say of the ensemble, as fields of the configuration; what they leave open is left out.

    Raises:
        BadInputError: Mode and weighting contradict each other, or a GPU is asked for that is not there.
    """
    chosen: dict[str, Any] = {"device": settings.device, "heads": settings.chosen_heads()}
    if settings.members.strip():
        chosen["members"] = parse_members(settings.members)
    if settings.ensemble_mode is not None:
        chosen["ensemble_mode"] = settings.ensemble_mode
    weighting = settings.weighting
    if settings.ensemble_mode == "stacking":
        if weighting not in (None, "stacking"):
            raise BadInputError(
                f"Mode stacking learns its own weights, but weighting {weighting} was chosen too; leave QT_WEIGHTING "
                f"out, or choose voting or bagging, which weigh by {weighting}"
            )
        weighting = "stacking"
    if weighting is not None:
        chosen["weighting"] = weighting
    check_device(settings.device)
    return chosen


def exits_of(label: LabelName | None, policy: str | None) -> Policy | None:
    """
    Return the policy whose exits a label asks, None where it asks none.

    Raises:
        BadInputError: The file cannot be used, or a label was chosen that does not ask it.
    """
    if label == "barrier":
        return read_policy(None if policy is None else Path(policy))
    if policy is not None:
        raise BadInputError("A policy says where trades end, which only the label barrier asks; choose that label too")
    return None


def code_version() -> str:
    """Return the version of this code, with its commit where the repository is there to ask."""
    released = version("quantum-trader")
    asked = subprocess.run(
        ["git", "rev-parse", "--short=12", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    commit = asked.stdout.strip()
    return f"{released}+{commit}" if asked.returncode == 0 and commit else released
