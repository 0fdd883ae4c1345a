"""Where trades end, scored as the worker would trade: by the sweep engine, which takes the same decisions."""

from __future__ import annotations

from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path

import numpy as np

from feature_store.errors import BadInputError
from flows.replay.fast import FastEngine
from flows.replay.market import Opinions, ScoredMarket, VenueCosts
from flows.training.config import BarrierSizes
from flows.training.dataset import Floats, Rows
from inference.domain.errors import PolicyError
from inference.domain.policy import BARRIERS, Policy
from inference.models.manifest import TimeWindow
from inference.policy.policy_file import read_policy

BALANCE = Decimal(10_000)
"""What the account of a trial holds at the start; scores are of notional, so that it only bounds what fits."""


@dataclass(frozen=True, slots=True, eq=False)
class TradedMarket:
    """Candles of the stretch that members learn from and nothing after it, and the rules that are not searched."""

    market: ScoredMarket
    policy: Policy


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """What an ensemble says of some rows, and from which confidence on it trades."""

    expected: Floats
    probability_up: Floats
    threshold: float


def base_policy(parts: str, path: str | None) -> Policy | None:
    """
    Return the rules that a search for exits begins with, None where exits are not searched.

    Raises:
        BadInputError: A policy is named and nothing asks it.
        PolicyError: The file cannot be used, or names an exit profile, by which none of the searched sizes counts.
    """
    if "exits" in (part.strip() for part in parts.split(",")):
        policy = read_policy(None if path is None else Path(path).expanduser())
        if policy.exit_profile != BARRIERS:
            raise PolicyError(
                f"Part exits searches the stop, target and time of {BARRIERS}, and this policy goes by exit_profile "
                f"{policy.exit_profile}; leave that rule out, or search other parts"
            )
        return policy
    if path is not None:
        raise BadInputError("A policy says how trades are made, which only part exits asks; search that part too")
    return None


def policy_with(policy: Policy, exits: BarrierSizes | None) -> Policy:
    """
    Return a policy whose trades end where they were found to end best; None leaves it as it is.

    Raises:
        PolicyError: A size is not positive, or the policy names an exit profile.
    """
    if exits is None:
        return policy
    if policy.exit_profile != BARRIERS:
        raise PolicyError(f"Barriers were searched, and the policy goes by exit_profile {policy.exit_profile}; drop it")
    # By way of text: 1.37 stays 1.37, and is not the float that is nearest to it.
    return replace(
        policy,
        stop_atr_multiple=Decimal(str(exits.stop_atr_multiple)),
        target_atr_multiple=Decimal(str(exits.target_atr_multiple)),
        max_holding_candles=exits.holding_candles,
    )


def traded_net(
    traded: TradedMarket,
    exits: BarrierSizes | None,
    said: Said,
    rows: Rows,
    symbols: tuple[str, ...],
    window: TimeWindow,
) -> Floats:
    """
    Return the net return of each trade of a window as a fraction of its notional, in the order in which they ended.

    What is open at the end of the window is closed there, as in any backtest: no candle after it is looked at.

    Raises:
        BadInputError: The rules ask for more than the engine counts exactly.
    """
    opinions = {
        symbol: Opinions(rows.open_time_ms[mine], said.expected[mine], said.probability_up[mine])
        for number, symbol in enumerate(symbols)
        if (mine := rows.series == number).any()
    }
    market = traded.market.between(window.start_ms, window.end_ms).with_opinions(opinions, threshold=said.threshold)
    policy, engine = policy_with(traded.policy, exits), FastEngine(market)
    raw = engine.simulate(policy, balance=BALANCE, costs=VenueCosts(taker_fee=policy.taker_fee))
    table, *_ = engine.columns(raw)
    order = np.argsort(table.closed_ms, kind="stable")
    return np.asarray((table.net / table.notional)[order], np.float64)
