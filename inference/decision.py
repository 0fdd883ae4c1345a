"""The decision chain: from what is known at a closed candle to what is entered, and why the rest is not."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal, localcontext
from functools import partial
from itertools import pairwise
from operator import itemgetter
from typing import Any

from msgspec import UNSET, UnsetType

from inference.domain.decision import Approved, Candidate, Decision, Denied, DenyCode, RankedSignal, Snapshot
from inference.domain.exact import DECIMALS
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.exit_state import ExitPlan, TradeFacts
from inference.domain.market import Quote
from inference.domain.policy import BARRIERS, Policy, Ranking
from inference.domain.position import Position
from inference.domain.signal import Direction
from inference.exits.barriers import Barriers, barriers, is_held_too_long
from inference.exits.brain import levels
from inference.portfolio.exposure import PortfolioLoad, portfolio_load
from inference.risk.bias import bias_refusal
from inference.risk.breaker import breaker_refusal
from inference.risk.budget import risk_share
from inference.risk.committee import committee_budget, committee_cap, committee_refusal
from inference.risk.constraints import EntryCounts, constraint_refusal
from inference.risk.governor import governor_inputs, governor_veto, size_veto
from inference.risk.limits import emergency_refusal, trading_state_refusal
from inference.risk.quality import quality_refusal
from inference.risk.refusal import Refusal, refuse
from inference.risk.regime import regime_refusal
from inference.risk.sizing import Size, gain_per_unit, loss_per_unit, quantity_for_risk
from inference.risk.tiers import liquidation_price, portfolio_refusal, position_refusal, systemic_refusal
from inference.signals.ranking import Opportunity, Ranked, RankingRules, rank


def decide(snapshot: Snapshot, policy: Policy, now_ms: int) -> tuple[Decision, ...]:
    """
    Take every candidate through the chain and answer each once, in the policy's ranking: best expected net edge first.

    The first refusal wins. An approval uses up its slot, its exposure and its heat before the next candidate is
    looked at. Neither the order in which candidates are given nor the thread's own decimal context changes anything.
    """
    with localcontext(DECIMALS):
        return _decide(snapshot, policy, now_ms)


def _decide(snapshot: Snapshot, policy: Policy, now_ms: int) -> tuple[Decision, ...]:
    load = portfolio_load(positions=snapshot.positions, in_flight=snapshot.in_flight, heat=snapshot.heat)
    counts = EntryCounts.of(snapshot, policy, now_ms)
    decisions: list[Decision] = []
    for candidate in ranked(snapshot, policy):
        decision = _decide_one(candidate, snapshot=snapshot, policy=policy, load=load, now_ms=now_ms, counts=counts)
        if isinstance(decision, Approved):
            notional = decision.quantity * decision.reference_price
            load = load.with_entry(decision.symbol, notional=notional, risk=decision.risk, direction=decision.direction)
        decisions.append(decision)

    decisions.extend(
        Denied(symbol=symbol, code=DenyCode.FEATURES_INCOMPLETE, context={"found": reason})
        for symbol, reason in sorted(snapshot.incomplete.items())
    )

    return tuple(decisions)


def due_exits(
    positions: Mapping[str, Position], *, candle_close_ms: int, policy: Policy, timeframe_ms: int = 300_000
) -> tuple[str, ...]:
    """Return the symbols whose positions have reached the time barrier, in a fixed order; no trading state stops it."""
    return tuple(
        symbol
        for symbol, position in sorted(positions.items())
        if is_held_too_long(position, candle_close_ms=candle_close_ms, policy=policy, timeframe_ms=timeframe_ms)
    )


def is_confident(candidate: Candidate, policy: Policy) -> bool:
    """Return whether a signal has a side and is as sure of it as the policy, or else its bundle, asks."""
    signal = candidate.signal
    return signal.direction is not Direction.FLAT and signal.confidence >= threshold_of(candidate, policy)


def expected_net_edge(candidate: Candidate, quote: Quote | None, policy: Policy) -> Decimal:
    """
    Return the expected return in the signal's direction, less what a round trip costs, as a fraction of notional.

    A signal whose direction and expected return disagree has a negative edge.
    """
    sign = {Direction.LONG: 1, Direction.SHORT: -1, Direction.FLAT: 0}[candidate.signal.direction]

    return sign * Decimal(str(candidate.signal.expected_return)) - round_trip_costs(quote, policy)


def round_trip_costs(quote: Quote | None, policy: Policy) -> Decimal:
    """Return fees and slippage of both sides and the spread crossed once, as a fraction of notional."""
    spread = (quote.ask - quote.bid) / quote.mid if quote is not None and quote.mid > 0 else Decimal(0)

    return 2 * (policy.taker_fee + policy.slippage) + spread


def ranking_of(snapshot: Snapshot, policy: Policy) -> tuple[RankedSignal, ...] | UnsetType:
    """Return what put the candidates in their order, in that order; unset where net edge alone did."""
    if policy.ranking is not Ranking.RISK_ADJUSTED:
        return UNSET
    with localcontext(DECIMALS):
        return tuple(
            RankedSignal(
                symbol=candidate.signal.symbol,
                trace_id=candidate.signal.trace_id,
                worth=one.worth,
                score=one.score,
                companions=one.companions,
            )
            for candidate, one in _by_worth(snapshot, policy)
        )


def _by_worth(snapshot: Snapshot, policy: Policy) -> list[tuple[Candidate, Ranked]]:
    # In an order of their own first, so that no permutation shows among those that are worth the same.
    candidates = _sorted(snapshot.candidates, lambda one: (one.signal.symbol, one.signal.trace_id))
    offered = [(_opportunity(one, snapshot, policy), one) for one in candidates]
    owners = {id(opportunity): candidate for opportunity, candidate in offered}
    found = rank(
        [opportunity for opportunity, _ in offered],
        held={symbol: one.direction for symbol, one in snapshot.positions.items()},
        clusters={} if isinstance(snapshot.risk, UnsetType) else snapshot.risk.clusters,
        rules=RankingRules(companion_factor=float(policy.companion_factor)),
        in_flight=snapshot.in_flight,
    )
    return [(owners[id(one.opportunity)], one) for one in found]


def _opportunity(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> Opportunity:
    signal = candidate.signal
    quote = snapshot.quotes.get(signal.symbol)
    return Opportunity(
        symbol=signal.symbol,
        direction=signal.direction,
        net_return=float(expected_net_edge(candidate, quote, policy)),
        risk=_risk_at_stop(candidate, snapshot, policy),
        confidence=signal.confidence,
    )


def _risk_at_stop(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> float:
    """Return what is lost at the stop, costs included, as a fraction of notional; NaN where there can be no stop."""
    signal = candidate.signal
    quote, instrument = snapshot.quotes.get(signal.symbol), snapshot.instruments.get(signal.symbol)
    if quote is None or instrument is None or not 0 < quote.bid <= quote.ask or signal.direction is Direction.FLAT:
        return math.nan
    crossed = quote.ask if signal.direction is Direction.LONG else quote.bid
    atr = Decimal(str(candidate.atr))
    exits = barriers(direction=signal.direction, reference_price=crossed, atr=atr, policy=policy, instrument=instrument)
    if exits is None:
        return math.nan

    return float(abs(crossed - exits.stop_price) / crossed + round_trip_costs(quote, policy))


def ranked(snapshot: Snapshot, policy: Policy) -> list[Candidate]:
    """Return the candidates in the order in which they are decided: what the policy ranks best first."""
    if policy.ranking is Ranking.RISK_ADJUSTED:
        return [candidate for candidate, _ in _by_worth(snapshot, policy)]
    return _sorted(snapshot.candidates, lambda one: _rank(one, snapshot, policy))


def _sorted(candidates: Iterable[Candidate], key: Callable[[Candidate], Any]) -> list[Candidate]:
    found = sorted(((key(one), one) for one in candidates), key=itemgetter(0))
    if any(one[0] == other[0] for one, other in pairwise(found)):
        # Two candidates of one symbol and one signal: spelt out, which is slow, so that no permutation shows.
        found.sort(key=lambda one: (one[0], repr(one[1])))
    return [candidate for _, candidate in found]


def _rank(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> tuple[Decimal, str, str]:
    signal = candidate.signal
    edge = expected_net_edge(candidate, snapshot.quotes.get(signal.symbol), policy)
    return -edge, signal.symbol, signal.trace_id


def _decide_one(
    candidate: Candidate,
    *,
    snapshot: Snapshot,
    policy: Policy,
    load: PortfolioLoad,
    now_ms: int,
    counts: EntryCounts | None,
) -> Decision:
    symbol = candidate.signal.symbol
    outcome = (
        emergency_refusal(snapshot)
        or trading_state_refusal(snapshot.trading_state)
        or breaker_refusal(snapshot, entries=load.entries, now_ms=now_ms)
        or systemic_refusal(snapshot, policy)
        or staleness_refusal(candidate, snapshot, policy, now_ms)
        or confidence_refusal(candidate, policy)
        or regime_refusal(candidate.signal, policy)
        or quality_refusal(candidate.signal, policy)
        or edge_refusal(candidate, snapshot, policy)
        or bias_refusal(candidate.signal, snapshot)
        or committee_refusal(symbol, snapshot)
        or constraint_refusal(symbol, snapshot=snapshot, load=load, policy=policy, now_ms=now_ms, counts=counts)
        or _sized(candidate, snapshot=snapshot, policy=policy, load=load)
    )
    if isinstance(outcome, Approved):
        return outcome

    return Denied(symbol=symbol, code=outcome.code, context=outcome.context, signal=candidate.signal)


def staleness_refusal(candidate: Candidate, snapshot: Snapshot, policy: Policy, now_ms: int) -> Refusal | None:
    """Refuse what has no usable quote or instrument, or was computed or quoted too long ago, or for another candle."""
    signal = candidate.signal
    maximum_ms = policy.stale_after_candles * snapshot.timeframe_ms
    quote = snapshot.quotes.get(signal.symbol)
    if quote is None or not 0 < quote.bid <= quote.ask:
        found = "none" if quote is None else f"{quote.bid}/{quote.ask}"
        return refuse(DenyCode.NO_QUOTE, found=found, required="0 < bid <= ask")

    if signal.symbol not in snapshot.instruments:
        return refuse(DenyCode.NO_QUOTE, found="no instrument", required="steps and minimums of the venue")

    for what, time_ms in (("features", signal.feature_time_ms), ("quote", quote.event_time_ms)):
        # One from the future is no better: a clock is wrong, ours or its own.
        if abs(now_ms - time_ms) > maximum_ms:
            return refuse(DenyCode.STALE_DATA, data=what, age_ms=now_ms - time_ms, maximum_ms=maximum_ms)

    if signal.feature_time_ms != snapshot.candle_close_ms:
        return refuse(
            DenyCode.STALE_DATA,
            data="features",
            feature_time_ms=signal.feature_time_ms,
            candle_close_ms=snapshot.candle_close_ms,
        )

    return None


def confidence_refusal(candidate: Candidate, policy: Policy) -> Refusal | None:
    """Refuse a signal without a side, or one that is less sure than is asked."""
    if is_confident(candidate, policy):
        return None

    return refuse(
        DenyCode.CONFIDENCE_BELOW_THRESHOLD,
        direction=candidate.signal.direction,
        confidence=candidate.signal.confidence,
        threshold=threshold_of(candidate, policy),
    )


def threshold_of(candidate: Candidate, policy: Policy) -> float:
    """Return the least confidence that is asked for: the policy's, else that of the signal's bundle."""
    return candidate.threshold if policy.confidence_threshold is None else policy.confidence_threshold


def edge_refusal(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> Refusal | None:
    """Refuse what is not expected to earn more than its round trip costs."""
    quote = snapshot.quotes.get(candidate.signal.symbol)
    edge = expected_net_edge(candidate, quote, policy)
    if edge > 0:
        return None

    return refuse(
        DenyCode.EDGE_BELOW_COSTS,
        direction=candidate.signal.direction,
        expected_return=candidate.signal.expected_return,
        costs=round_trip_costs(quote, policy),
        net_edge=edge,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class EntryPrices:
    """
    What an entry is planned by: the quote that it crosses, the price it expects to pay, and its exits.

    Of an exit profile, `exits` are its first stop and nearest target, and `targets` all of them with their shares.
    """

    crossed: Decimal
    reference: Decimal
    exits: Barriers
    plan: ExitPlan | UnsetType = UNSET
    targets: tuple[tuple[Decimal, Decimal], ...] = ()


def entry_prices(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> EntryPrices | Refusal:
    """Return the prices that a candidate is sized by, or refuse a stop that protects nothing."""
    signal = candidate.signal
    instrument, quote = snapshot.instruments[signal.symbol], snapshot.quotes[signal.symbol]
    # The price we expect to pay, slippage included, so that a fill at it stays below every cap.
    crossed = quote.ask if signal.direction is Direction.LONG else quote.bid
    reference = crossed * (1 + policy.slippage) if signal.direction is Direction.LONG else crossed
    atr = Decimal(str(candidate.atr))
    if policy.exit_profile != BARRIERS:
        return _profiled_prices(candidate, snapshot, policy, crossed=crossed, reference=reference)
    exits = barriers(direction=signal.direction, reference_price=crossed, atr=atr, policy=policy, instrument=instrument)
    if exits is None:
        return refuse(DenyCode.STOP_UNUSABLE, price=crossed, atr=atr, tick=instrument.price_tick)

    return EntryPrices(crossed=crossed, reference=reference, exits=exits)


def _profiled_prices(
    candidate: Candidate, snapshot: Snapshot, policy: Policy, *, crossed: Decimal, reference: Decimal
) -> EntryPrices | Refusal:
    signal, atr, name = candidate.signal, Decimal(str(candidate.atr)), policy.exit_profile
    instrument, profile = snapshot.instruments[signal.symbol], _profile(snapshot, name)
    if profile is None or not profile.targets:
        return refuse(DenyCode.STOP_UNUSABLE, exit_profile=name, found="no such profile here, or none with a target")
    liquidation = liquidation_price(direction=signal.direction, entry_price=reference, policy=policy)
    given = facts = None
    if atr > 0:
        facts = TradeFacts(
            direction=signal.direction,
            reference_price=crossed,
            atr=atr,
            instrument=instrument,
            fee=policy.taker_fee,
            timeframe_ms=snapshot.timeframe_ms,
            horizon_candles=policy.max_holding_candles,
            planned_ms=snapshot.candle_close_ms,
            liquidation_price=liquidation if liquidation > 0 else None,
        )
        given = levels(profile, facts)
    if facts is None or given is None:
        return refuse(DenyCode.STOP_UNUSABLE, price=crossed, atr=atr, tick=instrument.price_tick, exit_profile=name)

    shares = tuple(target.share for target in profile.targets)
    return EntryPrices(
        crossed=crossed,
        reference=reference,
        exits=Barriers(stop_price=given.stop_price, target_price=given.target_prices[0]),
        plan=ExitPlan(profile=profile, facts=facts),
        targets=tuple(zip(given.target_prices, shares, strict=True)),
    )


def _profile(snapshot: Snapshot, name: str) -> ExitProfile | None:
    recorded = snapshot.exits
    if not isinstance(recorded, UnsetType) and recorded.name == name:
        return recorded
    return BUILT_IN.get(name)


def smallest_notional(symbol: str, snapshot: Snapshot, policy: Policy) -> Decimal:
    """Return what the smallest position is worth that policy and venue allow; room is asked for it before sizing."""
    return max(policy.min_notional, snapshot.instruments[symbol].min_notional)


def share_at_risk(candidate: Candidate, prices: EntryPrices, policy: Policy) -> Decimal | Refusal:
    """Return which share of equity an entry may lose at its stop, before the committee has its say."""
    gain = _gain(prices, policy)
    loss = loss_per_unit(entry_price=prices.reference, stop_price=prices.exits.stop_price, policy=policy)

    return risk_share(candidate, gain=gain, loss=loss, policy=policy)


def _gain(prices: EntryPrices, policy: Policy) -> Decimal:
    """Return what a unit gains at the target, the mean by their shares where there are several."""
    if not prices.targets:
        return gain_per_unit(entry_price=prices.reference, target_price=prices.exits.target_price, policy=policy)
    whole = sum((share for _, share in prices.targets), Decimal(0))
    return sum(
        (
            gain_per_unit(entry_price=prices.reference, target_price=price, policy=policy) * share / whole
            for price, share in prices.targets
        ),
        Decimal(0),
    )


def size_of(
    candidate: Candidate, prices: EntryPrices, share: Decimal, *, snapshot: Snapshot, policy: Policy
) -> Size | Refusal:
    """Return how much is traded for a share of equity at risk, of which the committee may leave less."""
    return quantity_for_risk(
        equity=snapshot.account.equity,
        entry_price=prices.reference,
        stop_price=prices.exits.stop_price,
        policy=policy,
        instrument=snapshot.instruments[candidate.signal.symbol],
        share=share * committee_budget(snapshot),
    )


def _sized(candidate: Candidate, *, snapshot: Snapshot, policy: Policy, load: PortfolioLoad) -> Approved | Refusal:
    signal = candidate.signal
    asked = partial(
        portfolio_refusal, snapshot, symbol=signal.symbol, direction=signal.direction, load=load, policy=policy
    )
    # Before sizing: is there room for even the smallest position?
    full = asked(notional=smallest_notional(signal.symbol, snapshot, policy), risk=Decimal(0))
    if full is not None:
        return full

    prices = entry_prices(candidate, snapshot, policy)
    if isinstance(prices, Refusal):
        return prices

    refusal = position_refusal(
        snapshot,
        direction=signal.direction,
        entry_price=prices.reference,
        stop_price=prices.exits.stop_price,
        policy=policy,
    ) or governor_veto(governor_inputs(candidate, snapshot=snapshot, load=load, policy=policy), policy)
    if refusal is not None:
        return refusal

    share = share_at_risk(candidate, prices, policy)
    # A share that is refused is the end as well.
    size = share if isinstance(share, Refusal) else size_of(candidate, prices, share, snapshot=snapshot, policy=policy)
    if isinstance(size, Refusal):
        return size

    over = (
        asked(notional=size.notional, risk=size.risk)
        or size_veto(size, snapshot=snapshot, policy=policy)
        or committee_cap(signal.symbol, size, snapshot=snapshot, load=load)
    )
    if over is not None:
        return over

    return Approved(
        symbol=signal.symbol,
        direction=signal.direction,
        quantity=size.quantity,
        reference_price=prices.reference,
        stop_price=prices.exits.stop_price,
        target_price=prices.exits.target_price,
        risk=size.risk,
        signal=signal,
        exits=prices.plan,
    )
