"""
Whether what a signal was made from can be trusted: flags with a code and the numbers that were compared.

Flags say what was found and refuse nothing; which of them refuse an entry is the policy's to say. What cannot be
compared because it is missing is a flag itself, and so is a time that lies ahead of the clock.

Two questions are asked of a model's inputs. Each for itself: does it lie where training saw it? And all together: is
this row as far from training's as hardly any was? The second is Mahalanobis' distance, with the covariance shrunk by
Ledoit and Wolf's rule (Journal of Multivariate Analysis 88, 2004). The mean of squared robust deviations would be
simpler, but the inputs are nearly copies of one another (seven returns, seven distances to averages): it counts one
move of the price seven times, and does not see a row whose every input is ordinary and whose combination no market can
have, which is what a broken feature looks like.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from inference.domain.quality import QualityCode, QualityFlag
from inference.regime.arrays import require
from inference.signals.trained_inputs import Floats, PreparedInputs, distances, used_rows

_MOST_NAMED = 5
"""Inputs out of range that a row names, the worst first: if more are, the reader knows all there is to know."""


class QualityLimits(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """
    From which figures on there is a flag; None never.

    `stale_ms` is the greatest age of features and quotes, `ahead_ms` how far a time may lie ahead of ours, in
    milliseconds. `widest_spread` is a share of the mid price; `thinnest_volume` quote currency traded per candle.
    """

    stale_ms: int
    ahead_ms: int = 1000
    widest_spread: float | None = None
    thinnest_volume: float | None = None

    def __post_init__(self) -> None:
        """Refuse limits that are none."""
        require(self.stale_ms >= 0 and self.ahead_ms >= 0, "Ages in milliseconds must not be negative")
        for name in ("widest_spread", "thinnest_volume"):
            value = getattr(self, name)
            require(value is None or 0 <= value < float("inf"), f"{name} must be finite and not negative, was {value}")


@dataclass(frozen=True, slots=True, eq=False)
class MarketState:
    """
    What is known of n markets beside their features; NaN where a number is not known.

    Times are UTC milliseconds, `feature_time_ms` the close of the candle that features end on. `quote_volume` is
    quote currency traded per candle, over whatever stretch the caller takes the mean of.
    """

    feature_time_ms: npt.NDArray[np.int64]
    quote_time_ms: npt.NDArray[np.int64]
    bid: Floats
    ask: Floats
    quote_volume: Floats


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """Flags of each of n markets, and the distance of its inputs from training's [n]; NaN where none is known."""

    flags: tuple[tuple[QualityFlag, ...], ...]
    distance: Floats


def quality(
    market: MarketState,
    inputs: npt.NDArray[Any],
    trained: PreparedInputs | None,
    limits: QualityLimits,
    *,
    now_ms: int,
) -> Quality:
    """
    Return what is to be said against each market; each row by itself.

    Args:
        market: Times, quotes and volumes of n markets.
        inputs: Model inputs of their newest candles [n, M].
        trained: What training saw of those that the model reads; None where a bundle does not say: no flags of inputs.
        limits: From which figures on there is a flag.
        now_ms: The time by which ages are counted, UTC milliseconds.
    """
    found: list[list[QualityFlag]] = [[] for _ in range(len(market.bid))]
    _flag_ages(found, market, limits, now_ms)
    _flag_quotes(found, market, limits)
    _flag_volumes(found, market, limits)
    apart = np.full(len(found), np.nan) if trained is None else _flag_inputs(found, inputs, trained)
    return Quality(tuple(map(tuple, found)), apart)


def _flag_ages(found: list[list[QualityFlag]], market: MarketState, limits: QualityLimits, now_ms: int) -> None:
    for what, times in (("features", market.feature_time_ms), ("quote", market.quote_time_ms)):
        ages = now_ms - times
        for row in np.flatnonzero((ages > limits.stale_ms) | (ages < -limits.ahead_ms)).tolist():
            numbers = {"data": what, "age_ms": str(int(ages[row])), "maximum_ms": str(limits.stale_ms)}
            found[row].append(QualityFlag(code=QualityCode.STALE_DATA, context=numbers))


def _flag_quotes(found: list[list[QualityFlag]], market: MarketState, limits: QualityLimits) -> None:
    bid, ask = market.bid, market.ask
    sound = np.isfinite(bid) & np.isfinite(ask) & (bid > 0) & (bid <= ask)
    for row in np.flatnonzero(~sound).tolist():
        numbers = {"bid": str(float(bid[row])), "ask": str(float(ask[row])), "required": "0 < bid <= ask"}
        found[row].append(QualityFlag(code=QualityCode.NO_QUOTE, context=numbers))
    if limits.widest_spread is None:
        return
    # (ask - bid) / mid, of the ratio of both, which no size of prices can overflow.
    ratio = np.where(sound, bid, 1.0) / np.where(sound, ask, 1.0)
    spread = 2 * (1 - ratio) / (1 + ratio)
    for row in np.flatnonzero(spread > limits.widest_spread).tolist():
        numbers = {"spread": str(float(spread[row])), "maximum": str(limits.widest_spread)}
        found[row].append(QualityFlag(code=QualityCode.WIDE_SPREAD, context=numbers))


def _flag_volumes(found: list[list[QualityFlag]], market: MarketState, limits: QualityLimits) -> None:
    if limits.thinnest_volume is None:
        return
    # A volume that is not known, or without end, is not known to be enough.
    is_enough = np.isfinite(market.quote_volume) & (market.quote_volume >= limits.thinnest_volume)
    for row in np.flatnonzero(~is_enough).tolist():
        numbers = {"quote_volume": str(float(market.quote_volume[row])), "minimum": str(limits.thinnest_volume)}
        found[row].append(QualityFlag(code=QualityCode.THIN_VOLUME, context=numbers))


def _flag_inputs(found: list[list[QualityFlag]], inputs: npt.NDArray[Any], trained: PreparedInputs) -> Floats:
    used = used_rows(trained, inputs)
    names = trained.trained.names
    missing = ~np.isfinite(used)
    for row in np.flatnonzero(missing.any(axis=1)).tolist():
        numbers = {"inputs": _told([names[place] for place in np.flatnonzero(missing[row])])}
        found[row].append(QualityFlag(code=QualityCode.INPUT_MISSING, context=numbers))
    excess = np.maximum(trained.lowest - used, used - trained.highest) / trained.width
    outside = (excess > 0).sum(axis=1)
    rows = np.flatnonzero(outside)
    worst = np.argsort(-excess[rows], axis=1, kind="stable")[:, :_MOST_NAMED]
    values = np.take_along_axis(used[rows], worst, axis=1)
    for row, count, places, theirs in zip(
        rows.tolist(), outside[rows].tolist(), worst.tolist(), values.tolist(), strict=True
    ):
        for place, value in zip(places[:count], theirs, strict=False):
            low, high = trained.told[place]
            numbers = {
                "input": names[place],
                "value": str(value),
                "minimum": low,
                "maximum": high,
                "outside": str(count),
            }
            found[row].append(QualityFlag(code=QualityCode.INPUT_OUT_OF_RANGE, context=numbers))
    apart = distances(trained, used)
    for row in np.flatnonzero(apart > trained.trained.far).tolist():
        numbers = {
            "distance": str(float(apart[row])),
            "maximum": str(trained.trained.far),
            "false_alarms": str(trained.trained.distance_alarm),
        }
        found[row].append(QualityFlag(code=QualityCode.FAR_FROM_TRAINING, context=numbers))
    return apart


def _told(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
