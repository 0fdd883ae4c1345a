"""What a market's regime asks of an entry: more confidence, or a smaller size."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.decision import DenyCode
from inference.domain.policy import Policy
from inference.domain.regime_rules import UNKNOWN, figures_of
from inference.domain.signal import SignalScore
from inference.risk.refusal import Refusal, refuse

_WHOLE = Decimal(1)


def regime_refusal(signal: SignalScore, policy: Policy) -> Refusal | None:
    """Refuse a signal that is less sure than its regime asks; what every signal needs is asked elsewhere."""
    least = figures_of(policy.regime_thresholds).get(signal.regime)
    if least is None or signal.confidence >= float(least):
        return None

    return refuse(
        DenyCode.CONFIDENCE_BELOW_THRESHOLD,
        direction=signal.direction,
        confidence=signal.confidence,
        threshold=least,
        regime=signal.regime,
    )


def regime_size(regime: str, policy: Policy) -> Decimal:
    """Return the share of a size that a regime leaves; an unknown one has a rule of its own."""
    if regime == UNKNOWN:
        return policy.unknown_regime_size

    return figures_of(policy.regime_sizes).get(regime, _WHOLE)
