"""What a backtest is asked to do, read from what people write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from pathlib import Path

from feature_store.errors import BadInputError
from flows.home_exits import exits_for
from flows.replay.market import VenueCosts
from flows.replay.sweep import swept_policies
from flows.settings import FlowSettings, parse_moment
from inference.domain.exit_profile import ExitProfile
from inference.domain.policy import Policy
from inference.policy.policy_file import read_policy


class Engine(StrEnum):
    """What walks through sweeps and bounds: the compiled engine, or the worker's own decisions, in minutes for each."""

    FAST = "fast"
    WORD = "word"


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a backtest was asked to do, once it is sure that it can be; `exits` are those that the policy may name."""

    policy: Policy
    exits: Mapping[str, ExitProfile]
    sets: Sequence[tuple[dict[str, str], Policy]]
    balance: Decimal
    costs: VenueCosts
    start_ms: int | None
    end_ms: int | None
    engine: Engine = Engine.FAST

    @classmethod
    def of(
        cls,
        settings: FlowSettings,
        *,
        policy: str | None = None,
        sweep: Sequence[str] = (),
        balance: str = "10000",
        spread_bps: str = "1",
        maker_fee: str = "0.0002",
        start: str | None = None,
        end: str | None = None,
        engine: Engine | str = Engine.FAST,
    ) -> Asked:
        """
        Read what people write.

        Raises:
            BadInputError: A value, a rule, a moment or the policy's file cannot be used, or a worker of this home would
                enter nothing by the policy at the venue.
        """
        rules = read_policy(None if policy is None else Path(policy).expanduser())
        money = _amount(balance, "--balance")
        if not 0 < money <= 1_000_000_000:
            raise BadInputError(f"--balance must lie above 0 and up to 1,000,000,000, was {balance}")
        moments = [None if one is None else int(parse_moment(one).timestamp() * 1000) for one in (start, end)]
        if moments[0] is not None and moments[1] is not None and moments[0] >= moments[1]:
            raise BadInputError(f"A window ends after its start, was {start} to {end}")
        return cls(
            policy=rules,
            exits=exits_for(settings, rules),
            sets=swept_policies(rules, sweep) if sweep else (),
            balance=money,
            costs=VenueCosts(
                taker_fee=rules.taker_fee,
                maker_fee=_amount(maker_fee, "--maker-fee"),
                spread_bps=_amount(spread_bps, "--spread-bps"),
            ),
            start_ms=moments[0],
            end_ms=moments[1],
            engine=Engine(engine),
        )


def _amount(text: str, option: str) -> Decimal:
    try:
        found = Decimal(text)
    except ArithmeticError:
        found = Decimal("NaN")
    if not found.is_finite():
        raise BadInputError(f"{option} needs a number, was {text!r}")
    return found
