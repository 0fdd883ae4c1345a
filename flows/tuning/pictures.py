"""A study in pictures: how it went, and what mattered."""

from __future__ import annotations

import io

import matplotlib as mpl
import numpy as np
import optuna
from matplotlib.figure import Figure
from optuna.trial import TrialState

from flows.tuning.studies import tried

mpl.use("Agg")
import matplotlib.pyplot as plt

_ENOUGH_FOR_IMPORTANCE = 8


def study_plots(study: optuna.Study) -> dict[str, bytes]:
    """Return pictures by name: values by trial, the front where there are two aims, and importances of parameters."""
    plots = {"history.png": _history(study)}
    if len(study.directions) > 1:
        plots["front.png"] = _front(study)
    elif (importance := _importance(study)) is not None:
        plots["importance.png"] = importance
    return plots


def _history(study: optuna.Study) -> bytes:
    figure, axes = plt.subplots(figsize=(7, 3.5))
    done = [one for one in tried(study) if one.state is TrialState.COMPLETE]
    numbers, values = [one.number for one in done], [one.values[0] for one in done]
    axes.plot(numbers, values, "o", markersize=4, label="trial")
    if values:
        axes.step(numbers, np.maximum.accumulate(values), where="post", label="best so far")
    given_up = [one.number for one in tried(study) if one.state is TrialState.PRUNED]
    axes.plot(given_up, [min(values, default=0.0)] * len(given_up), "x", color="grey", label="given up early")
    axes.set(xlabel="trial", ylabel="net per slot, bps", title=f"Study {study.study_name}")
    axes.legend()
    return _png(figure)


def _front(study: optuna.Study) -> bytes:
    figure, axes = plt.subplots(figsize=(5, 4))
    for trials, style in ((tried(study), "o"), (study.best_trials, "s")):
        axes.plot([one.values[1] for one in trials], [one.values[0] for one in trials], style, markersize=4)
    axes.set(xlabel="deepest drawdown, bps", ylabel="net per slot, bps", title="Squares: nothing is better in both")
    return _png(figure)


def _importance(study: optuna.Study) -> bytes | None:
    done = [one for one in tried(study) if one.state is TrialState.COMPLETE]
    if len(done) < _ENOUGH_FOR_IMPORTANCE or len({one.values[0] for one in done}) < 2:
        return None
    shares = optuna.importance.get_param_importances(study, evaluator=optuna.importance.PedAnovaImportanceEvaluator())
    names = list(shares)[:12][::-1]
    figure, axes = plt.subplots(figsize=(7, 4))
    axes.barh(names, [shares[name] for name in names])
    axes.set(xlabel="share of what made the difference", title="Which settings mattered")
    return _png(figure)


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.tight_layout()
    figure.savefig(buffer, format="png", dpi=110)
    plt.close(figure)
    return buffer.getvalue()
