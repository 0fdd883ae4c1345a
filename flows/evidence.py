"""What a candidate is and how it was judged, in words and tables for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from flows.replay.report import ShadowReport, WorkerReplay
from flows.training.importance import told_distances
from flows.training.report import CANDLE_FIGURES, CANDLE_WINDOWS, WORKER_FIGURES, TrainingReport
from flows.training.tripwires import TripwireError
from flows.training.verdict import Decision, Finding, Verdict
from flows.unreplayed import not_replayed
from flows.wording import figure, markdown_table, moment
from inference.models.card import IN_SAMPLE
from inference.models.manifest import TimeWindow

# What the column of MLflow's database holds; PostgreSQL refuses more.
_MAX_DESCRIPTION = 5000
_DAY_MS = 86_400_000
_SCORES = ("rmse", "mae", "r2", "hit_rate", "ic", "rmse_skill")
_HEADER = ("who", "RMSE", "MAE", "R²", "directional accuracy", "correlation", "skill against zero")
_WINDOWS = {
    "fit": "fit: members",
    "validation": "validation: weights, scale, probabilities, threshold",
    "calibration": "calibration: scale, probabilities, threshold",
    "shadow": "shadow: seen by no part of it",
}
_TRADE_FIGURES = (
    "trades", "net_per_trade_bps", "net_per_trade_bps_low", "net_per_trade_bps_high", "trade_hit_rate", "net_return",
    "max_drawdown",
)  # fmt: skip
_STATED_FIGURES = ("brier", "brier_low", "brier_high", "calibration_error", "calibration_error_low",
                   "calibration_error_high", "icir_of_days")  # fmt: skip
_STATED_HEADER = ("who", "Brier score", "95 % from", "to", "calibration error", "95 % from", "to", "ICIR by day")
_TRADE_HEADER = ("rule", "trades", "net bps per trade", "95 % from", "to", "winners", "net return", "max drawdown")


def training_markdown(report: TrainingReport, run_page: str) -> str:
    """Say what was trained on what, and how each member compares with the naive baselines."""
    windows = report.windows
    members = [
        (
            one.name,
            figure(one.weight, 3) if one.weight else "none: compared with",
            one.consumes,
            f"{one.draws} files" if one.draws > 1 else one.file,
            f"{one.file_bytes / 1024:.0f} KiB",
            one.device,
            figure(report.metrics.get(f"training/{one.name}/seconds"), 3),
        )
        for one in (*report.members, *report.compared)
    ]
    return "\n\n".join(
        [
            f"## Candidate {report.bundle_digest[:12]}",
            f"{what_it_is(report)}\n\n[Run in MLflow]({run_page})",
            "### Members",
            f"Mode {report.mode}, weighed by {report.weighting}.",
            markdown_table(("member", "weight", "reads", "file", "size", "trained on", "seconds"), members),
            *heads_told(report.metrics, "calibration"),
            *_learned_elsewhere(report.metrics),
            "### On the calibration window",
            IN_SAMPLE,
            scores_table(report.metrics, "calibration", [*_members(report), "ensemble"], _beside(report)),
            "### Out of fold, with cheap refits",
            folds_table(report.metrics),
            "### Windows",
            markdown_table(
                ("window", "from", "to", "rows"),
                [
                    (told, *_span(getattr(windows, name)), str(report.rows.get(name, "")))
                    for name, told in _WINDOWS.items()
                ],
            ),
            "### Candles",
            candles_table(report.metrics),
        ]
    )


def stopped_markdown(error: TripwireError) -> str:
    """Say which tripwires stopped a training, with figures and bounds, and what to do."""
    rows = [(trip.wire, trip.told, figure(trip.value), figure(trip.bound), trip.remedy) for trip in error.trips]
    return "\n\n".join(
        [
            f"## Training was stopped: {', '.join(error.wires)}",
            "Nothing was registered, no alias moved, and what traded goes on trading.",
            markdown_table(("tripwire", "what was found", "figure", "bound", "what to do"), rows),
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
                f"{report.candles} candles of {len(report.symbols)} symbols, {report.rows} rows scored, from "
                f"{moment(report.window.start_ms)} to {moment(report.window.end_ms)} UTC that no member saw, net of "
                "fees and slippage.\n\n"
                f"[Run in MLflow]({run_page})"
            ),
            *report.notes,
            "### Trades",
            markdown_table(_TRADE_HEADER, [(name, *_trades(report.metrics, name)) for name in (*rules, *members)]),
            *_worker(report),
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
            markdown_table(_STATED_HEADER, [(name, *_stated(report.metrics, name)) for name in (*rules, *members)]),
            *heads_told(report.metrics, "shadow"),
            "### Candles",
            candles_table(report.metrics),
        ]
    )


def _worker(report: ShadowReport) -> list[str]:
    """Say what the worker's own decisions would have made of the same candles, and show its account day by day."""
    if report.worker is None:
        return []
    rows = [
        (text, *(figure(report.metrics.get(f"shadow/worker/{name}{end}")) for end in ("", "_low", "_high")))
        for name, text in WORKER_FIGURES
    ]
    days = account_by_day(report.worker)
    return [
        "### What the worker would have made of it",
        (
            f"Its own decisions, with stops, limits, fees, spread and funding, from {report.worker.balance} of the "
            f"quote, by policy {report.worker.policy_fingerprint[:12]}."
        ),
        *not_replayed(report.worker.policy),
        markdown_table(("figure", "value", "95 % from", "to"), rows),
        markdown_table(("its account at", "equity"), [(moment(at), f"{equity:,.2f}") for at, equity in days]),
    ]


def account_by_day(replay: WorkerReplay) -> list[tuple[int, float]]:
    """Return the account at the start, at the last mark of each UTC day, and at the end."""
    if not replay.time_ms:
        return []
    day = [(at - 1) // _DAY_MS for at in replay.time_ms]
    last = [place for place in range(len(day)) if place + 1 == len(day) or day[place + 1] > day[place]]
    return [(replay.time_ms[place], replay.equity[place]) for place in dict.fromkeys([0, *last])]


def _trades(metrics: Mapping[str, float], who: str) -> list[str]:
    return [figure(metrics.get(f"shadow/{who}/{name}")) for name in _TRADE_FIGURES]


def _stated(metrics: Mapping[str, float], who: str) -> list[str]:
    return [figure(metrics.get(f"shadow/{who}/{name}")) for name in _STATED_FIGURES]


def candles_table(metrics: Mapping[str, float]) -> str:
    """Say how good the candles of each window were that the figures tell of."""
    rows = [
        (window, *(figure(metrics.get(f"{window}/{name}")) for name, _ in CANDLE_FIGURES))
        for window in CANDLE_WINDOWS
        if any(f"{window}/{name}" in metrics for name, _ in CANDLE_FIGURES)
    ]
    return markdown_table(("window", *(text for _, text in CANDLE_FIGURES)), rows)


def what_it_is(report: TrainingReport) -> str:
    """Describe a candidate in two sentences."""
    return (
        f"Ensemble of {', '.join(_members(report))} that expects the log return over {report.horizon} candles of "
        f"{report.timeframe} on {len(report.symbols)} symbols, fitted on candles from "
        f"{moment(report.windows.fit.start_ms)} to {moment(report.windows.fit.end_ms)} UTC. "
        f"It enters at a calibrated probability of {figure(report.threshold, 3)} or more."
    )


def description(card: str, judged: str) -> str:
    """Return what a registered version says of itself: its card and how it was judged, as much as MLflow keeps."""
    whole = f"{card}\n\n## Gates\n\n{judged}"
    if len(whole) <= _MAX_DESCRIPTION:
        return whole
    rest = "\n\nThe rest is in the run: reports/card.md and reports/gates.md."
    return whole[: _MAX_DESCRIPTION - len(rest)].rpartition("\n")[0] + rest


_GATE_WORDS = {Finding.HELD: "yes", Finding.FAILED: "**no**", Finding.MISSING: "not yet"}


def verdict_word(verdict: Verdict) -> str:
    """Return what the tag `gate_verdict` says, by which the worker knows what may trade: passed, held or refused."""
    return "passed" if verdict.passed else verdict.decision.value


def reasons_of(verdict: Verdict) -> tuple[str, ...]:
    """Return every gate that was not held; of a version that passed, that all were."""
    unmet = tuple(
        f"{check.name} was {figure(check.value)}, bound {figure(check.bound)}. {check.reason}"
        for check in verdict.refusals
    )
    return unmet or (f"all {len(verdict.checks)} gates held",)


def how_it_was_judged(verdict: Verdict) -> str:
    """Describe a judgement: the verdict, and every gate with its figure."""
    held = sum(check.passed for check in verdict.checks)
    lacks = ""
    if verdict.decision is Decision.HELD:
        lacks = f" Missing: {', '.join(check.name for check in verdict.missing)}."
    return (
        f"**{verdict_word(verdict)}**: {held} of {len(verdict.checks)} gates of mlflow/gates.yaml held.{lacks}\n\n"
        f"{gates_table(verdict)}"
    )


def gates_table(verdict: Verdict) -> str:
    """Write every gate as a row."""
    return markdown_table(
        ("gate", "held", "value", "bound", "why"),
        [
            (check.name, _GATE_WORDS[check.finding], figure(check.value), figure(check.bound), check.reason)
            for check in verdict.checks
        ],
    )


def gate_rows(verdict: Verdict) -> list[dict[str, object]]:
    """Return every gate as a row of an artifact."""
    return [
        {
            "gate": check.name,
            "held": check.passed,
            "finding": check.finding.value,
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


def folds_table(metrics: Mapping[str, float]) -> str:
    """Write what walk-forward folds and the histories of combinatorial ones say of each refit, one row each."""
    rows = []
    for scheme, count, what in (("walk_forward", "folds", "walk-forward"), ("cpcv", "paths", "combinatorial, purged")):
        told = f"{what}, {metrics.get(f'{scheme}/{count}', 0):.0f} {count}"
        ending = "/ic_mean"
        for name in sorted(key for key in metrics if key.startswith(f"{scheme}/") and key.endswith(ending)):
            place = name.removesuffix(ending)
            figures = ("ic_mean", "ic_std", "net_per_slot_bps_mean", "sharpe_mean", "net_per_slot_bps_negative_share")
            rows.append((told, place.split("/")[1], *(figure(metrics.get(f"{place}/{one}"), 3) for one in figures)))
    header = ("folds", "refit", "correlation", "its spread", "net bps per slot", "Sharpe", "share that lost")
    return markdown_table(header, rows) if rows else "The stretch was too short for folds."


def _scores(metrics: Mapping[str, float], window: str, who: str) -> list[str]:
    return [figure(metrics.get(f"{window}/{who}/{score}")) for score in _SCORES]


def _beside(report: TrainingReport) -> list[str]:
    return [*(one.name for one in report.compared), *report.baselines]


def heads_told(metrics: Mapping[str, float], window: str) -> list[str]:
    """Say how well a bundle answers beside the expected return in a window; nothing where it answers nothing more."""
    found = {name.removeprefix(f"{window}/"): value for name, value in metrics.items() if name.startswith(f"{window}/")}
    said = []
    if "quantile/asked" in found:
        ends = [figure(found.get(f"quantile/coverage{end}"), 3) for end in ("", "_low", "_high")]
        said.append(
            f"Its interval held {ends[0]} (95 % from {ends[1]} to {ends[2]}) of outcomes where "
            f"{figure(found.get('quantile/asked'), 3)} was asked, {figure(found.get('quantile/width_bps'))} bps wide."
        )
    if "direction/brier" in found:
        said.append(
            f"Its probability of a rise has a Brier score of {figure(found.get('direction/brier'))}, "
            f"the ensemble's own of {figure(found.get('ensemble/brier'))}."
        )
    return said


def _learned_elsewhere(metrics: Mapping[str, float]) -> list[str]:
    found = [f"{name} {figure(value, 3)}" for name, value in told_distances(metrics).items()]
    return [f"Learned from other inputs than the champion (0 none of it, 1 all): {', '.join(found)}."] if found else []


def _members(report: TrainingReport) -> list[str]:
    return [one.name for one in report.members]


def _span(window: TimeWindow) -> tuple[str, str]:
    return moment(window.start_ms), moment(window.end_ms)
