"""What `qtctl explain` tells of the guards is the chain: every guard before the one that refused, with its numbers."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from decimal import Decimal
from functools import cache

import pytest
from msgspec import UNSET

from inference.decision import decide
from inference.domain.bias import BiasMode
from inference.domain.decision import Approved, Denied, DenyCode, RecentTrades, Snapshot
from inference.domain.events import CandlesDecided
from inference.domain.governance import Resolution, Stance
from inference.domain.policy import Policy
from inference.domain.quality import QualityCode, QualityFlag
from inference.policy.profiles import PROFILES
from inference.telemetry.guard_steps import Guard
from inference.telemetry.guards import guards_of
from infra.prove.limits_drawn import drawn_policy
from infra.prove.limits_world import SYMBOLS, World
from tests.worker_values import T0, make_candidate, make_snapshot

# By this file's own reading of the chain; a guard that the policy or the snapshot does not have is not asked.
CHAIN = (
    "EMERGENCY_STOP", "RISK_INPUT_MISSING", "TRADING_STATE", "BREAKER_OPEN", "DAILY_DRAWDOWN", "WEEKLY_DRAWDOWN",
    "PEAK_DRAWDOWN", "NO_QUOTE", "STALE_DATA", "CONFIDENCE_BELOW_THRESHOLD", "SIGNAL_QUALITY",
    "EDGE_BELOW_COSTS", "SIGNALS_BIASED",
    "COMMITTEE_VETO", "OUTSIDE_TRADING_WINDOW", "SYMBOL_NOT_ALLOWED", "POSITION_OPEN", "COOLDOWN", "LOSS_COOLDOWN",
    "GLOBAL_COOLDOWN", "SYMBOL_ENTRY_COUNT", "SYMBOL_ENTRY_COUNT", "ENTRY_COUNT", "ENTRY_COUNT", "MAX_POSITIONS",
    "EXPOSURE_ABOVE_MAXIMUM", "HEAT_ABOVE_MAXIMUM", "CONCENTRATION_ABOVE_MAXIMUM", "CORRELATED_ABOVE_MAXIMUM",
    "BETA_ABOVE_MAXIMUM", "STOP_UNUSABLE", "LIQUIDATION_TOO_NEAR", "VETO_CONFIDENCE", "VETO_VOLATILITY",
    "VETO_DRAWDOWN", "VETO_DRAWDOWN", "VETO_CORRELATION", "NO_EDGE_TO_BET", "QUANTITY_BELOW_STEP",
    "NOTIONAL_BELOW_MINIMUM", "risk at the stop", "notional", "EXPOSURE_ABOVE_MAXIMUM", "HEAT_ABOVE_MAXIMUM",
    "CONCENTRATION_ABOVE_MAXIMUM", "CORRELATED_ABOVE_MAXIMUM", "BETA_ABOVE_MAXIMUM", "VETO_SIZE", "COMMITTEE_CAP",
)  # fmt: skip
# Sizing caps a notional rather than to refuse it, and keeps to every cap that the governor looks at again.
NEVER = {DenyCode.NOTIONAL_ABOVE_MAXIMUM, DenyCode.VETO_SIZE}
_LIVES, _STEPS = 360, 20


class Watched(World):
    """A life of the limits' proof that keeps what was decided on, with quotes and inputs missing now and then."""

    def __init__(self, seed: int) -> None:
        """Begin a life; what its chain sees is what the world drew, or a snapshot that lacks something."""
        self.other = random.Random(seed + 1_000_000)
        self.decided: list[CandlesDecided] = []
        super().__init__(seed, see=self._watched)

    def _watched(self, snapshot: Snapshot, policy: Policy) -> tuple[Snapshot, Policy]:
        snapshot, policy = self._flagged(self._lacking(snapshot), policy)
        decisions = decide(snapshot, policy, self.now_ms)
        self.decided.append(CandlesDecided.of(snapshot, policy, self.now_ms, decisions))
        return snapshot, policy

    def _flagged(self, snapshot: Snapshot, policy: Policy) -> tuple[Snapshot, Policy]:
        rng = self.other
        if rng.random() > 0.15:
            return snapshot, policy
        flags = (QualityFlag(code=QualityCode.WIDE_SPREAD, context={"spread": "0.01", "maximum": "0.001"}),)
        candidates = tuple(
            replace(one, signal=replace(one.signal, quality=rng.choice((UNSET, (), flags))))
            for one in snapshot.candidates
        )
        policy = replace(policy, quality_mode=BiasMode.ENFORCE, refusing_flags=(QualityCode.WIDE_SPREAD.value,))
        return replace(snapshot, candidates=candidates), policy

    def _lacking(self, snapshot: Snapshot) -> Snapshot:
        rng = self.other
        name = rng.choice(SYMBOLS)
        if rng.random() < 0.1:
            quotes = dict(snapshot.quotes)
            old = replace(quotes[name], event_time_ms=self.now_ms - 400_000)
            quotes.update({name: old} if rng.random() < 0.5 else {})
            quotes.update({} if name in quotes and rng.random() < 0.5 else {name: replace(old, bid=Decimal(0))})
            snapshot = replace(snapshot, quotes=quotes)
        if rng.random() < 0.05:
            known = {one: value for one, value in snapshot.instruments.items() if one != name}
            snapshot = replace(snapshot, instruments=known)
        if rng.random() < 0.05:
            snapshot = replace(snapshot, incomplete={"NEW/USDT:USDT": "too few candles"})
        return replace(snapshot, risk=UNSET) if rng.random() < 0.1 else snapshot


@cache
def _decided() -> tuple[CandlesDecided, ...]:
    worlds = [Watched(seed) for seed in range(_LIVES)]
    for world in worlds:
        for _ in range(_STEPS):
            world.step()
    return tuple(one for world in worlds for one in world.decided)


@cache
def _answers() -> tuple[tuple[CandlesDecided, Approved | Denied, tuple[Guard, ...]], ...]:
    return tuple(
        (event, one, guards_of(event, one)) for event in _decided() for one in (*event.approved, *event.denied)
    )


def _asked(event: CandlesDecided, symbol: str) -> list[str]:
    """Return the chain's guards that these rules and this snapshot have."""
    policy, snapshot = event.policy, event.snapshot
    has_risk = snapshot.risk is not UNSET
    view, resolution = snapshot.risk, snapshot.resolution
    flagged = {one.signal.symbol: one.signal.quality for one in snapshot.candidates}
    has = {
        "SIGNAL_QUALITY": policy.quality_mode is BiasMode.ENFORCE and flagged.get(symbol, UNSET) is not UNSET,
        "EMERGENCY_STOP": has_risk,
        "RISK_INPUT_MISSING": has_risk,
        "BREAKER_OPEN": has_risk,
        "WEEKLY_DRAWDOWN": snapshot.account.week_start_equity is not UNSET,
        "PEAK_DRAWDOWN": has_risk,
        "SIGNALS_BIASED": snapshot.bias is not UNSET,
        "COMMITTEE_VETO": resolution is not UNSET,
        "OUTSIDE_TRADING_WINDOW": bool(policy.trading_windows or policy.days_off),
        "SYMBOL_NOT_ALLOWED": bool(policy.allowed_symbols or policy.denied_symbols),
        "LOSS_COOLDOWN": bool(policy.loss_cooldown_seconds),
        "GLOBAL_COOLDOWN": bool(policy.global_cooldown_seconds),
        "CONCENTRATION_ABOVE_MAXIMUM": has_risk and policy.max_concentration is not None,
        "CORRELATED_ABOVE_MAXIMUM": has_risk and policy.max_correlated_exposure is not None and symbol in view.clusters,
        "BETA_ABOVE_MAXIMUM": has_risk and policy.max_btc_beta is not None and symbol in view.betas,
        "LIQUIDATION_TOO_NEAR": has_risk,
        "VETO_CONFIDENCE": has_risk,
        "VETO_VOLATILITY": has_risk and policy.governor_max_volatility is not None,
        "VETO_DRAWDOWN": has_risk and policy.governor_drawdown_share is not None,
        "VETO_CORRELATION": has_risk and policy.governor_max_companions is not None,
        "VETO_SIZE": has_risk,
        "COMMITTEE_CAP": resolution is not UNSET and symbol in resolution.caps,
    }
    names = [one for one in CHAIN if has.get(one, True)]
    for name, hourly, daily in (
        ("SYMBOL_ENTRY_COUNT", policy.max_symbol_entries_per_hour, policy.max_symbol_entries_per_day),
        ("ENTRY_COUNT", policy.max_entries_per_hour, policy.max_entries_per_day),
    ):
        for limit in (hourly, daily):
            if limit is None:
                names.remove(name)
    return names


def test_every_refusal_is_preceded_by_every_guard_before_it():
    """Whatever refuses, the guards that were passed before stand before it, in the chain's order, and none else."""
    seen = set()
    for event, one, guards in _answers():
        told = [guard.name for guard in guards]
        if isinstance(one, Approved):
            assert told == _asked(event, one.symbol)
            continue
        seen.add(one.code)
        assert (told[-1], guards[-1].asked) == (one.code.value, "refused")
        if one.code is DenyCode.FEATURES_INCOMPLETE:
            assert len(told) == 1
            continue
        asked = _asked(event, one.symbol)
        assert told[:-1] == asked[: len(told) - 1]
        # What refuses is the next one, unless it is an input that a guard needs.
        assert one.code is DenyCode.RISK_INPUT_MISSING or asked[len(told) - 1] == one.code.value

    assert set(DenyCode) - seen == NEVER


def test_what_was_approved_lies_within_what_was_asked():
    """Of an approval each number that was found keeps to the number that was asked for."""
    compared = 0
    for _, decision, guards in _answers():
        for one in guards if isinstance(decision, Approved) else ():
            numbers = [Decimal(text) for text in re.findall(r"-?\d+(?:\.\d+)?(?:E[+-]?\d+)?", one.asked)]
            found = re.match(r"-?\d+(?:\.\d+)?(?:E[+-]?\d+)?", one.found)
            if found is None or one.name in {"STALE_DATA", "STOP_UNUSABLE", "NO_QUOTE", "SIGNALS_BIASED"}:
                continue
            value = Decimal(found[0])
            compared += 1
            if one.asked.startswith(("at most", "below", "fewer than")):
                most = max(numbers) if one.name == "BETA_ABOVE_MAXIMUM" else numbers[0]
                assert value <= most, one
            elif one.asked.startswith("from"):
                assert numbers[0] <= value <= numbers[1], one
            else:
                assert value >= numbers[0], one
    assert compared > 10_000


@pytest.mark.parametrize("budget", [Decimal(1), Decimal("0.5")])
def test_the_risk_that_may_be_taken_is_what_sizes_may_grow_to(budget):
    """Base times the largest factor, capped, and what the committee leaves of it: 1.5 times under such a policy."""
    policy = Policy(max_size_multiplier=Decimal("1.5"), confidence_threshold=0.6, max_notional=Decimal(100_000))
    resolution = Resolution(stance=Stance.NORMAL, budget=budget, caps={}, vetoes={}, votes=(), enforced=True)
    snapshot = make_snapshot((make_candidate(probability=0.95),), resolution=resolution)
    event = CandlesDecided.of(snapshot, policy, T0, decide(snapshot, policy, T0))
    guard = next(one for one in guards_of(event, event.approved[0]) if one.name == "risk at the stop")

    assert guard.asked == f"at most {budget * 150:.4f}"
    assert budget * 145 < Decimal(guard.found) <= budget * 150


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_profile_keeps_to_what_is_told(name):
    """Under each named policy the risk of an approval keeps to the one that is told."""
    policy, told = PROFILES[name].policy, 0
    for confidence in (0.72, 0.8, 0.97):
        snapshot = make_snapshot((make_candidate(probability=confidence, expected_return=0.05),), recent=RecentTrades())
        event = CandlesDecided.of(snapshot, policy, T0, decide(snapshot, policy, T0))
        for one in event.approved:
            guard = next(one for one in guards_of(event, one) if one.name == "risk at the stop")
            told += 1
            assert Decimal(guard.found) <= Decimal(guard.asked.removeprefix("at most "))
    assert told


def test_a_journal_that_this_version_decides_otherwise_says_so():
    """An approval that today's rules refuse ends with that refusal, and is not told as if it had passed."""
    snapshot = make_snapshot()
    event = CandlesDecided.of(snapshot, Policy(), T0, decide(snapshot, Policy(), T0))
    strict = replace(event, policy=drawn_policy(random.Random(1)), snapshot=replace(snapshot, quotes={}))
    guards = guards_of(strict, event.approved[0])

    assert guards[-1].name == "NO_QUOTE"
    assert "refused by the rules of this version" in guards[-1].asked
