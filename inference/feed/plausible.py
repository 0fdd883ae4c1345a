"""Candles that no market has made: a volume or a close out of all proportion to those before it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from feature_store.candle import CLOSE, VOLUME, CandleBlock
from feature_store.features.definition import TAIL

VOLUME_TIMES = 10_000.0
"""
How many times the highest volume of the 64 candles before it a candle may trade.

Of the 7.2 million candles of four venues that this was chosen on, from a minute to an hour long, 2013 to 2025, crashes
and thin markets among them, none traded more than 269 times that, and no close was more than 1.7 times the one before.
"""
PRICE_TIMES = 100.0
"""How many times the close before it, or which part of it, a close may be."""
MOST_TRADED = 1e18
"""Volume times close that no candle reaches, whatever it is quoted in: the busiest hour of those is 1e10 dollars."""
BELIEVED_AFTER = 12
"""So many refused candles in a row are a new level, as after a redenomination: the last of them is believed."""

Values = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Sifted:
    """What of a block may be taken in, and why others may not, by open time."""

    block: CandleBlock
    refused: Mapping[int, str]

    @property
    def newest(self) -> str:
        """Why the newest candle of all was refused; empty where it was not."""
        last = self.block.last_open_time_ms
        return (
            "" if not self.refused or (last is not None and last > max(self.refused)) else [*self.refused.values()][-1]
        )


def sift(before: Values, block: CandleBlock, *, refused_before: int = 0) -> Sifted:
    """
    Return the candles of a block that a market could have made after those that were taken in last.

    What is refused leaves a gap. Nothing is compared with a candle that was refused, and volumes with nothing until 64
    candles are known and one of them traded. Candles that are none (a price below zero, no number) are left to whoever
    takes them in: that one says what is wrong with them.

    Args:
        before: The newest candles that were taken in [n, 5], oldest first, 64 where there are as many.
        block: Closed candles that follow them.
        refused_before: How many candles in a row were refused just before this block.
    """
    refused: dict[int, str] = {}
    in_a_row = refused_before
    taken = np.ones(len(block), bool)
    closes, volumes = _columns(before)
    for place, (close, volume) in enumerate(zip(*_columns(block.values), strict=True)):
        why = _absurd(close, volume, closes, volumes, relative=in_a_row + 1 < BELIEVED_AFTER)
        if why:
            refused[int(block.open_time_ms[place])] = why
            taken[place] = False
            in_a_row += 1
        else:
            in_a_row = 0
            closes.append(close)
            volumes.append(volume)
    return Sifted(block if not refused else CandleBlock(block.open_time_ms[taken], block.values[taken]), refused)


def is_price(price: float, *, before: float | None) -> bool:
    """Tell whether a price can be one, and follow the close before it, where that is known."""
    if not (math.isfinite(price) and price > 0):
        return False
    return before is None or not before > 0 or 1 / PRICE_TIMES <= price / before <= PRICE_TIMES


def _columns(values: Values) -> tuple[list[float], list[float]]:
    return values[:, CLOSE].tolist(), values[:, VOLUME].tolist()


def _absurd(close: float, volume: float, closes: list[float], volumes: list[float], *, relative: bool) -> str:
    if not (math.isfinite(close) and math.isfinite(volume) and close > 0 and volume >= 0):
        return ""
    if volume * close > MOST_TRADED:
        return f"its candle's volume of {volume:g} at {close:g} is more than any market trades"
    if not (relative and closes):
        return ""
    last = closes[-1]
    if last > 0 and not 1 / PRICE_TIMES <= close / last <= PRICE_TIMES:
        return f"its candle's close of {close:g} is beyond {PRICE_TIMES:g} times the one before it, {last:g}"
    highest = max(volumes[-TAIL:]) if len(volumes) >= TAIL else 0.0
    if 0 < highest * VOLUME_TIMES < volume:
        return f"its candle's volume of {volume:g} is beyond {VOLUME_TIMES:,.0f} times the highest of late, {highest:g}"
    return ""
