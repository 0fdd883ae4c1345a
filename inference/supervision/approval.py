"""Which bundles may trade real money: those whose verdict and whose approval by a person are journaled."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from inference.domain.errors import BundleError
from inference.models.registry import ModelVersion

VERDICT, APPROVED = "model.verdict", "model.approved"
_LIVE, _TEST_NETWORK = "live", "testnet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Approval:
    """A person's word for one bundle, as the registry holds it; `approved_at` is ISO 8601 in UTC."""

    digest: str
    by: str
    approved_at: str
    verdict: str


def approval_of(version: ModelVersion) -> Approval | None:
    """Return the approval that a version's tags hold, None where one of its parts is missing."""
    found = [version.tags.get(f"approved_{name}", "").strip() for name in ("digest", "by", "at", "verdict")]
    digest, by, moment, verdict = found
    return Approval(digest=digest, by=by, approved_at=moment, verdict=verdict) if all(found) else None


def require_approved(version: ModelVersion, digest: str, *, venue: str) -> Approval:
    """
    Return the approval by which a version may trade real money on a venue.

    Raises:
        BundleError: The gates did not pass it, it was trained on another venue, nobody approved it, or the approval is
            of another bundle.
    """
    if not version.is_gated:
        raise BundleError(
            f"QT_MODE=live trades only what the gates passed: version {version.version} has the tag "
            f"gate_verdict={version.tags.get('gate_verdict', 'missing')}. Judge it: qtctl promote {version.version}"
        )
    if version.tags.get("gate_mode") != _LIVE:
        raise BundleError(
            f"Version {version.version} was judged for QT_MODE={version.tags.get('gate_mode', 'sandbox')}, where less "
            f"must be shown. Judge it for real money: QT_MODE=live qtctl promote {version.version}"
        )
    trained_on = version.tags.get("venue", "")
    if trained_on != venue:
        raise BundleError(
            f"Version {version.version} was trained on {trained_on or 'a venue that its tags do not name'}, "
            f"this worker trades {venue}. Train on what is traded: QT_VENUE={venue} qtctl retrain"
        )
    approval = approval_of(version)
    if approval is None:
        raise BundleError(
            f"QT_MODE=live needs a person's approval of version {version.version}: "
            f"qtctl approve {version.version} --by NAME"
        )
    if approval.digest != digest:
        raise BundleError(
            f"The approval of version {version.version} is of bundle {approval.digest[:12]}, its bundle has "
            f"{digest[:12]}. Do not trade it; train again."
        )
    return approval


def evidence_of(
    version: ModelVersion, approval: Approval, digest: str, *, venue: str
) -> list[tuple[str, Mapping[str, str]]]:
    """Return what must be journaled before a bundle trades real money on a venue, as events with their detail."""
    of = {"version": version.version, "digest": digest}
    return [
        (VERDICT, {**of, "verdict": "passed", "mode": _LIVE, "venue": venue, "source": "registry"}),
        (APPROVED, {**of, "by": approval.by, "decided_at": approval.approved_at, "verdict": approval.verdict}),
    ]


def journaled_approvals(events: Iterable[tuple[str, Mapping[str, Any]]], *, venue: str) -> frozenset[str]:
    """
    Return the digests of bundles of which both a passing verdict and an approval are journaled.

    A verdict counts that was passed for real money on that venue: in the sandbox less must be shown. A later one that
    is not a passing one, wherever, takes it back until there is another. What was said of a test network lets nothing
    trade real money, whoever said it.

    Args:
        events: Type and data of journal entries, in their order.
        venue: What the worker trades.
    """
    passed: set[str] = set()
    approved: set[str] = set()
    for kind, data in events:
        digest = str(data.get("digest", ""))
        if kind == VERDICT and data.get("verdict") in ("passed", "promoted"):
            if data.get("mode") == _LIVE and data.get("venue") == venue:
                passed.add(digest)
        elif kind == VERDICT:
            passed.discard(digest)
        elif kind == APPROVED and data.get("mode") != _TEST_NETWORK:
            approved.add(digest)
    return frozenset((passed & approved) - {""})
