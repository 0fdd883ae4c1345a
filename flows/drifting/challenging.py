"""Whether what a challenger reads has left its training behind, while it is held back and tried."""

from __future__ import annotations

from flows.drifting.check import FALSE_ALARM_RATES, DriftReport, GroupDrift, Stretches, group_drift
from flows.drifting.degrading import Degradation

_RATE = FALSE_ALARM_RATES["inputs"]
_NO_RESULTS = "a challenger trades nothing: what it earns is told by its shadow"


def inputs_report(read: Stretches, *, version: str, end_ms: int, hours: int) -> DriftReport:
    """Judge the inputs of a challenger, and nothing else of it, by the check that a champion's are judged by."""
    return _report(group_drift(read), version, end_ms, hours)


def inputs_unknown(note: str, *, version: str, end_ms: int, hours: int) -> DriftReport:
    """Return the report of a challenger whose inputs cannot be read, and why."""
    group = GroupDrift(name="inputs", state="too-few", note=note, stretches=0, rows=0, false_alarm_rate=_RATE)
    return _report(group, version, end_ms, hours)


def _report(group: GroupDrift, version: str, end_ms: int, hours: int) -> DriftReport:
    return DriftReport(
        version=version,
        end_ms=end_ms,
        hours=hours,
        false_alarm_rate=_RATE,
        groups=(group,),
        performance=Degradation(state="not-judged", note=_NO_RESULTS, evidence=0.0, limit=1.0, days=0.0),
    )
