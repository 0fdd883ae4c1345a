"""The decision chain: from what is known at a closed candle to what is entered, and why the rest is not."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from itertools import pairwise
from operator import itemgetter

from inference.domain.decision import Approved, Candidate, Decision, Denied, DenyCode, Snapshot
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Position
from inference.domain.signal import Direction
from inference.exits.barriers import barriers, is_held_too_long
from inference.portfolio.exposure import PortfolioLoad, portfolio_load
from inference.risk.bias import bias_refusal
from inference.risk.constraints import constraint_refusal
from inference.risk.limits import drawdown_refusal, exposure_refusal, heat_refusal, trading_state_refusal
from inference.risk.refusal import Refusal, refuse
from inference.risk.sizing import quantity_for_risk


def decide(snapshot: Snapshot, policy: Policy, now_ms: int) -> tuple[Decision, ...]:
    """
    Take every candidate through the chain and answer each once, best expected net edge first.

    The first refusal wins. An approval uses up its slot, its exposure and its heat before the next candidate is
    looked at. The order in which candidates are given changes nothing.
    """
    load = portfolio_load(positions=snapshot.positions, in_flight=snapshot.in_flight, heat=snapshot.heat)
    decisions: list[Decision] = []
    for candidate in _ranked(snapshot, policy):
        decision = _decide_one(candidate, snapshot=snapshot, policy=policy, load=load, now_ms=now_ms)
        if isinstance(decision, Approved):
            notional = decision.quantity * decision.reference_price
            load = load.with_entry(decision.symbol, notional=notional, risk=decision.risk)
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
    return signal.direction is not Direction.FLAT and signal.confidence >= _threshold(candidate, policy)


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


def _ranked(snapshot: Snapshot, policy: Policy) -> list[Candidate]:
    ranked = sorted(((_rank(one, snapshot, policy), one) for one in snapshot.candidates), key=itemgetter(0))
    if any(one[0] == other[0] for one, other in pairwise(ranked)):
        # Two candidates of one symbol and one signal: spelt out, which is slow, so that no permutation shows.
        ranked.sort(key=lambda one: (one[0], repr(one[1])))
    return [candidate for _, candidate in ranked]


def _rank(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> tuple[Decimal, str, str]:
    signal = candidate.signal
    edge = expected_net_edge(candidate, snapshot.quotes.get(signal.symbol), policy)
    return -edge, signal.symbol, signal.trace_id


def _decide_one(
    candidate: Candidate, *, snapshot: Snapshot, policy: Policy, load: PortfolioLoad, now_ms: int
) -> Decision:
    outcome = (
        trading_state_refusal(snapshot.trading_state)
        or drawdown_refusal(snapshot.account, policy)
        or _staleness_refusal(candidate, snapshot, policy, now_ms)
        or _confidence_refusal(candidate, policy)
        or _edge_refusal(candidate, snapshot, policy)
        or bias_refusal(candidate.signal, snapshot)
        or constraint_refusal(candidate.signal.symbol, snapshot=snapshot, load=load, policy=policy, now_ms=now_ms)
        or _sized(candidate, snapshot=snapshot, policy=policy, load=load)
    )
    if isinstance(outcome, Approved):
        return outcome

    return Denied(symbol=candidate.signal.symbol, code=outcome.code, context=outcome.context, signal=candidate.signal)


def _staleness_refusal(candidate: Candidate, snapshot: Snapshot, policy: Policy, now_ms: int) -> Refusal | None:
    signal = candidate.signal
    maximum_ms = policy.stale_after_candles * snapshot.timeframe_ms
    quote = snapshot.quotes.get(signal.symbol)
    if quote is None or not 0 < quote.bid <= quote.ask:
        found = "none" if quote is None else f"{quote.bid}/{quote.ask}"
        return refuse(DenyCode.NO_QUOTE, found=found, required="0 < bid <= ask")

    if signal.symbol not in snapshot.instruments:
        return refuse(DenyCode.NO_QUOTE, found="no instrument", required="steps and minimums of the venue")

    for what, time_ms in (("features", signal.feature_time_ms), ("quote", quote.event_time_ms)):
        if now_ms - time_ms > maximum_ms:
            return refuse(DenyCode.STALE_DATA, data=what, age_ms=now_ms - time_ms, maximum_ms=maximum_ms)

    if signal.feature_time_ms != snapshot.candle_close_ms:
        return refuse(
            DenyCode.STALE_DATA,
            data="features",
            feature_time_ms=signal.feature_time_ms,
            candle_close_ms=snapshot.candle_close_ms,
        )

    return None


def _confidence_refusal(candidate: Candidate, policy: Policy) -> Refusal | None:
    if is_confident(candidate, policy):
        return None

    return refuse(
        DenyCode.CONFIDENCE_BELOW_THRESHOLD,
        direction=candidate.signal.direction,
        confidence=candidate.signal.confidence,
        threshold=_threshold(candidate, policy),
    )


def _threshold(candidate: Candidate, policy: Policy) -> float:
    return candidate.threshold if policy.confidence_threshold is None else policy.confidence_threshold


def _edge_refusal(candidate: Candidate, snapshot: Snapshot, policy: Policy) -> Refusal | None:
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


def _sized(candidate: Candidate, *, snapshot: Snapshot, policy: Policy, load: PortfolioLoad) -> Approved | Refusal:
    signal, account = candidate.signal, snapshot.account
    instrument, quote = snapshot.instruments[signal.symbol], snapshot.quotes[signal.symbol]
    # Before sizing: is there room for even the smallest position?
    smallest = max(policy.min_notional, instrument.min_notional)
    full = exposure_refusal(load, notional=smallest, account=account, policy=policy) or heat_refusal(
        load, risk=Decimal(0), account=account, policy=policy
    )
    if full is not None:
        return full

    # The price we expect to pay, slippage included, so that a fill at it stays below every cap.
    crossed = quote.ask if signal.direction is Direction.LONG else quote.bid
    reference_price = crossed * (1 + policy.slippage) if signal.direction is Direction.LONG else crossed
    atr = Decimal(str(candidate.atr))
    exits = barriers(direction=signal.direction, reference_price=crossed, atr=atr, policy=policy, instrument=instrument)
    if exits is None:
        return refuse(DenyCode.STOP_UNUSABLE, price=crossed, atr=atr, tick=instrument.price_tick)

    size = quantity_for_risk(
        equity=account.equity,
        entry_price=reference_price,
        stop_price=exits.stop_price,
        policy=policy,
        instrument=instrument,
    )
    if isinstance(size, Refusal):
        return size

    over = exposure_refusal(load, notional=size.notional, account=account, policy=policy) or heat_refusal(
        load, risk=size.risk, account=account, policy=policy
    )
    if over is not None:
        return over

    return Approved(
        symbol=signal.symbol,
        direction=signal.direction,
        quantity=size.quantity,
        reference_price=reference_price,
        stop_price=exits.stop_price,
        target_price=exits.target_price,
        risk=size.risk,
        signal=signal,
    )
