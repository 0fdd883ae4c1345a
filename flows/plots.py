"""Figures of a candidate, drawn from its reports."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flows.replay.report import ShadowReport
from flows.training.report import TrainingReport

_SHOWN_INPUTS = 15
_DAY_MS = 86_400_000


def training_figures(report: TrainingReport) -> dict[str, Figure]:
    """Return the figures of a training report by the path they get in the run."""
    figures = {
        "plots/calibration_curve.png": calibration_curve(report),
        "plots/error_correlation.png": error_correlation(report),
        "plots/skill_of_members.png": skill_of_members(report),
    }
    for member in report.members:
        if member.importance:
            figures[f"plots/importance_{member.name}.png"] = importance(member.name, member.importance)
    return figures


def calibration_curve(report: TrainingReport) -> Figure:
    """Stated against observed probability of a rise; a calibrated model lies on the diagonal."""
    curve = report.reliability
    return _calibration("Calibration on the calibration window", curve.stated, curve.observed)


def _calibration(title: str, stated: Sequence[float], observed: Sequence[float]) -> Figure:
    figure, axes = _canvas(title, "stated probability of a rise", "observed share of rises")
    low, high = min([*stated, *observed, 0.45]), max([*stated, *observed, 0.55])
    axes.plot([low, high], [low, high], color="grey", linestyle="--", label="perfectly calibrated")
    axes.plot(stated, observed, marker="o", label="ensemble")
    axes.legend()
    return figure


def importance(member: str, gains: dict[str, float]) -> Figure:
    """Show the inputs that a member leans on most."""
    top = sorted(gains.items(), key=lambda item: item[1], reverse=True)[:_SHOWN_INPUTS][::-1]
    figure, axes = _canvas(f"What {member} leans on", "share of importance", "")
    axes.barh([name for name, _ in top], [value for _, value in top])
    return figure


def error_correlation(report: TrainingReport) -> Figure:
    """Show how alike the members err; an ensemble gains where they do not."""
    names = [one.name for one in report.members]
    matrix = np.array(report.error_correlation)
    figure, axes = _canvas("Correlation of the members' errors", "", "")
    image = axes.imshow(matrix, vmin=0, vmax=1, cmap="viridis")
    axes.set_xticks(range(len(names)), names, rotation=30)
    axes.set_yticks(range(len(names)), names)
    for (row, column), value in np.ndenumerate(matrix):
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value < 0.6 else "black")
    figure.colorbar(image)
    return figure


def skill_of_members(report: TrainingReport) -> Figure:
    """Show each member's correlation with the outcome, its interval, and the naive baselines beside it."""
    names = [*(one.name for one in report.members), "ensemble", *report.baselines]
    found = [name for name in names if f"calibration/{name}/ic" in report.metrics]
    middle = np.array([report.metrics[f"calibration/{name}/ic"] for name in found])
    low = np.array([report.metrics.get(f"calibration/{name}/ic_low", np.nan) for name in found])
    high = np.array([report.metrics.get(f"calibration/{name}/ic_high", np.nan) for name in found])
    figure, axes = _canvas("Correlation of prediction and outcome, out of sample", "", "information coefficient")
    axes.errorbar(found, middle, yerr=np.abs(np.stack([middle - low, high - middle])), fmt="o", capsize=4)
    axes.axhline(0, color="grey", linestyle="--")
    axes.tick_params(axis="x", rotation=30)
    return figure


def shadow_figures(report: ShadowReport) -> dict[str, Figure]:
    """Return the figures of a shadow report by the path they get in the run."""
    return {
        "plots/cumulative_net_return.png": cumulative_net_return(report),
        "plots/calibration_in_shadow.png": _calibration(
            "Calibration on candles that no member saw", report.stated, report.observed
        ),
    }


def cumulative_net_return(report: ShadowReport) -> Figure:
    """Show net return summed over trades, one line for each rule."""
    figure, axes = _canvas("Net return in shadow, costs paid", "days", "sum over trades, fraction of notional each")
    for curve in report.curves:
        days = [0.0, *((exit_ms - report.window.start_ms) / _DAY_MS for exit_ms in curve.exit_ms)]
        axes.step(days, [0.0, *curve.cumulative_net], where="post", label=curve.name)
    axes.axhline(0, color="grey", linestyle="--", label="flat")
    axes.legend()
    return figure


def _canvas(title: str, x: str, y: str) -> tuple[Figure, Axes]:
    # A figure without pyplot: nothing global, nothing to close, and threads do not share it.
    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    axes.set_title(title)
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.grid(visible=True, alpha=0.3)
    return figure, axes
