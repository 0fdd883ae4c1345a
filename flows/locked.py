"""The locked window: used once for each candidate; every look is counted where people compare candidates."""

from __future__ import annotations

import msgspec

from flows.registry import Registry, RunLog
from flows.replay.report import ShadowReport
from flows.trials import LOOK_TAG, SETS_TAG, looks_at

LOCKED_USES = "shadow/locked_uses"
"""The metric of a candidate's run that counts how often its locked window was looked at."""


def count_look(registry: Registry, run_id: str, look: str, when: str, *, sets: int = 0) -> int:
    """
    Note that a candidate's locked window is about to be looked at, and return how many looks that makes.

    It is noted before anything is scored, so that a look whose run dies counts as well. Each has a tag of its own, by
    its name: the same one is counted once, however often its task is tried, and two at a time do not miss each other.

    Args:
        registry: Where the run is.
        run_id: Of the candidate's training.
        look: Name of this look: the retraining job that it is part of, or else the id of the flow run.
        when: The moment, for people.
        sets: How many sets of trading rules it tries beside the one that is judged.
    """
    tags = {f"{LOOK_TAG}{look}": when} | ({f"{SETS_TAG}{look}": str(sets)} if sets else {})
    registry.log(run_id, RunLog(tags=tags))
    looks = looks_at(registry.run_tags(run_id))
    registry.log(run_id, RunLog(metrics={LOCKED_USES: float(len(looks))}))
    return len(looks)


def with_looks(report: ShadowReport, looks: int) -> ShadowReport:
    """Return the report with the number of looks in its figures, and with a remark where it was not the first."""
    notes = report.notes
    if looks > 1:
        remark = (
            f"**This is look {looks} at the locked window.** What was changed, or chosen to be kept, since the first "
            "one knows what is in it: only the first judges honestly."
        )
        notes = (*notes, remark)
    return msgspec.structs.replace(report, metrics={**report.metrics, LOCKED_USES: float(looks)}, notes=notes)
