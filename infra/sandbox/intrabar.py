"""
Which of two levels a recorded candle reached first, where both lie within it and nothing tells.

A candle of which only four prices are known says nothing of their order. By `path` the exchange replays a path that
knows nothing of anybody's position. By `adverse` what hurts a position comes first, by `optimistic` what helps it, and
by `detail` recorded minutes decide, and what hurts where there are none. What lies between the best and the worst that
could have been is told with the audit.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from infra.sandbox.engine import path
from infra.sandbox.engine.exchange import Exchange
from infra.sandbox.engine.model import STOPS, TARGETS, ZERO, OrderType, PositionSide
from infra.sandbox.engine.position import Position
from infra.sandbox.market.series import TICK_MS

if TYPE_CHECKING:
    from infra.sandbox.market.replay import ReplayMarket


class Intrabar(StrEnum):
    """In which order the extremes of a candle come that could end a position either way."""

    PATH = "path"
    DETAIL = "detail"
    ADVERSE = "adverse"
    OPTIMISTIC = "optimistic"


@dataclass(slots=True)
class Ambiguity:
    """Looks at each candle before it is played, and counts those in which both levels of a position lie."""

    market: ReplayMarket
    mode: Intrabar
    told_by_minutes: int = 0
    chosen: int = 0
    at_stake: Decimal = ZERO
    # Told that prices to come are others now.
    bent: Callable[[], None] = lambda: None
    # The candle that was looked at last, by symbol.
    _seen: dict[str, int] = field(default_factory=dict)

    def look(self, exchange: Exchange, index: dict[str, int], tick_ms: int) -> None:
        """Choose, for each symbol whose position this candle could end either way, what the next ticks are."""
        open_ms = tick_ms - tick_ms % self.market.base_ms
        # From the first extreme on it is known what comes.
        if not 0 < (tick_ms - open_ms) // TICK_MS <= path.corners(self.market.base_ms // TICK_MS)[0]:
            return
        held: dict[str, list[Position]] = {}
        for position in exchange.state.open_positions():
            held.setdefault(position.symbol, []).append(position)
        for symbol, positions in sorted(held.items()):
            # Recorded trades leave nothing open.
            if self._seen.get(symbol) == open_ms or self.market.is_traded(index[symbol], open_ms):
                continue
            stakes = _stakes(exchange, positions)
            candle = None if stakes is None else self.market.extremes(index[symbol], open_ms)
            if stakes is None or candle is None:
                continue
            quantity, stop, target = stakes
            low, high = candle
            if not (low <= stop <= high and low <= target <= high):
                continue
            self._seen[symbol] = open_ms
            if self.mode is Intrabar.DETAIL and self.market.is_detailed(index[symbol], open_ms):
                self.told_by_minutes += 1
                continue
            falls_first = (quantity > 0) is (self.mode is not Intrabar.OPTIMISTIC)
            if self.mode is Intrabar.PATH or self.market.lean(index[symbol], tick_ms, falls_first=falls_first):
                self.bent()
                self.chosen += 1
                self.at_stake += abs(quantity) * abs(target - stop)

    def begin_anew(self, told_by_minutes: int, chosen: int, at_stake: Decimal, *, bent: Callable[[], None]) -> None:
        """Look again at every candle that is played from now on, with what was counted of those before it."""
        self.told_by_minutes, self.chosen, self.at_stake, self.bent = told_by_minutes, chosen, at_stake, bent
        self._seen.clear()

    def report(self) -> dict[str, Any]:
        """Return the mode, how many candles were ambiguous, and how much the other order would have made of them."""
        return {
            "mode": self.mode.value,
            "ambiguous": self.told_by_minutes + self.chosen,
            "told_by_minutes": self.told_by_minutes,
            "chosen": self.chosen,
            "at_stake": f"{self.at_stake:f}",
        }


def _stakes(exchange: Exchange, positions: list[Position]) -> tuple[Decimal, Decimal, Decimal] | None:
    """Return what is held of a symbol, its nearest stop and its nearest target, where there are both."""
    # Two sides of a hedge are hurt by opposite ways; nothing is chosen for them.
    if len(positions) != 1:
        return None
    symbol, quantity, side = positions[0].symbol, positions[0].quantity, positions[0].position_side
    closing = [
        one
        for one in exchange.open_algos(symbol)
        if one.side.sign * quantity < 0
        and (side is PositionSide.BOTH or one.position_side is side)
        and one.type is not OrderType.TRAILING_STOP_MARKET
    ]
    stops = [one.trigger_price for one in closing if one.type in STOPS]
    targets = [one.trigger_price for one in closing if one.type in TARGETS]
    if not stops or not targets:
        return None
    nearest = (max(stops), min(targets)) if quantity > 0 else (min(stops), max(targets))
    return quantity, *nearest
