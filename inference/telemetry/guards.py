"""Every guard of the decision chain on one candidate, with the numbers that it compared."""

from __future__ import annotations

from dataclasses import replace

from inference.decision import ranked
from inference.domain.decision import Approved, Candidate, Denied
from inference.domain.events import CandlesDecided
from inference.portfolio.exposure import PortfolioLoad, portfolio_load
from inference.telemetry.guard_steps import Guard, Turn, steps


def guards_of(decided: CandlesDecided, decision: Approved | Denied) -> tuple[Guard, ...]:
    """
    Return the guards that a decision passed, in the chain's order, and the one that refused it last if one did.

    The chain's own functions are asked again, on the recorded snapshot and with what was approved of the same candle
    before this one's turn; what neither the policy nor the snapshot has was not asked, and is not told. Where this
    version's rules refuse what was approved, or something else than was refused, the guards end there.
    """
    candidate = _candidate_of(decided, decision)
    passed: list[Guard] = []
    if candidate is not None:
        load = _load_before(decided, candidate)
        turn = Turn(
            candidate=candidate, snapshot=decided.snapshot, policy=decided.policy, load=load, now_ms=decided.now_ms
        )
        for step in steps(turn):
            passed += step.passed
            if step.refusal is None:
                continue
            if isinstance(decision, Approved):
                refused = Guard.refused(step.refusal.code, step.refusal.context)
                passed.append(replace(refused, asked="approved then, refused by the rules of this version"))
            break
    refusal = () if isinstance(decision, Approved) else (Guard.refused(decision.code, decision.context),)
    return (*passed, *refusal)


def _candidate_of(decided: CandlesDecided, decision: Approved | Denied) -> Candidate | None:
    own = [one for one in decided.snapshot.candidates if one.signal.symbol == decision.symbol]
    traced = [one for one in own if decision.signal is not None and one.signal.trace_id == decision.signal.trace_id]
    return next(iter(traced or own), None)


def _load_before(decided: CandlesDecided, candidate: Candidate) -> PortfolioLoad:
    """Return what was carried as a candidate's turn came, entries approved before it included."""
    snapshot = decided.snapshot
    load = portfolio_load(positions=snapshot.positions, in_flight=snapshot.in_flight, heat=snapshot.heat)
    for earlier in ranked(snapshot, decided.policy):
        if earlier is candidate:
            break
        for one in decided.approved:
            if (one.symbol, one.signal.trace_id) == (earlier.signal.symbol, earlier.signal.trace_id):
                notional = one.quantity * one.reference_price
                load = load.with_entry(one.symbol, notional=notional, risk=one.risk, direction=one.direction)
    return load
