"""Processes that try one choice after another until enough were tried, whatever dies meanwhile."""

from __future__ import annotations

import multiprocessing
import os
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import optuna
from msgspec.structs import replace
from optuna.trial import Trial, TrialState

from feature_store.errors import BadInputError, QuantumError
from flows.replay.fast import FastEngine
from flows.replay.market import VenueCosts
from flows.training.config import TrainingConfig
from flows.training.dataset import Dataset, FrameSet
from flows.tuning.exits import BALANCE, TradedMarket
from flows.tuning.objective import FoldScore, fit_window, scores, tuning_folds
from flows.tuning.space import PROFILES, Space, chosen
from flows.tuning.studies import Place, bury, claim, keep_to, note_look, open_study, tried
from inference.models.manifest import TimeWindow

_POLL_S = 0.2
# A worker that dies is replaced; more deaths than this mean that something kills them all.
_MOST_DEATHS = 20
# What the engine advises in a backtest, and a search does not have.
_OTHER_ENGINE = re.compile(r",? or replay (?:it )?with --engine word")


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Task:
    """
    What is searched: the training that choices are made of, the space, and the candles by what is learned of them.

    `frames` has an entry for every variant that the space can choose, by `variant_of`. `traded` are the candles that
    exits are scored on, where exits are searched. `market` says by name what was asked for: venue, timeframe, symbols,
    days and size.
    """

    base: TrainingConfig
    space: Space
    frames: Mapping[str, FrameSet]
    traded: TradedMarket | None = None
    market: Mapping[str, Any] = field(default_factory=dict)

    @property
    def asked(self) -> dict[str, Any]:
        """What scores depend on; those of tasks that differ in it cannot be compared."""
        space = self.space
        return {
            **self.market,
            "parts": sorted(space.parts),
            "labels": list(space.labels) if "labels" in space.parts else [],
            "members": list(space.trained(self.base)),
            "policy": None if self.traded is None else self.traded.policy.fingerprint,
        }


def variant_of(config: TrainingConfig) -> str:
    """Name what members learn: candles have to be read anew for each."""
    profile = next((name for name, sizes in PROFILES.items() if sizes == config.barriers), "")
    return f"{config.label}/{profile}" if profile else config.label


def variants(base: TrainingConfig, space: Space) -> dict[str, TrainingConfig]:
    """Return every variant that a space can choose, as a training that learns it."""
    searched = "labels" in space.parts
    found: dict[str, TrainingConfig] = {}
    for label in space.labels if searched else (base.label,):
        profiles = list(PROFILES.values()) if searched and label == "barrier" else [None]
        for sizes in profiles:
            barriers = sizes if sizes is not None else (base.barriers if label == "barrier" else None)
            config = replace(base, label=label, barriers=barriers)
            found[variant_of(config)] = config
    return found


def search(
    place: Place, task: Task, *, trials: int, processes: int, progress: Callable[[str, float], None]
) -> optuna.Study:
    """
    Try choices until `trials` were tried in the study, by whomever; a study that has as many is returned as it is.

    Raises:
        BadInputError: A number makes no sense, or the candles are too few for the folds.
        QuantumError: Workers keep dying.
    """
    check_numbers(trials, processes)
    study = open_study(place)
    window = _check(task)
    keep_to(study, place, task.asked)
    # Settings that an earlier tuning chose bring with them what that one looked at.
    for one in (window, task.base.tuning_looked_at):
        if one is not None:
            note_look(study, one)
    deaths = bury(study)
    if processes == 1:
        _work(place, task, trials, 0, lambda: progress("trials", len(tried(study)) / trials))
        return study
    context = multiprocessing.get_context("spawn")
    while (done := len(tried(study))) < trials:
        workers = [
            context.Process(target=_work, args=(place, task, trials, number), daemon=True)
            for number in range(min(processes, trials - done))
        ]
        for worker in workers:
            worker.start()
        while any(worker.is_alive() for worker in workers):
            time.sleep(_POLL_S)
            progress("trials", len(tried(study)) / trials)
        failed = [worker.exitcode for worker in workers if worker.exitcode]
        buried = bury(study)
        deaths += buried + len(failed)
        if deaths > _MOST_DEATHS:
            raise QuantumError(
                f"{deaths} processes of study {place.name} died, the last with exit status {failed[-1:] or '?'}; "
                "is there enough memory? Run it again with fewer processes, it goes on where it was"
            )
        if not failed and not buried and len(tried(study)) < trials:
            # Others hold the last trials: wait for them, or for their machine to bury them.
            time.sleep(_POLL_S * 10)
    progress("trials", 1.0)
    return study


def check_numbers(trials: int, processes: int) -> None:
    """
    Check how much is asked for.

    Raises:
        BadInputError: Less than one of something.
    """
    if trials < 1 or processes < 1:
        raise BadInputError(f"Tuning needs at least one trial and one process, was asked for {trials} and {processes}")


def _check(task: Task) -> TimeWindow:
    """Refuse what no trial could do, before there is a trial to fail; return which candles trials look at."""
    frames = next(iter(task.frames.values()))
    dataset = Dataset(frames, horizon=task.base.horizon, window=task.base.window)
    tuning_folds(dataset, task.base)
    task.space.trained(task.base)
    if "weights" in task.space.parts and task.base.ensemble_mode == "stacking":
        raise BadInputError("Mode stacking learns its own weights; search without part weights, or choose voting")
    if "exits" in task.space.parts:
        if task.traded is None:
            raise BadInputError("Exits are scored on candles, and none were read")
        _check_rules(task.traded)
    return fit_window(dataset, task.base)


def _check_rules(traded: TradedMarket) -> None:
    """Refuse rules that no trial could trade by: once here, or by the death of each process."""
    policy = traded.policy
    try:
        FastEngine(traded.market).simulate(policy, balance=BALANCE, costs=VenueCosts(taker_fee=policy.taker_fee))
    except BadInputError as error:
        raise BadInputError(f"Part exits cannot trade by this policy. {_OTHER_ENGINE.sub('', str(error))}") from error


def _work(place: Place, task: Task, wanted: int, number: int, after: Callable[[], None] = lambda: None) -> None:
    """Try choices until enough are tried; the body of one process."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    study = open_study(place, number)
    while (trial := claim(study, wanted)) is not None:
        _try(study, trial, task)
        after()


def _try(study: optuna.Study, trial: Trial, task: Task) -> None:
    names = next(iter(task.frames.values())).input_names
    config = chosen(trial, task.base, task.space, names)
    found: list[FoldScore] = []
    for score in scores(task.frames[variant_of(config)], config, task.traded):
        found.append(score)
        if len(study.directions) == 1:
            trial.report(_mean(found, "net_per_slot_bps"), len(found))
            if trial.should_prune():
                _note(trial, found)
                study.tell(trial, state=TrialState.PRUNED)
                return
    _note(trial, found)
    net = _mean(found, "net_per_slot_bps")
    study.tell(trial, net if len(study.directions) == 1 else [net, max(one.drawdown_bps for one in found)])


def _note(trial: Trial, found: list[FoldScore]) -> None:
    """Keep what each fold said; the statistics of the gates need more than a mean."""
    trial.set_user_attr("folds", [asdict(one) for one in found])


def _mean(found: list[FoldScore], name: str) -> float:
    return float(np.mean([getattr(one, name) for one in found]))
