"""What a drift check found, in words, rows and plain values."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Literal

import msgspec

from flows.drifting.check import DriftReport, GroupDrift, Verdict
from flows.drifting.degrading import Degradation
from flows.drifting.distances import STATISTICS
from flows.wording import figure, markdown_table, moment
from inference.models.notices import DriftNotice

_LEVELS = {Verdict.STABLE: 0.0, Verdict.DRIFTED: 1.0, Verdict.DEGRADED: 2.0}
_SHOWN = 12


class ChallengerDrift(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of the inputs of a challenger that is held back."""

    version: str
    verdict: str
    summary: str
    drifted: tuple[str, ...]


class DriftResult(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a check ended: its verdict, what came of it, and what was found where.

    `challenger` is there where one is held back, and was looked at too; nothing is retrained on it.
    """

    verdict: str
    version: str | None
    run_id: str | None
    retraining: str
    summary: str
    drifted: dict[str, tuple[str, ...]]
    evidence: float
    evidence_limit: float
    false_alarm_rate: float
    challenger: ChallengerDrift | None = None

    @property
    def found(self) -> bool:
        """Whether the champion degraded, or what it sees drifted."""
        return self.verdict in (Verdict.DEGRADED, Verdict.DRIFTED)


def headline(report: DriftReport) -> str:
    """Say in a line what was found, the most urgent first."""
    until = f"version {report.version}, the {report.hours} hours until {moment(report.end_ms)}"
    match report.verdict:
        case Verdict.DEGRADED:
            return f"The champion degraded: {report.performance.note} ({until})"
        case Verdict.DRIFTED:
            return f"{_moved(report)} drifted; the champion's results have not ({until})"
        case Verdict.TOO_FEW:
            return f"Nothing could be judged: {report.groups[0].note if report.groups else 'no groups'} ({until})"
        case _:
            return f"Nothing drifted ({until})"


def challenger_headline(report: DriftReport) -> str:
    """Say in a line what was found of the inputs of a challenger that is held back."""
    until = f"version {report.version}, the {report.hours} hours until {moment(report.end_ms)}"
    match report.verdict:
        case Verdict.DRIFTED:
            return f"{_moved(report)} of the challenger that is held back drifted ({until})"
        case Verdict.TOO_FEW:
            return f"The challenger that is held back could not be judged: {report.groups[0].note} ({until})"
        case _:
            return f"No input of the challenger that is held back drifted ({until})"


def challenger_summary(report: DriftReport, page: str) -> str:
    """Return what was found of a challenger as markdown, the inputs that moved furthest first."""
    group = report.groups[0]
    lines = [
        f"## {challenger_headline(report)}",
        (
            f"[Run of the challenger in MLflow]({page}). It trades nothing, so nothing is retrained on what is found; "
            f"where nothing changed, {report.false_alarm_rate:.1%} of checks speak."
        ),
        f"### Inputs: {_group_line(group)}",
    ]
    rows = column_rows(report)[:_SHOWN]
    if rows:
        kept = [name for name in rows[0] if name != "of"]
        lines.append(markdown_table(kept, [[row[name] for name in kept] for row in rows]))
    return "\n\n".join(lines)


def _moved(report: DriftReport) -> str:
    found = [f"{_some(group.drifted)} of the {group.name}" for group in report.groups if group.found]
    return " and ".join(found)


def _some(names: tuple[str, ...]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


def performance_rows(found: Degradation) -> list[dict[str, Any]]:
    """Return a row for each measure of performance, what speaks most against the champion first."""
    ordered = sorted(found.measures, key=lambda one: -one.evidence)
    return [
        {
            "measure": one.name,
            "at promotion": figure(one.expected),
            "since": figure(one.observed),
            "held to": figure(one.held_to),
            "blocks": f"{one.blocks_before} / {one.blocks_now}",
            "evidence": figure(one.evidence, 3),
        }
        for one in ordered
    ]


def column_rows(report: DriftReport) -> list[dict[str, Any]]:
    """Return a row for each column, by group, the furthest first; a limit beside each distance."""
    return [
        {
            "of": group.name,
            "column": one.name,
            "state": one.state if group.found or one.state != "drifted" else "judged",
            **{
                name: f"{figure(one.distances.get(name), 3)} / {figure(one.limits.get(name), 3)}" for name in STATISTICS
            },
            "median then": figure(one.median_before),
            "median now": figure(one.median_now),
            "missing now": figure(one.missing_now, 3),
        }
        for group in report.groups
        for one in group.columns
    ]


def summary(report: DriftReport, page: str, asked: str) -> str:
    """Return the report that a person reads in a minute, as markdown: results first, then what moved."""
    performance = report.performance
    lines = [
        f"## {headline(report)}",
        f"[Run of the champion in MLflow]({page}) holds the figures and Evidently's page. Retraining: **{asked}**.",
        f"### Results: {performance.state}, evidence {figure(performance.evidence, 3)} of {figure(performance.limit)}",
        f"{performance.note}. Matured for {performance.days:.1f} days.",
    ]
    if performance.measures:
        rows = performance_rows(performance)
        lines.append(markdown_table(list(rows[0]), [list(row.values()) for row in rows]))
    for group in report.groups:
        lines.append(f"### {group.name.capitalize()}: {_group_line(group)}")
        rows = [row for row in column_rows(report) if row["of"] == group.name][:_SHOWN]
        if rows:
            kept = [name for name in rows[0] if name != "of"]
            lines.append(markdown_table(kept, [[row[name] for name in kept] for row in rows]))
    lines += [f"{note}." for note in report.notes]
    lines.append(
        f"A distance stands beside the one that would be drift by itself. Where nothing changed, "
        f"{report.false_alarm_rate:.1%} of checks speak, all parts together."
    )
    return "\n\n".join(lines)


def _group_line(group: GroupDrift) -> str:
    if group.state != "judged":
        return group.note
    said = f"{len(group.drifted)} of {len(group.columns)} drifted, " if group.found else "none drifted, "
    said += f"score {figure(group.score, 3)} of {figure(group.limit, 3)} over {group.stretches} stretches"
    return f"{said}. {group.note}" if group.note else said


def notice(report: DriftReport, role: Literal["champion", "challenger"], now: datetime, asked: str = "") -> DriftNotice:
    """
    Return what a check found, with every figure to six digits, for the journal of the worker of this home.

    Args:
        report: What was found.
        role: Of which model.
        now: When it was found.
        asked: Whether a retraining is asked for.
    """
    return DriftNotice(
        version=report.version,
        role=role,
        verdict=report.verdict,
        hours=report.hours,
        window_ended_at=datetime.fromtimestamp(report.end_ms / 1000, tz=UTC).isoformat(),
        checked_at=now.isoformat(timespec="microseconds"),
        retraining=asked,
        false_alarm_rate=report.false_alarm_rate,
        figures=(*_figures_of_groups(report), *_figures_of_performance(report.performance)),
    )


_Figure = tuple[str, str, str, float | None, float | None, str]


def _figures_of_groups(report: DriftReport) -> Iterator[_Figure]:
    for group in report.groups:
        yield group.name, "", "score", _short(group.score), _short(group.limit), group.state
        for one in group.columns:
            for name, value in one.distances.items():
                yield group.name, one.name, name, _short(value), _short(one.limits.get(name)), one.state


def _figures_of_performance(found: Degradation) -> Iterator[_Figure]:
    yield "performance", "", "evidence", _short(found.evidence), _short(found.limit), found.state
    for one in found.measures:
        yield "performance", one.name, "observed", _short(one.observed), _short(one.held_to), found.state


def _short(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def metrics(report: DriftReport) -> dict[str, float]:
    """Return the figures as MLflow keeps them: distances by statistic and column, scores, evidence and verdict."""
    found: dict[str, float] = {}
    for group in report.groups:
        if group.state != "judged":
            continue
        found |= {f"drift/{group.name}_score": group.score, f"drift/{group.name}_limit": group.limit}
        for one in group.columns:
            found |= {f"drift/{name}/{one.name}": value for name, value in one.distances.items()}
        for name in STATISTICS:
            distances = [one.distances[name] for one in group.columns if one.distances]
            found[f"drift/{group.name}_{name}_max"] = max(distances, default=0.0)
    found["drift/performance_evidence"] = report.performance.evidence
    found |= {f"drift/performance/{one.name}": one.observed for one in report.performance.measures}
    if report.verdict in _LEVELS:
        found["drift/verdict"] = _LEVELS[report.verdict]
    return {name: value for name, value in found.items() if value == value}  # noqa: PLR0124 - NaN is not itself
