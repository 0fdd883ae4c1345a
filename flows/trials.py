"""How often something was tried on the same locked candles, as the experiment in MLflow tells it."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

from flows.registered import RunSummary
from flows.training.selection import Trials
from inference.models.manifest import TimeWindow

LOCKED_FROM, LOCKED_UNTIL = "locked_from_ms", "locked_until_ms"
"""Tags of a run: the window that was locked away from its training."""
TUNING_TRIALS = "tuning_trials"
"""Tag of a run: how many trials of a tuning chose what it was trained with."""
STUDY_TAG = "tuning_study"
"""Tag of a run: the tuning that it is, or that chose what it was trained with."""
TUNED_FROM, TUNED_UNTIL = "tuning_from_ms", "tuning_until_ms"
"""Tags of a tuning's own run: the candles it looked at. A candidate has none."""
LOOK_TAG = "locked_look."
"""Tags of a run that begin with this: one for each look at its locked window, with its moment."""
SETS_TAG = "locked_sets."
"""Tags of a run that begin with this: how many sets of trading rules such a look tried, by the look's name."""


def locked_tags(window: TimeWindow) -> dict[str, str]:
    """Return the tags by which later candidates know that they are judged on some of the same candles."""
    return {LOCKED_FROM: str(window.start_ms), LOCKED_UNTIL: str(window.end_ms)}


def looks_at(tags: Mapping[str, str]) -> tuple[str, ...]:
    """Return the moments of all looks that a run's tags tell of, oldest first."""
    return tuple(sorted(value for key, value in tags.items() if key.startswith(LOOK_TAG)))


def sets_at(tags: Mapping[str, str]) -> int:
    """Return how many sets of trading rules were tried in all looks that a run's tags tell of."""
    return sum(_whole(value) for key, value in tags.items() if key.startswith(SETS_TAG))


def study_tags(study: str, *, venue: str, timeframe: str, trials: int, looked_at: TimeWindow) -> dict[str, str]:
    """Return the tags by which candidates of a market know how much was tried on their candles, by whomever."""
    return {
        "venue": venue,
        "timeframe": timeframe,
        STUDY_TAG: study,
        TUNING_TRIALS: str(trials),
        TUNED_FROM: str(looked_at.start_ms),
        TUNED_UNTIL: str(looked_at.end_ms),
    }


def trials_on(window: TimeWindow, runs: Iterable[RunSummary], *, ours: str, since_ms: int = 0) -> Trials:
    """
    Count what was tried on a locked window: candidates that were scored on any of it, and the tunings behind them.

    A candidate was scored there if it has a shadow report, or if anybody looked at its window, be it by a backtest
    alone. Each look after the first counts as one more: what came between two looks knew the first one. So does each
    set of trading rules that a backtest swept there.

    Candidates whose windows ended before this one began chose nothing on these candles and do not count. A run that
    does not say which window it was scored on counts: what is not known must not make a result look better.

    All tunings count that looked at any of the candidate's candles, also those that it did not take: the best of ten
    studies is the best of all their trials. Each counts once, whoever tells of it; runs of the same name, as of two
    homes, are different studies.

    Args:
        window: The locked window of the candidate.
        runs: Runs of the same venue and timeframe, the candidate's own among them or not.
        ours: Id of the candidate's own run.
        since_ms: When the first of all its candles opens.
    """
    count, sharpes, p_values = 0, [], []
    own_runs: Counter[str] = Counter()
    taken: dict[str, int] = {}
    learned = TimeWindow(start_ms=min(since_ms, window.start_ms), end_ms=window.end_ms)
    for run in runs:
        # One that does not name its tuning tells of one that nobody else tells of.
        study = run.tags.get(STUDY_TAG, f"of {run.run_id}")
        if TUNED_FROM in run.tags or TUNED_UNTIL in run.tags:
            if _overlaps(run, learned, TUNED_FROM, TUNED_UNTIL):
                own_runs[study] += _tuning_trials(run)
            continue
        own = run.run_id == ours
        looks = len(looks_at(run.tags))
        was_scored = looks > 0 or "shadow/days" in run.metrics
        if not own and not (was_scored and _overlaps(run, window, LOCKED_FROM, LOCKED_UNTIL)):
            continue
        taken[study] = max(taken.get(study, 0), _tuning_trials(run))
        count += (0 if own else 1) + max(looks - 1, 0) + sets_at(run.tags)
        sharpe = run.metrics.get("shadow/ensemble/sharpe_per_period", math.nan)
        if math.isfinite(sharpe):
            sharpes.append(sharpe)
        skill = run.metrics.get("shadow/ensemble/probabilistic_sharpe", math.nan)
        if not own and math.isfinite(skill):
            p_values.append(1 - skill)
    count += sum(max(own_runs[study], taken.get(study, 0)) for study in own_runs.keys() | taken.keys())
    return Trials(count=1 + count, sharpes=tuple(sharpes), p_values=tuple(p_values))


def _overlaps(run: RunSummary, window: TimeWindow, start: str, end: str) -> bool:
    try:
        start_ms, end_ms = int(run.tags[start]), int(run.tags[end])
    except (KeyError, ValueError):
        return True
    return start_ms < window.end_ms and window.start_ms < end_ms


def _tuning_trials(run: RunSummary) -> int:
    return _whole(run.tags.get(TUNING_TRIALS, "0"))


def _whole(told: str) -> int:
    return int(told) if told.isdecimal() else 0
