"""The governor: a veto over what every limit lets pass, by inputs that are named."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal

from msgspec import UnsetType

from inference.domain.decision import Candidate, DenyCode, Snapshot
from inference.domain.policy import Policy
from inference.domain.signal import Direction
from inference.portfolio.exposure import PortfolioLoad
from inference.risk.refusal import Refusal, refuse
from inference.risk.sizing import Size


@dataclass(frozen=True, slots=True, kw_only=True)
class GovernorInputs:
    """
    What the governor looks at, and nothing else.

    `volatility` is the average true range as a share of the price; `daily_drawdown` and `weekly_drawdown` are shares
    of their limits (1 is reached); `companions` are the symbols of the same cluster carried on the same side.
    """

    confidence: float
    volatility: Decimal
    daily_drawdown: Decimal
    weekly_drawdown: Decimal
    companions: tuple[str, ...]


def governor_inputs(
    candidate: Candidate, *, snapshot: Snapshot, load: PortfolioLoad, policy: Policy
) -> GovernorInputs | None:
    """Return the inputs; None where the snapshot has no view of risk, as journals of before and backtests."""
    view, signal, account = snapshot.risk, candidate.signal, snapshot.account
    if isinstance(view, UnsetType):
        return None
    weekly = account.weekly_drawdown
    cluster = view.clusters.get(signal.symbol)
    sign = -1 if signal.direction is Direction.SHORT else 1
    return GovernorInputs(
        confidence=signal.confidence,
        volatility=Decimal(str(candidate.atr)) / Decimal(str(candidate.close)) if candidate.close > 0 else Decimal(1),
        daily_drawdown=account.daily_drawdown / policy.max_daily_drawdown,
        # A mark that is missing is no drawdown that is small.
        weekly_drawdown=Decimal(1) if weekly is None else weekly / policy.max_weekly_drawdown,
        companions=tuple(
            sorted(
                one
                for one, value in load.signed.items()
                if value * sign > 0 and one != signal.symbol and view.clusters.get(one, cluster) == cluster
            )
        ),
    )


def governor_veto(inputs: GovernorInputs | None, policy: Policy) -> Refusal | None:
    """Return the first veto: confidence, volatility, drawdown, correlation."""
    if inputs is None:
        return None
    if inputs.confidence < policy.governor_min_confidence:
        return refuse(DenyCode.VETO_CONFIDENCE, confidence=inputs.confidence, minimum=policy.governor_min_confidence)
    if policy.governor_max_volatility is not None and inputs.volatility > policy.governor_max_volatility:
        return refuse(DenyCode.VETO_VOLATILITY, volatility=inputs.volatility, maximum=policy.governor_max_volatility)
    if policy.governor_drawdown_share is not None:
        for which, share in (("day", inputs.daily_drawdown), ("week", inputs.weekly_drawdown)):
            if share >= policy.governor_drawdown_share:
                return refuse(
                    DenyCode.VETO_DRAWDOWN, of=which, share_of_limit=share, maximum=policy.governor_drawdown_share
                )
    limit = policy.governor_max_companions
    if limit is not None and len(inputs.companions) > limit:
        return refuse(
            DenyCode.VETO_CORRELATION,
            companions=", ".join(inputs.companions),
            threshold=policy.correlation_threshold,
        )

    return None


def size_veto(size: Size, *, snapshot: Snapshot, policy: Policy) -> Refusal | None:
    """Veto a size above any cap: a second look at what sizing promises, by its own arithmetic."""
    if isinstance(snapshot.risk, UnsetType):
        return None
    equity = snapshot.account.equity
    caps = (
        ("notional", size.notional, policy.max_notional),
        ("risk", size.risk, equity * policy.max_risk_per_trade),
        ("exposure", size.notional, equity * policy.max_exposure),
    )
    for what, value, maximum in caps:
        if not value.is_finite() or value > maximum:
            return refuse(DenyCode.VETO_SIZE, what=what, value=value, maximum=maximum)

    return None
