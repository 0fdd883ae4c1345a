"""The emergency stop: five evaluators, each with its own list of actions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from inference.domain.health import HealthLevel
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.domain.position import Account, Position
from inference.domain.signal import Direction
from inference.risk.errors import ErrorCounts

_ZERO = Decimal(0)
ACCOUNT_SECONDS = 60.0
"""How old, on the wall's clock, the account's equity may be before nothing can be said of drawdown."""


class Evaluator(StrEnum):
    """Who may set off the emergency stop."""

    DRAWDOWN = "DRAWDOWN"
    SYSTEM_HEALTH = "SYSTEM_HEALTH"
    EXECUTION_ERRORS = "EXECUTION_ERRORS"
    DATA_FEED = "DATA_FEED"
    MANUAL = "MANUAL"


class Action(StrEnum):
    """What an emergency stop does, in the order in which it is done."""

    CANCEL_ENTRIES = "CANCEL_ENTRIES"
    KEEP_STOPS = "KEEP_STOPS"
    CLOSE_LOSERS = "CLOSE_LOSERS"
    REDUCE_REST = "REDUCE_REST"
    FLATTEN = "FLATTEN"
    ALERT = "ALERT"


_HOLD = (Action.CANCEL_ENTRIES, Action.KEEP_STOPS, Action.ALERT)
FLATTEN = (Action.CANCEL_ENTRIES, Action.KEEP_STOPS, Action.FLATTEN, Action.ALERT)
"""What a person who flattens asks for."""
ACTIONS: Mapping[Evaluator, tuple[Action, ...]] = {
    Evaluator.DRAWDOWN: (
        Action.CANCEL_ENTRIES,
        Action.KEEP_STOPS,
        Action.CLOSE_LOSERS,
        Action.REDUCE_REST,
        Action.ALERT,
    ),
    # Whose books or orders are not to be trusted closes nothing of its own accord: what is open rests on its stops.
    Evaluator.SYSTEM_HEALTH: _HOLD,
    Evaluator.EXECUTION_ERRORS: _HOLD,
    # Without prices nobody knows who loses.
    Evaluator.DATA_FEED: _HOLD,
    Evaluator.MANUAL: _HOLD,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bases:
    """What drawdown is measured from since the last reset: the day's and the week's start, and the peak."""

    day: Decimal
    week: Decimal
    peak: Decimal


@dataclass(frozen=True, slots=True, kw_only=True)
class EmergencyInputs:
    """
    What the evaluators look at. None is an input that is missing; ages and durations are wall-clock seconds.

    `health_seconds` says for how long health has been critical or worse, `feed_overdue_seconds` for how long a candle
    that has closed has not come, 0 where none is due.
    """

    account: Account | None
    account_age_seconds: float
    bases: Bases | None
    health: HealthLevel | None
    health_seconds: float
    errors: ErrorCounts | None
    feed_overdue_seconds: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """One evaluator's reason to stop, with the numbers compared and what is to be done."""

    evaluator: Evaluator
    reason: str
    actions: tuple[Action, ...]
    numbers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Who trips, and whose input is missing or stale: while it is, nothing is entered, and nothing is closed for it."""

    trips: tuple[Trip, ...]
    missing: tuple[Evaluator, ...]


def evaluate(inputs: EmergencyInputs, policy: Policy) -> Verdict:
    """Ask the four evaluators that look at numbers; the fifth is a person."""
    trips: list[Trip] = []
    missing: list[Evaluator] = []
    asked = (
        (Evaluator.DRAWDOWN, _drawdown(inputs, policy)),
        (Evaluator.SYSTEM_HEALTH, _health(inputs, policy)),
        (Evaluator.EXECUTION_ERRORS, _errors(inputs, policy)),
        (Evaluator.DATA_FEED, _feed(inputs, policy)),
    )
    for evaluator, found in asked:
        if found is None:
            missing.append(evaluator)
        elif found[0]:
            reason, numbers = found
            trips.append(Trip(evaluator=evaluator, reason=reason, actions=ACTIONS[evaluator], numbers=numbers))

    return Verdict(trips=tuple(trips), missing=tuple(missing))


# What an evaluator answers: a reason, empty where all is well, and its numbers; None where its input is missing.
_Answer = tuple[str, dict[str, str]] | None


def _drawdown(inputs: EmergencyInputs, policy: Policy) -> _Answer:
    account, bases = inputs.account, inputs.bases
    if account is None or bases is None or not inputs.account_age_seconds <= ACCOUNT_SECONDS:
        return None
    if not all(one.is_finite() for one in (account.equity, bases.day, bases.week, bases.peak)):
        return None
    walls = (
        ("day", bases.day, policy.wall_daily_drawdown),
        ("week", bases.week, policy.wall_weekly_drawdown),
        ("peak", bases.peak, policy.wall_peak_drawdown),
    )
    for what, base, wall in walls:
        fall = 1 - account.equity / base if base > 0 else Decimal(account.equity <= 0)
        # Divided, a fall of just the wall may round to a little less.
        if fall >= wall or account.equity <= base * (1 - wall):
            numbers = {"of": what, "drawdown": str(fall), "wall": str(wall), "equity": str(account.equity)}
            return f"equity fell by {fall:.2%} from the {what}'s {base:f}, the wall is {wall:.2%}", numbers
    return "", {}


def _health(inputs: EmergencyInputs, policy: Policy) -> _Answer:
    if inputs.health is None:
        return None
    lasting = inputs.health is HealthLevel.CRITICAL and inputs.health_seconds >= policy.emergency_health_seconds
    if inputs.health is not HealthLevel.EMERGENCY and not lasting:
        return "", {}
    numbers = {
        "health": inputs.health.value,
        "seconds": f"{inputs.health_seconds:.1f}",
        "limit": str(policy.emergency_health_seconds),
    }
    return f"health is {inputs.health.value} for {inputs.health_seconds:.0f} s", numbers


def _errors(inputs: EmergencyInputs, policy: Policy) -> _Answer:
    counts = inputs.errors
    if counts is None:
        return None
    if counts.in_row > policy.emergency_errors:
        numbers = {"in_row": str(counts.in_row), "limit": str(policy.emergency_errors)}
        return f"{counts.in_row} orders refused in a row, more than {policy.emergency_errors}", numbers
    if counts.share > float(policy.emergency_error_share):
        numbers = {
            "failed": str(counts.failed),
            "outcomes": str(counts.outcomes),
            "limit": str(policy.emergency_error_share),
        }
        return f"{counts.failed} of {counts.outcomes} orders failed", numbers
    return "", {}


def _feed(inputs: EmergencyInputs, policy: Policy) -> _Answer:
    overdue = inputs.feed_overdue_seconds
    if overdue is None or not overdue >= 0:
        return None
    if overdue <= policy.emergency_feed_seconds:
        return "", {}
    numbers = {"overdue_seconds": f"{overdue:.1f}", "limit": str(policy.emergency_feed_seconds)}
    return f"no candle came for {overdue:.0f} s after one was due", numbers


def positions_to_close(
    actions: tuple[Action, ...],
    *,
    positions: Mapping[str, Position],
    quotes: Mapping[str, Quote],
    heat: Mapping[str, Decimal],
    reduce_share: Decimal,
) -> Mapping[str, str]:
    """
    Return which positions an emergency closes, each with why.

    Losers are those that would lose at the price they can be left at; without a price nobody is called one. Of the
    rest, whole positions are closed, the one with most at risk first, until the stated share of its notional is gone:
    rather more than less.
    """
    if Action.FLATTEN in actions:
        return dict.fromkeys(sorted(positions), "flatten")
    chosen: dict[str, str] = {}
    if Action.CLOSE_LOSERS in actions:
        losers = (symbol for symbol, one in sorted(positions.items()) if _loses(one, quotes.get(symbol)))
        chosen.update(dict.fromkeys(losers, "close losers"))
    if Action.REDUCE_REST in actions:
        rest = {symbol: one for symbol, one in positions.items() if symbol not in chosen}
        wanted = reduce_share * sum((one.notional for one in rest.values()), _ZERO)
        for symbol in sorted(rest, key=lambda one: (-heat.get(one, _ZERO), -rest[one].notional, one)):
            if wanted <= 0:
                break
            chosen[symbol] = "reduce the rest"
            wanted -= rest[symbol].notional

    return chosen


def bases_of(account: Account | None, *, reset_equity: Decimal | None, same_day: bool, same_week: bool) -> Bases | None:
    """
    Return what drawdown is measured from.

    A person who resets the stop accepts what was lost until then: that day and that week are measured from the equity
    at the reset where it is lower, and the peak begins there too (the account's own mark says so).
    """
    if account is None:
        return None
    week = account.week_start_equity if isinstance(account.week_start_equity, Decimal) else account.day_start_equity
    day = account.day_start_equity
    if reset_equity is not None and day.is_finite() and week.is_finite() and reset_equity > 0:
        day = min(day, reset_equity) if same_day else day
        week = min(week, reset_equity) if same_week else week

    return Bases(day=day, week=week, peak=account.peak_equity)


def _loses(position: Position, quote: Quote | None) -> bool:
    if quote is None:
        return False
    if position.direction is Direction.LONG:
        return quote.bid < position.entry_price
    return quote.ask > position.entry_price
