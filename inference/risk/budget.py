"""How much of equity a trade may lose at its stop: the base, shrunk or grown by what is known of it, and capped."""

from __future__ import annotations

from decimal import Decimal

from inference.domain.decision import Candidate, DenyCode
from inference.domain.policy import Policy
from inference.risk.refusal import Refusal, refuse
from inference.risk.regime import regime_size

# The multiplier is 1 at this confidence and moves by two for each unit of it: 0.5 at 0.45, 1.5 at 0.95.
_NEUTRAL = Decimal("0.70")
_SLOPE = 2


def confidence_multiplier(confidence: float, policy: Policy) -> Decimal:
    """Return 1 + (confidence - 0.70) x 2 within the policy's bounds, which are 1 and 1 where it does not count."""
    wanted = 1 + (Decimal(str(confidence)) - _NEUTRAL) * _SLOPE

    return min(max(wanted, policy.min_size_multiplier), policy.max_size_multiplier)


def volatility_multiplier(volatility: Decimal, policy: Policy) -> Decimal:
    """Return what a size shrinks to where the range is above its target; it never grows by calm."""
    if policy.target_volatility is None or volatility <= policy.target_volatility:
        return Decimal(1)

    return policy.target_volatility / volatility


def kelly_share(confidence: float, *, gain: Decimal, loss: Decimal) -> Decimal:
    """
    Return the share of equity that Kelly's rule would lose at the stop: p - (1 - p) / b, with b = gain / loss.

    Zero or less where the bet is not worth taking. Kelly, A New Interpretation of Information Rate, 1956.
    """
    if gain <= 0 or loss <= 0:
        return Decimal(0)
    right = Decimal(str(confidence))

    return right - (1 - right) * loss / gain


def risk_share(candidate: Candidate, *, gain: Decimal, loss: Decimal, policy: Policy) -> Decimal | Refusal:
    """
    Return which share of equity a trade may lose at its stop.

    Args:
        candidate: What is to be traded.
        gain: What one unit gains at the target, net of costs.
        loss: What one unit loses at the stop, costs included.
        policy: The base, the multipliers and the caps.
    """
    signal = candidate.signal
    share = policy.risk_per_trade * confidence_multiplier(signal.confidence, policy)
    if policy.target_volatility is not None and candidate.close > 0:
        share *= volatility_multiplier(Decimal(str(candidate.atr)) / Decimal(str(candidate.close)), policy)
    share *= regime_size(signal.regime, policy)
    if policy.kelly_fraction is not None:
        kelly = kelly_share(signal.confidence, gain=gain, loss=loss)
        if kelly <= 0:
            return refuse(DenyCode.NO_EDGE_TO_BET, kelly=kelly, confidence=signal.confidence, gain=gain, loss=loss)
        share = min(share, policy.kelly_fraction * kelly)
    share = min(share, policy.max_risk_per_trade)
    if share <= 0 or share < policy.min_risk_per_trade:
        return refuse(DenyCode.NO_EDGE_TO_BET, share=share, minimum=policy.min_risk_per_trade, regime=signal.regime)

    return share
