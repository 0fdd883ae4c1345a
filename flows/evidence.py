"""What a candidate is and how it was judged, in words and tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flows.replay.report import ShadowReport
from flows.training.gates import Verdict
from flows.training.report import TrainingReport
from flows.wording import figure, markdown_table, moment
from inference.models.manifest import TimeWindow

_SCORES = ("rmse", "mae", "r2", "hit_rate", "ic", "rmse_skill")
_HEADER = ("who", "RMSE", "MAE", "R²", "directional accuracy", "correlation", "skill against zero")
_TRADE_FIGURES = (
    "trades", "net_per_trade_bps", "net_per_trade_bps_low", "net_per_trade_bps_high", "trade_hit_rate", "net_return",
    "max_drawdown",
)  # fmt: skip
_TRADE_HEADER = ("rule", "trades", "net bps per trade", "95 % from", "to", "winners", "net return", "max drawdown")


def training_markdown(report: TrainingReport, run_page: str) -> str:
    """Say what was trained on what, and how each member compares with the naive baselines."""
    windows = report.windows
    members = [(one.name, figure(one.weight, 3), f"{one.file_bytes / 1024:.0f} KiB") for one in report.members]
    return "\n\n".join(
        [
            f"## Candidate {report.bundle_digest[:12]}",
            f"{what_it_is(report)}\n\n[Run in MLflow]({run_page})",
            "### Members",
            markdown_table(("member", "weight", "file"), members),
            "### Out of sample, on the calibration window",
            scores_table(report.metrics, "calibration", [*_members(report), "ensemble"], report.baselines),
            "### Windows",
            markdown_table(
                ("window", "from", "to"),
                [
                    ("fit", *_span(windows.fit)),
                    ("validation", *_span(windows.validation)),
                    ("calibration", *_span(windows.calibration)),
                    ("shadow (seen by no member)", *_span(windows.shadow)),
                ],
            ),
        ]
    )


def shadow_markdown(report: ShadowReport, run_page: str) -> str:
    """Say how a candidate did on candles that no member saw, net of costs, beside every rule it is compared with."""
    rules = [curve.name for curve in report.curves]
    members = sorted(
        name.split("/")[1] for name in report.metrics if name.endswith("/rmse") and name.split("/")[1] not in rules
    )
    return "\n\n".join(
        [
            f"## Candidate {report.bundle_digest[:12]} in shadow",
            (
                f"{report.candles} candles of {len(report.symbols)} symbols from {moment(report.window.start_ms)} to "
                f"{moment(report.window.end_ms)} UTC that no member saw, net of fees and slippage.\n\n"
                f"[Run in MLflow]({run_page})"
            ),
            *report.notes,
            "### Trades",
            markdown_table(_TRADE_HEADER, [(name, *_trades(report.metrics, name)) for name in rules]),
            "### Earned more than",
            markdown_table(
                ("compared with", "bps per slot", "95 % from", "to"),
                [
                    (
                        name.removeprefix("shadow/ensemble_minus_").removesuffix("/net_per_slot_bps"),
                        *(figure(report.metrics.get(f"{name}{end}")) for end in ("", "_low", "_high")),
                    )
                    for name in report.metrics
                    if name.startswith("shadow/ensemble_minus_") and name.endswith("/net_per_slot_bps")
                ],
            ),
            "### Predictions",
            scores_table(report.metrics, "shadow", ["ensemble", *members], [one for one in rules if one != "ensemble"]),
        ]
    )


def _trades(metrics: Mapping[str, float], who: str) -> list[str]:
    return [figure(metrics.get(f"shadow/{who}/{name}")) for name in _TRADE_FIGURES]


def what_it_is(report: TrainingReport) -> str:
    """Describe a candidate in two sentences."""
    return (
        f"Ensemble of {', '.join(_members(report))} that expects the log return over {report.horizon} candles of "
        f"{report.timeframe} on {len(report.symbols)} symbols, fitted on candles from "
        f"{moment(report.windows.fit.start_ms)} to {moment(report.windows.fit.end_ms)} UTC. "
        f"It enters at a calibrated probability of {figure(report.threshold, 3)} or more."
    )


def how_it_was_judged(verdict: Verdict) -> str:
    """Describe a judgement: the verdict, and every gate with its figure."""
    held = sum(check.passed for check in verdict.checks)
    headline = "passed" if verdict.passed else "refused"
    return f"**{headline}**: {held} of {len(verdict.checks)} gates of mlflow/gates.yaml held.\n\n{gates_table(verdict)}"


def gates_table(verdict: Verdict) -> str:
    """Write every gate as a row."""
    return markdown_table(
        ("gate", "held", "value", "bound", "why"),
        [
            (check.name, "yes" if check.passed else "**no**", figure(check.value), figure(check.bound), check.reason)
            for check in verdict.checks
        ],
    )


def gate_rows(verdict: Verdict) -> list[dict[str, object]]:
    """Return every gate as a row of an artifact."""
    return [
        {
            "gate": check.name,
            "held": check.passed,
            "value": figure(check.value),
            "bound": figure(check.bound),
            "why": check.reason,
        }
        for check in verdict.checks
    ]


def scores_table(metrics: Mapping[str, float], window: str, ours: Sequence[str], baselines: Iterable[str]) -> str:
    """Write the scores of ours and of the naive baselines on one window, one row each."""
    rows = [(name, *_scores(metrics, window, name)) for name in ours]
    rows += [(f"*{name}* (baseline)", *_scores(metrics, window, name)) for name in baselines]
    return markdown_table(_HEADER, rows)


def _scores(metrics: Mapping[str, float], window: str, who: str) -> list[str]:
    return [figure(metrics.get(f"{window}/{who}/{score}")) for score in _SCORES]


def _members(report: TrainingReport) -> list[str]:
    return [one.name for one in report.members]


def _span(window: TimeWindow) -> tuple[str, str]:
    return moment(window.start_ms), moment(window.end_ms)
