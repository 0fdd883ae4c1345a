"""Many sets of rules over one market, and what the best of so many would show by luck alone."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from decimal import Decimal, InvalidOperation
from statistics import NormalDist
from typing import Any, get_type_hints

import numpy as np

from feature_store.errors import BadInputError
from flows.replay.fast import FastEngine
from flows.replay.market import Intrabar, VenueCosts
from flows.replay.metrics import figures
from inference.domain.policy import Policy

MAX_SETS = 100_000
# Data is never stale on a virtual clock.
_WITHOUT_EFFECT = frozenset({"stale_after_candles"})
_GAMMA = 0.5772156649015329


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
    count = math.prod(len(values) for _, values in axes)
    if count > MAX_SETS:
        raise BadInputError(f"These sweeps make {count:,} sets of rules, at most {MAX_SETS:,} are tried; name fewer")
    return [
        ({name: str(value) for name, value in zip(names, chosen, strict=True)},
         replace(policy, **dict(zip(names, chosen, strict=True))))
        for chosen in itertools.product(*(values for _, values in axes))
    ]  # fmt: skip


def run_sweep(
    engine: FastEngine,
    sets: Sequence[tuple[Mapping[str, str], Policy]],
    *,
    balance: Decimal,
    costs: VenueCosts,
    intrabar: Intrabar = Intrabar.PATH,
    progress: Callable[[float], None] = lambda _: None,
) -> list[SweepRow]:
    """
    Return the figures of each set, best Sharpe first.

    Raises:
        BadInputError: A set asks for more than the engine counts exactly.
    """

    def one(given: tuple[Mapping[str, str], Policy]) -> SweepRow:
        changed, policy = given
        raw = engine.simulate(policy, balance=balance, costs=costs, intrabar=intrabar)
        return SweepRow(changed=changed, policy=policy, figures=figures(*engine.columns(raw)))

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
    known = {field.name for field in fields(Policy)} - _WITHOUT_EFFECT
    if name in _WITHOUT_EFFECT:
        raise BadInputError(f"Rule {name} has no effect in a backtest, where data is never stale; leave it out")
    if not equals or name not in known:
        raise BadInputError(f"--sweep takes rule=a,b,c with a rule of {', '.join(sorted(known))}; was {text!r}")
    kind = get_type_hints(Policy)[name]
    values = [_value(name, part.strip(), kind) for part in listed.split(",") if part.strip()]
    if not values:
        raise BadInputError(f"--sweep {name} names no value; write {name}=a,b,c")
    return name, list(dict.fromkeys(values))


def _value(name: str, text: str, kind: Any) -> Any:
    try:
        number = Decimal(text)
    except InvalidOperation:
        number = Decimal("NaN")
    if not number.is_finite() or (kind is int and number != number.to_integral_value()):
        raise BadInputError(f"--sweep {name} needs {'whole numbers' if kind is int else 'numbers'}, was {text!r}")
    if kind is int:
        return int(number)
    return number if kind is Decimal else float(number)
