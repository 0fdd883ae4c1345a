"""No sequence of signals, fills, crashes and policy changes breaks a limit, enters while stopped, or blocks an exit."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from decimal import Decimal
from multiprocessing import get_context
from typing import Any

from msgspec import UNSET, UnsetType

from feature_store.clock import monotonic
from inference.domain.decision import RecentTrades, Snapshot, TradingState
from inference.domain.governance import Stance
from inference.domain.policy import Policy
from inference.domain.risk import RiskView
from infra.prove.limits_orders import Told, one_life
from infra.prove.limits_world import Sight, World
from infra.prove.proof import Proof, Size

CASES = {Size.FULL: 1_000_000, Size.CI: 100_000}
LIVES = {Size.FULL: 6_000, Size.CI: 600}
_STEPS = 50
_TEETH_CASES = 20_000
_LEAST = 1_000
_ZERO, _TWICE = Decimal(0), Decimal(2)


def _ruled(change: Callable[[Policy], dict[str, Any]] = lambda _: {}, **rules: object) -> Sight:
    """Return a sight of another policy: with these rules, or with what is made of its own."""
    return lambda snapshot, policy: (snapshot, replace(policy, **(rules | change(policy))))


def _shown(**parts: Any) -> Sight:
    """Return a sight of a snapshot with other parts."""
    return lambda snapshot, policy: (replace(snapshot, **parts), policy)


def _risked(change: Callable[[RiskView], dict[str, Any]]) -> Sight:
    """Return a sight of another view of risk."""

    def see(snapshot: Snapshot, policy: Policy) -> tuple[Snapshot, Policy]:
        assert isinstance(snapshot.risk, RiskView)
        return replace(snapshot, risk=replace(snapshot.risk, **change(snapshot.risk))), policy

    return see


def _resolved(**parts: Any) -> Sight:
    """Return a sight of another resolution of the committee, where there is one."""

    def see(snapshot: Snapshot, policy: Policy) -> tuple[Snapshot, Policy]:
        found = snapshot.resolution
        return (
            snapshot if isinstance(found, UnsetType) else replace(snapshot, resolution=replace(found, **parts)),
            policy,
        )

    return see


def _untried(view: RiskView) -> dict[str, Any]:
    return {} if view.breaker is None else {"breaker": replace(view.breaker, is_tried=False)}


# A chain that does not see a limit, or keeps to twice of it, breaks the limit: whoever looks must see it and name it,
# or this proof shows nothing. Names are those of the checks.
_LOOSENED: dict[str, Sight] = {
    "exposure": _ruled(lambda one: {"max_exposure": one.max_exposure * _TWICE}),
    "heat": _ruled(lambda one: {"max_portfolio_heat": one.max_portfolio_heat * _TWICE}),
    "slots": _ruled(lambda one: {"max_positions": one.max_positions * 2}),
    "notional": _ruled(lambda one: {"max_notional": one.max_notional * _TWICE}),
    "least notional": _ruled(min_notional=Decimal(1)),
    "cooldown": _ruled(cooldown_seconds=0),
    "global cooldown": _ruled(global_cooldown_seconds=0),
    "loss cooldown": _ruled(loss_cooldown_seconds=0),
    "outside the windows": _ruled(trading_windows=()),
    "a day off": _ruled(days_off=()),
    "denied symbol": _ruled(denied_symbols=()),
    "not on the list": _ruled(allowed_symbols=()),
    "entries of an hour": _ruled(max_entries_per_hour=None),
    "entries of a day": _ruled(max_entries_per_day=None),
    "symbol's entries of an hour": _ruled(max_symbol_entries_per_hour=None),
    "symbol's entries of a day": _ruled(max_symbol_entries_per_day=None),
    "unknown counts": _shown(recent=RecentTrades()),
    "cluster": _ruled(max_correlated_exposure=None),
    "beta": _ruled(max_btc_beta=None),
    "concentration": _ruled(max_concentration=None),
    "liquidation": _ruled(min_liquidation_stops=Decimal(1)),
    "daily drawdown": _ruled(max_daily_drawdown=Decimal("0.15")),
    "weekly drawdown": _ruled(max_weekly_drawdown=Decimal("0.25")),
    "the wall": _ruled(wall_peak_drawdown=Decimal("0.20")),
    "not ACTIVE": _shown(trading_state=TradingState.ACTIVE),
    "stopped in emergency": _risked(lambda _: {"emergency": ""}),
    "blind": _risked(lambda _: {"missing": ""}),
    "breaker open": _risked(lambda _: {"breaker": None}),
    "more than one try": _risked(_untried),
    "governor's confidence": _ruled(governor_min_confidence=0.5),
    "governor's volatility": _ruled(governor_max_volatility=None),
    "governor's drawdown": _ruled(governor_drawdown_share=None),
    "governor's companions": _ruled(governor_max_companions=None),
    "multiplied risk": _ruled(max_size_multiplier=Decimal("1.5")),
    "risk": _ruled(max_risk_per_trade=Decimal("0.05")),
    "confidence's size": _ruled(min_size_multiplier=Decimal(1)),
    "target volatility": _ruled(target_volatility=None),
    "unknown regime": _ruled(unknown_regime_size=Decimal(1)),
    "Kelly": _ruled(kelly_fraction=None),
    "least risk": _ruled(min_risk_per_trade=_ZERO),
    "bias": _shown(bias=UNSET),
    "committee's veto": _resolved(vetoes={}),
    "committee's stance": _resolved(stance=Stance.NORMAL),
    "committee's budget": _resolved(budget=Decimal(1)),
    "committee's cap": _resolved(caps={}),
}


def prove(size: Size) -> Proof:
    """Decide at random for as many cases as asked, let the executor live as often, and loosen each limit once."""
    began = monotonic()
    seen: Counter[str] = Counter()
    broken: list[str] = []
    cases = 0
    with ProcessPoolExecutor(os.cpu_count() or 1, mp_context=get_context("spawn")) as pool:
        for seed, (found, counted) in enumerate(pool.map(_lived, range(CASES[size] // _STEPS), chunksize=50)):
            cases += _STEPS
            broken += [f"seed {seed}: {one}" for one in found]
            seen += counted
        decided_s = monotonic() - began
        lives = list(pool.map(one_life, range(LIVES[size]), chunksize=25))
        broken += [one for told in lives for one in told.wrong]
        unseen = [name for name, is_seen in zip(_LOOSENED, pool.map(is_found, _LOOSENED), strict=True) if not is_seen]
    if not one_life_is_found():
        unseen.append("an executor that was not told")
    refusals = {name for name in seen if name.startswith("denied ")}
    sent = _sum(lives)

    return Proof(
        name="limits",
        figure=f"{cases:,} decisions and {sent.steps:,} steps of orders: {len(broken)} limits broken or exits blocked; "
        f"{seen['entries']:,} entries, {len(refusals)} kinds of refusal, {seen['crashes']:,} crashes, "
        f"{seen['policy changes']:,} policy changes; {len(_LOOSENED) + 1 - len(unseen)} of {len(_LOOSENED) + 1} "
        "loosened limits seen",
        bar=f">= {CASES[size]:,} decisions; 0 broken; every loosened limit is seen",
        holds=not broken and not unseen and cases >= CASES[size] and seen["entries"] >= _LEAST,
        details=(
            f"decided in {decided_s:.0f} s, all in {monotonic() - began:.0f} s",
            f"stopped {seen['stops']} times, breaker opened {seen['breaker OPEN']} times",
            f"orders: {sent.entries} entries sent, {sent.bars} times barred, {sent.exits_barred} exits while barred",
            ", ".join(
                f"{name.removeprefix('denied ')} {count:,}" for name, count in seen.most_common() if name in refusals
            ),
            *(f"not seen though loosened: {name}" for name in unseen),
            *broken[:20],
        ),
    )


def _life(seed: int, see: Sight = lambda snapshot, policy: (snapshot, policy)) -> tuple[list[str], World]:
    world = World(seed, see=see)
    return [one for _ in range(_STEPS) for one in world.step()], world


def _lived(seed: int) -> tuple[list[str], Counter[str]]:
    found, world = _life(seed)
    return found, world.seen


def is_found(name: str) -> bool:
    """Whether a chain that does not see the limit of that name is seen to break just that one."""
    lives = (_life(seed, _LOOSENED[name])[0] for seed in range(_TEETH_CASES // _STEPS))
    return any(one.startswith(f"{name}:") for found in lives for one in found)


def one_life_is_found() -> bool:
    """Whether an executor that was never told of the bar is seen to send an entry."""
    return any("while entries were barred" in one for seed in range(20) for one in one_life(seed, is_deaf=True).wrong)


def _sum(lives: list[Told]) -> Told:
    return Told(
        entries=sum(one.entries for one in lives),
        exits_barred=sum(one.exits_barred for one in lives),
        bars=sum(one.bars for one in lives),
        steps=sum(one.steps for one in lives),
    )
