"""Whether open times are milliseconds, of the past and of their timeframe, and symbols those of their venue."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from feature_store.candle import Timeframe
from feature_store.errors import BadInputError

if TYPE_CHECKING:
    import numpy.typing as npt

_FIRST_MS = 100_000_000_000
"""Milliseconds before this are seconds: 1973, older than any market we know."""
_LAST_MS = 100_000_000_000_000
"""Milliseconds after this are microseconds: the year 5138."""
_ENOUGH = 11
"""So many candles are never by chance all multiples of a longer timeframe apart: one in millions would be."""
_SWAP_VENUES, _SPOT_VENUES = ("binanceusdm", "sandbox"), ("binance",)


def refuse_other_units(symbol: str, times: npt.NDArray[np.int64]) -> None:
    """
    Refuse open times in another unit.

    Raises:
        BadInputError: They look like seconds, or like microseconds or finer.
    """
    if len(times) and times.min() < _FIRST_MS:
        raise BadInputError(f"{symbol}: open time {times.min()} looks like seconds; expected milliseconds")
    if len(times) and times.max() > _LAST_MS:
        raise BadInputError(
            f"{symbol}: open time {times.max()} looks like microseconds or finer; expected milliseconds"
        )


def refuse_future(symbol: str, times: npt.NDArray[np.int64], now_ms: int) -> None:
    """
    Refuse candles that open later than now.

    Raises:
        BadInputError: One does.
    """
    if (times > now_ms).any():
        raise BadInputError(f"{symbol}: a candle opens at {times.max()} ms, in the future (it is {now_ms} ms)")


def refuse_other_timeframe(symbol: str, timeframe: Timeframe, times: npt.NDArray[np.int64]) -> None:
    """
    Refuse candles of a longer timeframe: absent ones are no reason for all of so many steps to be multiples of it.

    Raises:
        BadInputError: They are.
    """
    if len(times) < _ENOUGH:
        return
    step = int(np.gcd.reduce(np.diff(times)))
    longer = [one for one in Timeframe if one.milliseconds > timeframe.milliseconds and step % one.milliseconds == 0]
    if longer:
        raise BadInputError(
            f"{symbol}: all {len(times)} candles open multiples of {longer[-1]} apart; these are no candles of "
            f"{timeframe}. Say --timeframe {longer[-1]}, or mend the name that says {timeframe}"
        )


def refuse_other_market(venue: str, symbol: str) -> None:
    """
    Refuse perpetuals at a spot venue, and the other way round: their symbols differ by the settlement currency.

    Raises:
        BadInputError: The symbol is of the other market.
    """
    if venue in _SWAP_VENUES and ":" not in symbol:
        raise BadInputError(f"{venue} trades perpetuals, as BTC/USDT:USDT; found {symbol}")
    if venue in _SPOT_VENUES and ":" in symbol:
        raise BadInputError(f"{venue} trades spot, as BTC/USDT; found {symbol}")
