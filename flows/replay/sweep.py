"""Many sets of rules over one market, and what the best of so many would show by luck alone."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from decimal import Decimal, InvalidOperation
from statistics import NormalDist
from typing import Any

import numpy as np

from feature_store.errors import BadInputError
from flows.replay.fast import FastEngine
from flows.replay.market import ScoredMarket, VenueCosts
from flows.replay.metrics import TradeTable, figures
from flows.replay.word import replay
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import BARRIERS, Policy, policy_rules
from inference.domain.policy_rules import Section
from inference.policy.values import NO_LIMIT, kind_of

MAX_SETS = 100_000
# Data is never stale on a virtual clock, nothing fails there, no flag is put on a signal, and symbols are given.
_SHELL = ("stale_after_candles", "warn_daily_drawdown", "breaker_errors", "max_spread", "min_candle_volume")
_WITHOUT_EFFECT = frozenset(_SHELL) | {
    name
    for name, about in policy_rules().items()
    if about.section is Section.SUPERVISION
    or (about.section is Section.UNIVERSE and about.bounds is not None)
    or (name.startswith("emergency_") and name != "emergency_reduce_share")
}
_OF_THE_BARRIERS = frozenset({"stop_atr_multiple", "target_atr_multiple"})
_GAMMA = 0.5772156649015329

Walk = Callable[[Policy], Mapping[str, float]]
"""From rules to the figures of one walk through a market."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepRow:
    """One set of rules, what was changed in it, and its figures."""

    changed: Mapping[str, str]
    policy: Policy
    figures: Mapping[str, float]


def swept_policies(policy: Policy, sweeps: Sequence[str]) -> list[tuple[dict[str, str], Policy]]:
    """
    Return every combination of `key=a,b,c`, each as a policy, with what was changed in it.

    Raises:
        BadInputError: A key is no rule, a value cannot be used, or there are too many sets.
    """
    axes = [_axis(one) for one in sweeps]
    names = [name for name, _ in axes]
    if len(set(names)) < len(names):
        raise BadInputError(f"Each rule is swept once, was {', '.join(names)}")
    idle = sorted(_OF_THE_BARRIERS.intersection(names))
    if policy.exit_profile != BARRIERS and idle:
        raise BadInputError(
            f"Rule {idle[0]} has no effect by exit_profile {policy.exit_profile}; leave one of them out"
        )
    count = math.prod(len(values) for _, values in axes)
    if count > MAX_SETS:
        raise BadInputError(f"These sweeps make {count:,} sets of rules, at most {MAX_SETS:,} are tried; name fewer")
    return [
        ({name: NO_LIMIT if value is None else str(value) for name, value in zip(names, chosen, strict=True)},
         replace(policy, **dict(zip(names, chosen, strict=True))))
        for chosen in itertools.product(*(values for _, values in axes))
    ]  # fmt: skip


def compiled(
    engine: FastEngine, *, balance: Decimal, costs: VenueCosts, exits: Mapping[str, ExitProfile] = BUILT_IN
) -> Walk:
    """Return what walks through a market in milliseconds, by the rules that the compiled engine knows."""

    def walk(policy: Policy) -> Mapping[str, float]:
        return figures(*engine.columns(engine.simulate(policy, balance=balance, costs=costs, exits=exits)))

    return walk


def by_word(
    market: ScoredMarket, *, balance: Decimal, costs: VenueCosts, exits: Mapping[str, ExitProfile] = BUILT_IN
) -> Walk:
    """Return what walks through a market by the worker's own decisions: every rule, minutes for each set."""

    def walk(policy: Policy) -> Mapping[str, float]:
        run = replay(market, policy, balance=balance, costs=costs, exits=exits)
        return figures(TradeTable.of(run), run.time_ms, run.equity, run.exposure)

    return walk


def run_sweep(
    walk: Walk,
    sets: Sequence[tuple[Mapping[str, str], Policy]],
    *,
    progress: Callable[[float], None] = lambda _: None,
) -> list[SweepRow]:
    """
    Return the figures of each set, best Sharpe first.

    Raises:
        BadInputError: A set asks for more than the engine counts exactly, or for rules that it does not know.
    """

    def one(given: tuple[Mapping[str, str], Policy]) -> SweepRow:
        changed, policy = given
        return SweepRow(changed=changed, policy=policy, figures=walk(policy))

    rows = []
    # The compiled walk lets go of the interpreter, so that threads run beside each other.
    with ThreadPoolExecutor(max_workers=min(len(sets), os.cpu_count() or 1)) as pool:
        for done, row in enumerate(pool.map(one, sets), start=1):
            rows.append(row)
            progress(done / len(sets))
    return sorted(rows, key=lambda row: -row.figures.get("sharpe", -math.inf))


def lucky_sharpe(rows: Sequence[SweepRow]) -> float | None:
    """
    Return the Sharpe that the best of so many sets is expected to show where none is worth anything.

    Expected maximum of n independent draws (Bailey and López de Prado 2014, eq. 1) with the spread that the sets show;
    sets of a sweep are correlated, so that the truth is rather less. None for fewer than two.
    """
    found = [row.figures["sharpe"] for row in rows if "sharpe" in row.figures]
    if len(found) < 2:
        return None
    draw = NormalDist().inv_cdf
    n = len(found)
    return float(np.std(found, ddof=1)) * ((1 - _GAMMA) * draw(1 - 1 / n) + _GAMMA * draw(1 - 1 / (n * math.e)))


def _axis(text: str) -> tuple[str, list[Any]]:
    name, equals, listed = text.partition("=")
    name = name.strip()
    known = {one for one, about in policy_rules().items() if about.bounds is not None} - _WITHOUT_EFFECT
    if name in _WITHOUT_EFFECT:
        raise BadInputError(f"Rule {name} has no effect in a backtest; leave it out")
    if not equals or name not in known:
        raise BadInputError(f"--sweep takes rule=a,b,c with a rule of {', '.join(sorted(known))}; was {text!r}")
    values = [_value(name, part.strip()) for part in listed.split(",") if part.strip()]
    if not values:
        raise BadInputError(f"--sweep {name} names no value; write {name}=a,b,c")
    return name, list(dict.fromkeys(values))


def _value(name: str, text: str) -> Any:
    kind, optional = kind_of(name)
    if optional and text == NO_LIMIT:
        return None
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or (kind is int and number != number.to_integral_value()):
        raise BadInputError(f"--sweep {name} needs {'whole numbers' if kind is int else 'numbers'}, was {text!r}")
    if kind is int:
        return int(number)
    return number if kind is Decimal else float(number)
