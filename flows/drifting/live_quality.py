"""What a worker found of the champion's live opinions, and what a check makes of that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import msgspec

from flows.drifting.check import DriftReport
from flows.drifting.degrading import MeasureFound
from inference.supervision.quality_evidence import FALSE_ALARM_RATE, Measure
from inference.supervision.remembered import MATURED, QUALITY_FOUND_POOR, QUALITY_RECOVERED

HEARD = (MATURED, QUALITY_FOUND_POOR, QUALITY_RECOVERED)
"""The journal's events that tell of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveQuality:
    """
    What is known of one model's live opinions.

    They are `poor` since a worker found so, and until it finds that they have recovered. The figures are of that
    finding: means over independent outcomes, `base_brier` being what always saying the share of rises had scored.
    """

    poor: bool = False
    recovered: bool = False
    measure: str = ""
    outcomes: int = 0
    right: float = 0.0
    brier: float = 0.0
    base_brier: float = 0.0
    evidence: float = 0.0
    promised: float = 0.0

    def after(self, event_type: str, detail: Mapping[str, str]) -> LiveQuality:
        """Return what is known after a further event of the journal."""
        if event_type == QUALITY_RECOVERED:
            return LiveQuality(recovered=True)
        if event_type != QUALITY_FOUND_POOR:
            return self
        return LiveQuality(
            poor=True,
            measure=detail["measure"],
            outcomes=int(detail["outcomes"]),
            right=float(detail["right"]),
            brier=float(detail["brier"]),
            base_brier=float(detail["base_brier"]),
            evidence=float(detail["evidence"]),
            promised=float(detail.get("promised", "0")),
        )


def with_live_quality(report: DriftReport, found: LiveQuality | None) -> DriftReport:
    """
    Return a report that counts what a worker found of live opinions among the champion's results.

    A champion whose opinions were found poor has degraded. The worker's test errs at a rate of its own, which is added
    to that of the check wherever a worker watches; None is that none does.
    """
    if found is None:
        return report
    rate = report.false_alarm_rate + FALSE_ALARM_RATE
    before = report.performance
    if found.recovered:
        # Somebody judged, also where the check itself knows too little: what was found is over.
        over = msgspec.structs.replace(before, state="judged", note=f"{before.note}; live opinions have recovered")
        return msgspec.structs.replace(report, performance=over, false_alarm_rate=rate)
    if not found.poor:
        return msgspec.structs.replace(report, false_alarm_rate=rate)
    by = {
        Measure.HIT_RATE.value: "hit rate",
        Measure.BRIER.value: "Brier score",
        Measure.PROMISED.value: f"hit rate, where training promised {found.promised:.1%}",
    }[found.measure]
    note = (
        f"the worker found live opinions poor by their {by}: {found.right:.1%} right, Brier score {found.brier:.4f} "
        f"where always saying the share of rises scores {found.base_brier:.4f}, over {found.outcomes} independent "
        f"outcomes"
    )
    performance = msgspec.structs.replace(
        before,
        state="judged",
        note=note,
        evidence=max(before.evidence, before.limit, found.evidence),
        measures=(*before.measures, _row(found, before.limit)),
    )
    return msgspec.structs.replace(report, performance=performance, false_alarm_rate=rate)


def _row(found: LiveQuality, limit: float) -> MeasureFound:
    name, observed = {
        Measure.HIT_RATE.value: ("live_hit_rate_above_half", found.right - 0.5),
        Measure.BRIER.value: ("live_brier_gain", found.base_brier - found.brier),
        Measure.PROMISED.value: ("live_hit_rate_above_halfway", found.right - (0.5 + found.promised) / 2),
    }[found.measure]
    return MeasureFound(
        name=name,
        unit="",
        expected=0.0,
        observed=observed,
        held_to=0.0,
        blocks_before=0,
        blocks_now=found.outcomes,
        evidence=max(found.evidence, limit),
    )
