"""What flows hand to each other: a candidate, its reports, and whether it was promoted."""

from __future__ import annotations

import msgspec

from flows.training.verdict import Decision

# What a candidate's MLflow run holds, by path.
TRAINING_REPORT, TRAINING_CONFIG = "reports/training.json", "reports/config.json"
SHADOW_REPORT = "reports/shadow.json"
MODEL_CARD = "reports/card.md"
LIVE_SHADOW_REPORT = "reports/live_shadow.json"
VERDICT_REPORT, REPORT_PAGE = "reports/verdict.json", "reports/report.html"


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """A registered version with the run and the bundle behind it."""

    version: str
    run_id: str
    bundle_digest: str


class Promotion(msgspec.Struct, frozen=True, kw_only=True):
    """
    How judging a version ended; `reasons` name every gate that was not held, `missing` those that lack evidence.

    `promoted` is whether the version trades, `verdict` whether it was promoted, held back or refused.
    """

    promoted: bool
    version: str
    run_id: str
    reasons: tuple[str, ...]
    replaced: str | None = None
    verdict: Decision = Decision.PROMOTED
    missing: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What became of the version, to go after its number."""
        return {
            Decision.PROMOTED: "was promoted: it is champion and trades",
            Decision.HELD: "is held back: nothing speaks against it, but evidence is missing",
            Decision.REFUSED: "was refused",
        }[self.verdict]


class Rollback(msgspec.Struct, frozen=True, kw_only=True):
    """
    How a rollback ended: version `replaced` was set aside, and `version` was to trade instead.

    `restored` is whether that one passed a worker's own checks; where it did not, nothing takes its place. `repeated`
    is whether it had been done before, `only_here` whether only the worker of this home knows of it, since MLflow did
    not answer. `reasons` say why it was not restored, and why it was done here only.
    """

    version: str
    replaced: str
    restored: bool
    run_id: str = ""
    repeated: bool = False
    only_here: bool = False
    reasons: tuple[str, ...] = ()

    @property
    def sentence(self) -> str:
        """What was done and what follows, for a person."""
        aside = f"Version {self.replaced} {'was set aside before' if self.repeated else 'is set aside'}"
        aside += " in this home" if self.only_here else ""
        if not self.restored:
            said = f"{aside} and enters nothing more, but version {self.version} cannot take its place."
        elif self.only_here:
            said = f"{aside}: a worker that runs there goes back to version {self.version} with its next candle."
        else:
            said = f"{aside} for version {self.version}, which is champion: workers follow with their next candle."
        lines = [said, *(f"  {reason}" for reason in self.reasons)]
        if self.only_here:
            lines.append("  Run 'qtctl rollback' again once MLflow answers: until then its aliases stay as they are.")
        if not self.restored:
            lines.append("  Let another trade: qtctl promote VERSION")
        return "\n".join(lines)


class Approval(msgspec.Struct, frozen=True, kw_only=True):
    """
    A person's word for one version: which bundle, by whom, when (ISO 8601, UTC), and how the gates had judged it.

    Where it was not `approved`, `reason` says why and what to do.
    """

    approved: bool
    version: str
    bundle_digest: str
    by: str
    approved_at: str
    verdict: str
    reason: str = ""
