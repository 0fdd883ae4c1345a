"""Pictures of a candidate as PNG bytes, from its reports alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from flows.training.report import NetCurve, ReliabilityCurve, ShadowReport, TrainingReport, WorkerReplay

# Colours that stay apart for most colour-blind readers (Okabe and Ito).
_OURS, _OTHERS, _GUIDE = "#0072B2", ("#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00"), "#888888"


def training_plots(report: TrainingReport) -> dict[str, bytes]:
    """Return every picture of a training run by file name."""
    curve = report.reliability
    gains = {one.name: one.importance for one in report.members if one.importance}
    pictures = {
        "calibration_curve.png": calibration_curve(
            curve.stated,
            curve.observed,
            curve.count,
            title="Calibration, calibration window (fitted there and on validation)",
        ),
        "member_error_correlation.png": error_correlation(
            [one.name for one in report.members], report.error_correlation
        ),
        "information_coefficient.png": information_coefficients(report.metrics, "calibration"),
    }
    if gains:
        pictures["feature_importance.png"] = feature_importance(gains)
    return pictures


def shadow_plots(report: ShadowReport) -> dict[str, bytes]:
    """Return every picture of a shadow run by file name."""
    pictures = {
        "shadow_calibration_curve.png": calibration_curve(
            report.stated, report.observed, report.count, title="Calibration, shadow window (seen by no member)"
        ),
        "cumulative_net_return.png": cumulative_net_return(report.curves, start_ms=report.window.start_ms),
        "shadow_information_coefficient.png": information_coefficients(report.metrics, "shadow"),
        "information_coefficient_by_day.png": information_coefficient_by_day(report.daily_ic),
        "shadow_expected_and_real.png": expected_and_real(report.size_curves),
    }
    if report.worker is not None:
        pictures["worker_equity.png"] = worker_equity(report.worker)
    if report.reliability:
        pictures["shadow_reliability_of_each.png"] = reliability_of_each(report.reliability)
    return pictures


def verdict_plots(report: ShadowReport) -> dict[str, bytes]:
    """Return the two pictures that a verdict is judged by first: what was earned, and how well it is calibrated."""
    return {
        "net-return": cumulative_net_return(report.curves, start_ms=report.window.start_ms),
        "reliability": calibration_curve(
            report.stated, report.observed, report.count, title="Calibration, shadow window (seen by no member)"
        ),
    }


def calibration_curve(stated: Sequence[float], observed: Sequence[float], count: Sequence[int], *, title: str) -> bytes:
    """Draw stated against observed probability of a rise; a calibrated model lies on the diagonal."""
    figure, axes = _figure(title)
    ends = [min([0.4, *stated, *observed]) - 0.02, max([0.6, *stated, *observed]) + 0.02]
    axes.plot(ends, ends, "--", color=_GUIDE, label="perfectly calibrated")
    axes.axhline(0.5, color=_GUIDE, linewidth=0.6)
    axes.axvline(0.5, color=_GUIDE, linewidth=0.6)
    size = f"{count[0]:,}" if count else "no"
    axes.plot(stated, observed, "o-", color=_OURS, label=f"ensemble, {len(stated)} bins of {size} predictions")
    axes.set(xlim=ends, ylim=ends, xlabel="stated probability of a rise", ylabel="observed share of rises")
    axes.set_aspect("equal")
    axes.legend(loc="upper left")
    return _png(figure)


def reliability_of_each(curves: Mapping[str, ReliabilityCurve]) -> bytes:
    """
    Draw how far what came lay from what each rule stated, each made tradable as the ensemble was.

    The distance, and not the share of rises itself: beside the diagonal a dozen curves could not be told apart.
    """
    figure, axes = _figure("Reliability of each member and rule, shadow window: observed less stated")
    colours, dashes = iter(_OTHERS * 8), iter(["-"] * 5 + ["--"] * 5 + [":"] * 30)
    for name, curve in curves.items():
        gap = np.subtract(curve.observed, curve.stated)
        axes.plot(
            curve.stated, gap, "o", linestyle=next(dashes), color=next(colours), linewidth=1.3, markersize=3, label=name
        )
    axes.axhline(0, color="black", linewidth=0.8)
    axes.set(xlabel="stated probability of a rise", ylabel="observed share of rises less stated")
    axes.legend(loc="best", fontsize=8, ncols=2)
    return _png(figure)


def expected_and_real(curves: Mapping[str, Sequence[tuple[float, float]]]) -> bytes:
    """Draw what came of what each member expected; where sizes are right the line is the diagonal."""
    figure, axes = _figure("Expected and real return, shadow window, in bins of equally many predictions")
    others = iter(_OTHERS * 2)
    for name, curve in sorted(curves.items(), key=lambda one: one[0] != "ensemble"):
        ours = name == "ensemble"
        expected, real = ([1e4 * one[side] for one in curve] for side in (0, 1))
        axes.plot(
            expected, real, "o-", color=_OURS if ours else next(others), linewidth=2.2 if ours else 1.2, markersize=3,
            zorder=3 if ours else 2, label=name if curve else f"{name} (one answer for all)",
        )  # fmt: skip
    reach = max([1.0, *(abs(1e4 * one[0]) for curve in curves.values() for one in curve)])
    axes.plot([-reach, reach], [-reach, reach], "--", color=_GUIDE, label="as large as expected")
    axes.axhline(0, color=_GUIDE, linewidth=0.6)
    axes.set(xlabel="mean expected log return, bps", ylabel="mean log return that came, bps")
    axes.legend(loc="upper left")
    return _png(figure)


def cumulative_net_return(curves: Sequence[NetCurve], *, start_ms: int) -> bytes:
    """Draw what each rule earned after fees and slippage, summed over trades of equal notional."""
    figure, axes = _figure("Cumulative net return in shadow, after fees and slippage")
    others = iter(_OTHERS * 2)
    last_ms = max([start_ms, *(one.exit_ms[-1] for one in curves if one.exit_ms)])
    for curve in sorted(curves, key=lambda one: one.name != "ensemble"):
        ours = curve.name == "ensemble"
        times = np.array([start_ms, *curve.exit_ms, last_ms], "datetime64[ms]")
        steps = [0.0, *curve.cumulative_net]
        percent = 100 * np.array([*steps, steps[-1]])
        axes.step(
            times, percent, where="post",
            color=_OURS if ours else next(others), linewidth=2.2 if ours else 1.4, zorder=3 if ours else 2,
            label=f"{curve.name} ({len(curve.exit_ms)} trades)",
        )  # fmt: skip
    axes.axhline(0, color=_GUIDE, linestyle="--", label="flat")
    axes.tick_params(axis="x", labelsize=8)
    axes.set(xlabel="exit of the trade, UTC", ylabel="sum of net returns, % of one trade's notional")
    axes.legend(loc="best")
    return _png(figure)


def worker_equity(replay: WorkerReplay) -> bytes:
    """Draw the account of a worker that had traded by the candidate, and below it how far it was under its peak."""
    figure, axes = _figure("The worker's account in shadow, by its own decisions")
    times = np.array(replay.time_ms, "datetime64[ms]")
    start = float(replay.balance)
    percent = 100 * (np.array(replay.equity) / start - 1)
    peak = np.maximum.accumulate(np.append(0.0, percent))[1:]
    axes.plot(times, percent, color=_OURS, linewidth=1.8, label="equity")
    axes.fill_between(times, percent, peak, color=_OTHERS[4], alpha=0.25, linewidth=0, label="below its peak")
    axes.axhline(0, color=_GUIDE, linestyle="--", label="flat")
    axes.tick_params(axis="x", labelsize=8)
    axes.set(xlabel="UTC", ylabel=f"gain, % of {start:,.0f}")
    axes.legend(loc="best")
    return _png(figure)


def feature_importance(gains: Mapping[str, Mapping[str, float]], *, shown: int = 15) -> bytes:
    """Draw the inputs that the members lean on most, side by side."""
    mean = {name: np.mean([one.get(name, 0.0) for one in gains.values()]) for one in gains.values() for name in one}
    top = sorted(mean, key=lambda name: float(mean[name]), reverse=True)[:shown][::-1]
    figure, axes = _figure(f"What the trees lean on: the first {len(top)} of {len(mean)} inputs", height=6.5)
    height, colours = 0.8 / len(gains), (_OURS, *_OTHERS)
    for place, (member, shares) in enumerate(gains.items()):
        at = np.arange(len(top)) + (place - (len(gains) - 1) / 2) * height
        axes.barh(at, [100 * shares.get(name, 0.0) for name in top], height, color=colours[place], label=member)
    axes.set_yticks(np.arange(len(top)), top)
    axes.set(xlabel="share of what all splits gained, %")
    axes.legend(loc="lower right")
    return _png(figure)


def error_correlation(names: Sequence[str], matrix: Sequence[Sequence[float]]) -> bytes:
    """Draw how alike the members err; an ensemble gains where they do not."""
    values = np.array(matrix, dtype=np.float64)
    figure, axes = _figure("Correlation of the members' errors, calibration window")
    axes.grid(visible=False)
    lowest = min(0.9, float(values.min()))
    image = axes.imshow(values, vmin=lowest, vmax=1, cmap="Blues")
    axes.set_xticks(range(len(names)), names)
    axes.set_yticks(range(len(names)), names)
    middle = (lowest + 1) / 2
    for (row, column), value in np.ndenumerate(values):
        axes.text(column, row, f"{value:.3f}", ha="center", va="center", color="white" if value > middle else "black")
    figure.colorbar(image, label="correlation of errors")
    return _png(figure)


def information_coefficients(metrics: Mapping[str, float], window: str) -> bytes:
    """Draw the correlation of prediction and outcome, with its interval, of members, ensemble and baselines."""
    found = [name.split("/")[1] for name in metrics if name.startswith(f"{window}/") and name.endswith("/ic")]
    ends = ("", "_low", "_high")
    values = {name: [metrics.get(f"{window}/{name}/ic{end}", np.nan) for end in ends] for name in found}
    order = sorted(values, key=lambda name: values[name][0])
    figure, axes = _figure(f"Correlation of prediction and outcome, {window} window")
    for place, name in enumerate(order):
        value, low, high = values[name]
        colour = _OURS if name == "ensemble" else _OTHERS[0] if name in ("persistence", "ridge") else _GUIDE
        axes.plot([low, high], [place, place], color=colour, linewidth=2)
        axes.plot([value], [place], "o", color=colour)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(order)), order)
    axes.set(xlabel="information coefficient, 95 % interval (blocks of two horizons)")
    return _png(figure)


def information_coefficient_by_day(days: Sequence[tuple[int, float]]) -> bytes:
    """Draw the correlation of prediction and outcome on each UTC day, and their mean: is it steady?"""
    figure, axes = _figure("Correlation of prediction and outcome by day, shadow window")
    times = np.array([day for day, _ in days], "datetime64[ms]")
    values = [ic for _, ic in days]
    axes.bar(np.arange(len(values)), values, color=[_OURS if value > 0 else _OTHERS[4] for value in values], width=0.7)
    axes.axhline(0, color="black", linewidth=0.8)
    if values:
        mean = float(np.mean(values))
        axes.axhline(mean, color=_GUIDE, linestyle="--", label=f"mean {mean:.3f}")
        axes.legend(loc="best")
    step = max(len(values) // 10, 1)
    axes.set_xticks(np.arange(len(values))[::step], [str(day)[:10] for day in times[::step]], fontsize=8)
    axes.set(xlabel="UTC day", ylabel="information coefficient")
    return _png(figure)


def _figure(title: str, *, height: float = 5.0) -> tuple[Figure, Axes]:
    # Without pyplot nothing is global: nothing to close, and flows may draw in threads.
    figure = Figure(figsize=(8, height), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    axes.set_title(title, fontsize=12, loc="left")
    axes.grid(visible=True, alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
