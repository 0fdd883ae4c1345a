"""What the committee resolved, as the chain heeds it: a veto, a smaller budget, a cap on what a symbol carries."""

from __future__ import annotations

from decimal import Decimal

from msgspec import UnsetType

from inference.domain.decision import DenyCode, Snapshot
from inference.domain.governance import Stance
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.refusal import Refusal, refuse
from inference.risk.sizing import Size


def committee_refusal(symbol: str, snapshot: Snapshot) -> Refusal | None:
    """Refuse what an enforced resolution vetoes; exits are not asked."""
    resolution = snapshot.resolution
    if isinstance(resolution, UnsetType):
        return None
    why = resolution.veto_of(symbol)
    if why is None and resolution.stance is not Stance.EXITS_ONLY:
        return None
    told = why or "; ".join(f"{vote.role}: {text}" for vote in resolution.votes for text in vote.because)
    return refuse(DenyCode.COMMITTEE_VETO, stance=resolution.stance, why=told)


def committee_budget(snapshot: Snapshot) -> Decimal:
    """Return the share of the policy's risk that an enforced resolution leaves to each trade; all of it without one."""
    resolution = snapshot.resolution
    return Decimal(1) if isinstance(resolution, UnsetType) else resolution.budget


def committee_cap(symbol: str, size: Size, *, snapshot: Snapshot, load: PortfolioLoad) -> Refusal | None:
    """Refuse an entry that would take a symbol above its cap, what it carries included."""
    resolution = snapshot.resolution
    cap = None if isinstance(resolution, UnsetType) else resolution.caps.get(symbol)
    carried = abs(load.signed.get(symbol, Decimal(0)))
    if cap is None or carried + size.notional <= cap:
        return None
    return refuse(DenyCode.COMMITTEE_CAP, carried=carried, notional=size.notional, cap=cap)
