"""What a regime is told by: numbers of one candle in units of what is usual for its series, from model inputs alone."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from inference.regime.states import Floats

INPUT_NAMES = ("log_return_12", "log_return_24", "adx", "distance_ema_20", "distance_ema_50", "volatility_20")
"""The model inputs that regimes are told from, as `feature_store.features.definition` defines them."""
OBSERVED = ("return", "log_volatility")
"""What the hidden Markov model observes of a candle."""
OVERLAP = 16
"""Candles that share what is observed: between the 12 of the return and the 20 of the volatility."""
_RETURN_CANDLES, _FALL_CANDLES = 12, 24
_QUIETEST = 0.02
"""A series that hardly moves counts as this share of what is usual: a logarithm of 0 says nothing."""


class Observed(NamedTuple):
    """
    One candle of n series; NaN where an input is missing, or nothing is known of the series.

    `hidden` [n, 2] are `OBSERVED`: the log return over 12 candles in what is usual for 12, and the logarithm of
    `volatility_20` in usual volatilities, which is closer to normal than volatility is (Andersen, Bollerslev, Diebold
    and Ebens, Journal of Financial Economics 61, 2001). `adx` is Wilder's, 0 to 100. `above` is ln(close / ema_20),
    `rising` is ln(ema_20 / ema_50). `volatility` is `volatility_20` in usual volatilities, `fall` how far the price
    fell over 24 candles in what is usual for 24.
    """

    hidden: Floats
    adx: Floats
    above: Floats
    rising: Floats
    volatility: Floats
    fall: Floats


def columns_of(names: Sequence[str]) -> tuple[int, ...]:
    """
    Return where `INPUT_NAMES` are among the names of inputs.

    Raises:
        ValueError: One of them is not there.
    """
    missing = [one for one in INPUT_NAMES if one not in names]
    if missing:
        raise ValueError(f"Regimes are told from {', '.join(INPUT_NAMES)}; {', '.join(missing)} were not among inputs")
    return tuple(names.index(one) for one in INPUT_NAMES)


def scales_of(symbols: Sequence[str], scales: Mapping[str, float]) -> Floats:
    """Return the usual volatility of each symbol [n], in log return of a candle; NaN for one not learned from."""
    return np.array([scales.get(symbol, np.nan) for symbol in symbols], np.float64)


def observe(inputs: npt.NDArray[Any], columns: Sequence[int], scales: Floats) -> Observed:
    """
    Return what a candle shows.

    Args:
        inputs: Model inputs of the candle [n, M], of whatever float; an infinite one is a missing one.
        columns: Where `INPUT_NAMES` are.
        scales: Usual volatility of each series [n].
    """
    numbers = np.asarray(inputs[:, list(columns)], np.float64)
    short, long, adx, near, far, volatility = np.where(np.isfinite(numbers), numbers, np.nan).T
    in_usual = volatility / scales
    return Observed(
        hidden=np.stack(
            [short / (scales * math.sqrt(_RETURN_CANDLES)), np.log(np.maximum(in_usual, _QUIETEST))], axis=1
        ),
        # The input is adx_14 / 50 - 1.
        adx=50 * (adx + 1),
        above=near,
        rising=far - near,
        volatility=in_usual,
        fall=-long / (scales * math.sqrt(_FALL_CANDLES)),
    )
