"""One candidate on one page, pictures first: HTML that needs nothing from anywhere else."""

from __future__ import annotations

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from html import escape

from flows.training.plots import (
    calibration_curve,
    cumulative_net_return,
    error_correlation,
    expected_and_real,
    information_coefficient_by_day,
    reliability_of_each,
    worker_equity,
)
from flows.training.report import CANDLE_FIGURES, CANDLE_WINDOWS, WORKER_FIGURES, ShadowReport, TrainingReport
from flows.training.verdict import Decision, Finding, Verdict

_STYLE = """
body{font:15px/1.45 system-ui,sans-serif;margin:0 auto;max-width:1180px;padding:1rem;color:#1b1f24}
h1{font-size:1.5rem;margin:.2rem 0}h2{font-size:1.1rem;margin:1.4rem 0 .4rem}
.verdict{display:inline-block;padding:.15rem .7rem;border-radius:.4rem;color:#fff;font-weight:600}
.promoted{background:#0a7b50}.held{background:#9a6700}.refused{background:#b3261e}
.plots{display:grid;grid-template-columns:repeat(auto-fit,minmax(430px,1fr));gap:.6rem}
.plots img{box-sizing:border-box;width:100%;height:clamp(240px,calc(50vh - 75px),370px);object-fit:contain}
img{border:1px solid #d9dee4;border-radius:.4rem}
table{border-collapse:collapse;width:100%;font-size:.86rem}
th,td{text-align:left;padding:.25rem .5rem;border-bottom:1px solid #e3e7eb;vertical-align:top}
td.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
tr.failed td:first-child{border-left:.3rem solid #b3261e}tr.missing td:first-child{border-left:.3rem solid #9a6700}
tr.held td:first-child{border-left:.3rem solid #0a7b50}
.wide{overflow-x:auto}
"""
_ORDER = {Finding.FAILED: 0, Finding.MISSING: 1, Finding.HELD: 2}
_WORDS = {Finding.FAILED: "failed", Finding.MISSING: "missing", Finding.HELD: "held"}
_HEADLINES = {
    Decision.PROMOTED: "Every gate was held: it trades.",
    Decision.HELD: "Nothing speaks against it, but evidence is missing: it does not trade yet.",
    Decision.REFUSED: "What was measured fails: it does not trade.",
}
_FIGURES = (
    ("net_per_trade_bps", "net bps per trade"),
    ("trades", "trades"),
    ("return_on_capital", "return on capital"),
    ("sharpe_per_day", "Sharpe per day"),
    ("sharpe_per_year", "Sharpe per year"),
    ("sortino_per_day", "Sortino per day"),
    ("drawdown_of_capital", "drawdown"),
    ("turnover_per_day", "turnover per day"),
    ("exposure", "exposure"),
    ("capacity_per_trade", "capacity of a trade, in the quote"),
    ("ic", "IC"),
    ("rank_ic", "rank IC"),
    ("hit_rate", "hit rate"),
    ("icir_of_days", "ICIR by day"),
    ("rank_icir_of_days", "rank ICIR by day"),
    ("rmse_skill", "skill over zero"),
    ("rmse", "RMSE"),
    ("mae", "MAE"),
    ("r2", "R²"),
    ("calibration_slope", "real return per expected"),
    ("brier", "Brier score"),
    ("calibration_error", "calibration error"),
)
_COMPARED = (
    ("net_per_slot_bps", "net bps per slot"),
    ("sharpe_per_day", "Sharpe per day"),
    ("sortino_per_day", "Sortino per day"),
    ("drawdown_of_capital", "less drawdown"),
    ("ic_difference", "IC"),
    ("icir_of_days_difference", "ICIR by day"),
    ("rmse_skill_difference", "skill over zero"),
    ("brier_difference", "less Brier score"),
    ("calibration_error_difference", "less calibration error"),
)


def report_page(
    training: TrainingReport,
    shadow: ShadowReport,
    verdict: Verdict,
    *,
    version: str,
    selection: Mapping[str, float],
    links: Mapping[str, str],
) -> str:
    """
    Write what a person needs to agree or disagree with a verdict within a minute.

    Args:
        training: What training measured.
        shadow: What the locked window measured.
        verdict: How the gates judged it.
        version: Number of the version.
        selection: Figures of how often something was tried, by name.
        links: Where to read on: address by text.
    """
    ways = " · ".join(f'<a href="{escape(address)}">{escape(text)}</a>' for text, address in links.items())
    title = f'{escape(version)} <span class="verdict {verdict.decision.value}">{verdict.decision.value}</span>'
    unmet = "".join(
        f" {word}: {escape(', '.join(names))}."
        for word, finding in (("Failed", Finding.FAILED), ("Missing", Finding.MISSING))
        if (names := [check.name for check in verdict.checks if check.finding is finding])
    )
    foot = (
        f"<p>Bundle {escape(training.bundle_digest)}; {shadow.candles} candles of {len(shadow.symbols)} symbols. "
        "Ranges are 95 % intervals of a block bootstrap. Sharpe ratios per year are those per day times √365.</p>"
    )
    parts = [
        f"<h1>Version {title}</h1>",
        f"<p>{_HEADLINES[verdict.decision]}{unmet} {ways}</p>",
        f'<div class="plots">{"".join(_pictures(training, shadow))}</div>',
        "<h2>Gates</h2>",
        _gates(verdict),
        "<h2>After costs, on candles that no member saw</h2>",
        _rules(shadow),
        "<h2>What the worker would have made of it</h2>",
        _worker(shadow),
        "<h2>Better than</h2>",
        _comparisons(shadow),
        *_interval(training, shadow),
        "<h2>How often it was tried</h2>",
        _plain(selection),
        "<h2>Members</h2>",
        _members(training, shadow),
        "<h2>Members one by one, each made tradable as the ensemble was</h2>",
        _figures(shadow, [one.name for one in training.members]),
        "<h2>Candles</h2>",
        _candles(training, shadow),
        *(f"<p>{escape(note)}</p>" for note in shadow.notes),
        foot,
    ]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Version {escape(version)}: '
        f"{verdict.decision.value}</title><style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _pictures(training: TrainingReport, shadow: ShadowReport) -> list[str]:
    pictures = {
        "Net return after costs": cumulative_net_return(shadow.curves, start_ms=shadow.window.start_ms),
        "Reliability": calibration_curve(
            shadow.stated, shadow.observed, shadow.count, title="Calibration, shadow window (seen by no member)"
        ),
        "Expected and real return": expected_and_real(shadow.size_curves),
        "Correlation by day": information_coefficient_by_day(shadow.daily_ic),
    }
    if shadow.worker is not None:
        pictures["The worker's account"] = worker_equity(shadow.worker)
    if training.error_correlation:
        names = [one.name for one in training.members]
        pictures["Correlation of the members' errors"] = error_correlation(names, training.error_correlation)
    if shadow.reliability:
        pictures["Reliability of each member and rule"] = reliability_of_each(shadow.reliability)
    return [
        f'<img alt="{escape(alt)}" src="data:image/png;base64,{b64encode(image).decode()}">'
        for alt, image in pictures.items()
    ]


def _gates(verdict: Verdict) -> str:
    rows = [
        f'<tr class="{_WORDS[check.finding]}"><td>{escape(check.name)}</td><td>{_WORDS[check.finding]}</td>'
        f'<td class="n">{_number(check.value)}</td><td class="n">{_number(check.bound)}</td>'
        f"<td>{escape(check.reason)}</td></tr>"
        for check in sorted(verdict.checks, key=lambda check: _ORDER[check.finding])
    ]
    return _table(("gate", "", "value", "bound", "why"), rows)


def _rules(shadow: ShadowReport) -> str:
    return _figures(shadow, [curve.name for curve in shadow.curves])


def _figures(shadow: ShadowReport, whose: Sequence[str]) -> str:
    rows = [
        f"<tr><td>{text}</td>"
        + "".join(f'<td class="n">{_ranged(shadow.metrics, f"shadow/{one}/{name}")}</td>' for one in whose)
        + "</tr>"
        for name, text in _FIGURES
    ]
    return _table(("", *whose), rows)


def _candles(training: TrainingReport, shadow: ShadowReport) -> str:
    metrics = training.metrics | shadow.metrics
    rows = [
        f"<tr><td>{window}</td>"
        + "".join(f'<td class="n">{_number(metrics.get(f"{window}/{name}"))}</td>' for name, _ in CANDLE_FIGURES)
        + "</tr>"
        for window in CANDLE_WINDOWS
    ]
    return _table(("window", *(text for _, text in CANDLE_FIGURES)), rows)


def _worker(shadow: ShadowReport) -> str:
    if shadow.worker is None:
        return "<p>Its own decisions were not replayed.</p>"
    rows = [
        f'<tr><td>{text}</td><td class="n">{_ranged(shadow.metrics, f"shadow/worker/{name}")}</td></tr>'
        for name, text in WORKER_FIGURES
    ]
    denied = ", ".join(f"{code} {count:,}" for code, count in sorted(shadow.worker.denied.items(), key=_most_first))
    return _table(("figure", "value"), rows) + (
        f"<p>Its own decisions on the same candles, with its stops, limits, fees, spread and funding: "
        f"{escape(shadow.worker.balance)} of the quote at the start, policy "
        f"{escape(shadow.worker.policy_fingerprint[:12])}. Denied: {escape(denied) or 'nothing'}.</p>"
    )


def _most_first(item: tuple[str, int]) -> int:
    return -item[1]


def _comparisons(shadow: ShadowReport) -> str:
    start = "shadow/ensemble_minus_"
    found = dict.fromkeys(name.removeprefix(start).split("/")[0] for name in shadow.metrics if name.startswith(start))
    rows = [
        f"<tr><td>{escape(other)}</td>"
        + "".join(f'<td class="n">{_ranged(shadow.metrics, f"{start}{other}/{name}")}</td>' for name, _ in _COMPARED)
        + "</tr>"
        for other in found
    ]
    return _table(("compared with", *(text for _, text in _COMPARED)), rows)


def _interval(training: TrainingReport, shadow: ShadowReport) -> list[str]:
    """Return how much of the outcomes the interval held, where the bundle answers with one."""
    windows = (
        ("calibration", "calibration", training.metrics),
        ("shadow", "shadow (seen by no member)", shadow.metrics),
    )
    rows = [
        f'<tr><td>{text}</td><td class="n">{_number(metrics[f"{window}/quantile/asked"])}</td>'
        f'<td class="n">{_ranged(metrics, f"{window}/quantile/coverage")}</td>'
        f'<td class="n">{_number(metrics.get(f"{window}/quantile/width_bps"))}</td></tr>'
        for window, text, metrics in windows
        if f"{window}/quantile/asked" in metrics
    ]
    header = ("window", "share of outcomes it should hold", "share it held", "bps wide")
    return ["<h2>The predicted interval</h2>", _table(header, rows)] if rows else []


def _members(training: TrainingReport, shadow: ShadowReport) -> str:
    rows = [
        f'<tr><td>{escape(one.name)}</td><td class="n">{_number(one.weight)}</td>'
        + "".join(
            f'<td class="n">{_ranged(training.metrics, f"calibration/{one.name}/{name}")}</td>'
            for name in ("ic", "rmse_skill")
        )
        + "".join(
            f'<td class="n">{_ranged(shadow.metrics, f"shadow/{one.name}/{name}")}</td>'
            for name in ("calibration_slope", "icir_of_days", "rank_icir_of_days")
        )
        + f'<td class="n">{_number(one.parity)}</td></tr>'
        for one in training.members
    ]
    header = (
        "member", "weight", "IC, calibration", "skill over zero", "real return per expected, shadow",
        "ICIR by day, shadow", "rank ICIR by day, shadow", "export parity, deviations",
    )  # fmt: skip
    return _table(header, rows)


def _plain(figures: Mapping[str, float]) -> str:
    rows = [
        f'<tr><td>{escape(name.replace("_", " "))}</td><td class="n">{_number(value)}</td></tr>'
        for name, value in figures.items()
    ]
    return _table(("figure", "value"), rows)


def _table(header: Sequence[str], rows: Sequence[str]) -> str:
    heads = "".join(f"<th>{escape(one)}</th>" for one in header)
    body = f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"
    return f'<div class="wide">{body}</div>'


def _ranged(metrics: Mapping[str, float], name: str) -> str:
    value, low, high = (_number(metrics.get(f"{name}{end}")) for end in ("", "_low", "_high"))
    return value if "-" in (low, high) else f"{value} [{low}, {high}]"


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.4g}"
