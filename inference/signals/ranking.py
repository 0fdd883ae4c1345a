"""
Which opportunity comes first: what it is expected to earn for what it risks, as surely as the model is.

An opportunity's worth is its expected return net of costs, per unit of what is lost at the stop, times the calibrated
probability of its direction. Each position on the same side of the same cluster of correlated symbols (as
`inference.portfolio.correlation` finds them), held or ranked before, takes a share off it: the second of two
look-alikes is worth less than the first, because it adds less than its own risk says. So the order is made one by one:
the best of what is left, given what has been chosen.

What has nothing to gain comes after all that has, and what cannot be judged comes last.
"""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import msgspec

from inference.domain.signal import Direction
from inference.regime.arrays import require


@dataclass(frozen=True, slots=True, kw_only=True)
class Opportunity:
    """
    A signal that might be traded.

    `net_return` is the expected return in `direction` after the costs of a round trip, `risk` what is lost at the stop,
    both fractions of notional; `confidence` the calibrated probability of `direction`.
    """

    symbol: str
    direction: Direction
    net_return: float
    risk: float
    confidence: float

    @property
    def worth(self) -> float | None:
        """Net return per unit of risk times confidence; None where a number is none, or there is no side."""
        numbers = (self.net_return, self.risk, self.confidence)
        if self.direction is Direction.FLAT or not all(map(math.isfinite, numbers)):
            return None
        if self.risk <= 0 or not 0 <= self.confidence <= 1:
            return None
        worth = self.net_return / self.risk * self.confidence
        return worth if math.isfinite(worth) else None


class RankingRules(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`companion_factor` is what each companion leaves of an opportunity's worth; 1 takes nothing off."""

    companion_factor: float = 0.5

    def __post_init__(self) -> None:
        """Refuse a factor that would raise what has companions, or leave nothing to be told apart."""
        require(0 < self.companion_factor <= 1, f"The factor must lie in (0, 1], was {self.companion_factor}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Ranked:
    """
    An opportunity in its place, with the numbers that put it there.

    `worth` is its own, `score` what companions left of it, `companions` how many on its side of its cluster are held
    or stand before it. Both are None where it cannot be judged.
    """

    opportunity: Opportunity
    worth: float | None
    score: float | None
    companions: int


_SIDES = (Direction.LONG, Direction.SHORT)
_Side = tuple[str, Direction]
_Key = tuple[str, Direction, float, float, float]


def rank(
    opportunities: Iterable[Opportunity],
    *,
    held: Mapping[str, Direction],
    clusters: Mapping[str, str],
    rules: RankingRules,
    in_flight: Iterable[str] = (),
) -> tuple[Ranked, ...]:
    """
    Return all opportunities, the best first; the order in which they are given changes nothing.

    Equals stand by symbol. A greater net return never puts an opportunity further back.

    Args:
        opportunities: What might be traded.
        held: The side of each position, by symbol.
        clusters: The cluster of each symbol; one that has none is its own.
        rules: What companions take off.
        in_flight: Symbols of entries whose side is not told; they count on both.
    """
    taken: Counter[_Side] = Counter(_side(symbol, side, clusters) for symbol, side in held.items())
    taken.update(_side(symbol, side, clusters) for symbol in in_flight for side in _SIDES)
    waiting: list[tuple[float, _Key, int, float, Opportunity]] = []
    unjudged: list[Opportunity] = []
    for one in opportunities:
        worth = one.worth
        if worth is None:
            unjudged.append(one)
            continue
        count = taken[_side(one.symbol, one.direction, clusters)]
        waiting.append((-_score(worth, count, rules), _key(one), count, worth, one))
    heapq.heapify(waiting)
    placed: list[Ranked] = []
    while waiting:
        negative, key, count, worth, one = heapq.heappop(waiting)
        side = _side(one.symbol, one.direction, clusters)
        if taken[side] != count:
            # Its companions came before it: what is left of it has its place further back, or here.
            heapq.heappush(waiting, (-_score(worth, taken[side], rules), key, taken[side], worth, one))
            continue
        taken[side] += 1
        placed.append(Ranked(opportunity=one, worth=worth, score=-negative, companions=count))
    # Words first: what is no number has no order.
    unjudged.sort(key=lambda one: (one.symbol, one.direction, repr(one)))
    return (
        *placed,
        *(
            Ranked(
                opportunity=one,
                worth=None,
                score=None,
                companions=taken[_side(one.symbol, one.direction, clusters)],
            )
            for one in unjudged
        ),
    )


def _score(worth: float, companions: int, rules: RankingRules) -> float:
    # What is expected to lose does not lose less for having companions.
    return worth * rules.companion_factor**companions if worth > 0 else worth


def _side(symbol: str, direction: Direction, clusters: Mapping[str, str]) -> _Side:
    return clusters.get(symbol, symbol), direction


def _key(one: Opportunity) -> _Key:
    return one.symbol, one.direction, one.net_return, one.risk, one.confidence
