"""Which events whoever supervises the trading asks for."""

from __future__ import annotations

SECTIONS: dict[str, tuple[str, ...]] = {
    "verdicts": ("model.verdict",),
    "approvals": ("model.approved", "model.rolled_back", "model.fell_back", "model.loaded", "model.unloaded"),
    "policy": ("policy.loaded", "policy.updated", "policy.store_failed", "policy.store_recovered"),
    "limits": ("risk.limit_exceeded", "risk.committee_chartered", "risk.committee_resolved"),
    "stops": (
        "risk.emergency",
        "risk.emergency_action",
        "risk.emergency_confirmed",
        "risk.emergency_reset",
        "risk.breaker_opened",
        "risk.breaker_closed",
        "health.halted",
    ),
    "corrections": (
        "risk.corrected",
        "risk.position_found_changed",
        "risk.report_unexplained",
        "audit.not_reproduced",
        "health.restored",
    ),
    "anchors": ("health.anchor_failed", "health.anchor_recovered", "health.anchor_replaced"),
}
"""Types of events by what they tell: who allowed what, by which rules, what was stopped and put right."""

SECTION_OF: dict[str, str] = {kind: part for part, kinds in SECTIONS.items() for kind in kinds}
