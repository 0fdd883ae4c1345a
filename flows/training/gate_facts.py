"""What must be so, without a number: about what the reports are, and what people did."""

from __future__ import annotations

from flows.training.report import ShadowReport, TrainingReport
from flows.training.verdict import Finding, GateCheck


def same_bundle(training: TrainingReport, shadow: ShadowReport) -> GateCheck:
    """Say whether both reports are about one bundle and its own locked window."""
    same = training.bundle_digest == shadow.bundle_digest and training.windows.shadow == shadow.window
    return fact(
        "same_bundle",
        Finding.HELD if same else Finding.FAILED,
        "Both reports are about the same bundle and its own locked window."
        if same
        else "The reports are about different bundles or another window; run the shadow again.",
    )


def of_the_past(as_of: str) -> GateCheck:
    """Refuse what was trained as of a past moment."""
    return fact(
        "of_the_present",
        Finding.FAILED,
        f"It was trained as of {as_of}, to be looked at; what trades is judged on the newest candles.",
    )


def rolled_back() -> GateCheck:
    """Refuse what a rollback set aside."""
    return fact(
        "not_set_aside",
        Finding.FAILED,
        "A rollback set it aside. Whoever knows better deletes its tag status in MLflow and has it judged again.",
    )


def same_champion(shadow: ShadowReport, champion_digest: str) -> GateCheck:
    """Say whether the shadow compared it with the champion that trades now."""
    # A champion that could not be loaded in shadow cannot trade either: there is nothing to be better than.
    same = shadow.champion_digest == champion_digest or "shadow/champion_unusable" in shadow.metrics
    return fact(
        "same_champion",
        Finding.HELD if same else Finding.MISSING,
        "The shadow compared it with the champion of today."
        if same
        else "The champion has changed since the shadow, or was not compared; run the shadow again.",
    )


def approval(training: TrainingReport, approved_digest: str | None) -> GateCheck:
    """Say whether a person approved this very bundle."""
    given = approved_digest == training.bundle_digest
    return fact(
        "approval",
        Finding.HELD if given else Finding.MISSING,
        "A person approved this bundle."
        if given
        else "QT_MODE=live needs a person's approval of this bundle: qtctl approve VERSION --by NAME.",
    )


def fact(name: str, finding: Finding, reason: str) -> GateCheck:
    """Return a check that holds or not, as 1 or 0 against 1."""
    return GateCheck(name=name, finding=finding, value=float(finding is Finding.HELD), bound=1.0, reason=reason)
