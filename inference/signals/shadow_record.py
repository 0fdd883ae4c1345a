"""The record of a candle that was scored in shadow: columns of opinions beside columns of prices."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.shadow import Role, ShadowOpinion
from inference.domain.signal import Direction, SignalScore


def shadow_opinion(
    signals: Iterable[SignalScore],
    symbols: Sequence[str],
    *,
    role: Role,
    version: str,
    digest: str,
    horizon: int,
    threshold: float,
) -> ShadowOpinion:
    """Return one model's signals as columns over `symbols`; None for who has no signal, or one that abstains."""
    known = {one.symbol: one for one in signals if one.direction is not Direction.FLAT}
    chosen = [known.get(symbol) for symbol in symbols]
    return ShadowOpinion(
        role=role,
        version=version,
        digest=digest,
        horizon=horizon,
        threshold=threshold,
        expected_return=tuple(None if one is None else one.expected_return for one in chosen),
        probability_up=tuple(None if one is None else _probability_up(one) for one in chosen),
    )


def shown_prices(
    quotes: Mapping[str, Quote], symbols: Sequence[str], *, now_ms: int, maximum_age_ms: int
) -> tuple[tuple[Decimal | None, ...], tuple[Decimal | None, ...]]:
    """Return bids and asks of `symbols`, None where there is no sound quote or it is older than a decision takes."""
    fresh = {
        symbol: one
        for symbol, one in quotes.items()
        if 0 < one.bid <= one.ask and now_ms - one.event_time_ms <= maximum_age_ms
    }
    chosen = [fresh.get(symbol) for symbol in symbols]
    bids = tuple(None if one is None else one.bid for one in chosen)
    return bids, tuple(None if one is None else one.ask for one in chosen)


def threshold_of(policy: Policy, threshold: float) -> float:
    """Return the confidence from which on a model trades: the policy's, else its own."""
    return threshold if policy.confidence_threshold is None else policy.confidence_threshold


def _probability_up(signal: SignalScore) -> float:
    return signal.probability if signal.direction is Direction.LONG else 1 - signal.probability
