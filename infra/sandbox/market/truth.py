"""
What the synthetic market hides, as one who knows its equations can foresee it: the ceiling for every model.

The expectation of the next hour's return is exact up to one approximation: the volatility of the minutes to come enters
by the root of its expected square. Two are given: by the latent itself, which nobody can see, and by the optimal
(Kalman) filter of one symbol's own minute returns and volumes, which knows no more than the candles say.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from infra.sandbox.market.equations import (
    FAST_VOLATILITY,
    HORIZON_MINUTES,
    MEMORY_MINUTES,
    SLOW_VOLATILITY,
    VOLUME_AR,
    VOLUME_WHITE,
    drift_of,
    leak_of,
)
from infra.sandbox.market.series import DAY_MS, MINUTE_MS
from infra.sandbox.market.synthetic import F64, MINUTES, SyntheticMarket, Volatility

_STEP = 10
"""The hour ahead is summed in steps of so many minutes, over which volatility hardly changes."""


@dataclass(frozen=True, slots=True, eq=False)
class Foreseen:
    """
    Expected log return of the next hour at the end of each minute, symbols by minutes.

    `time_ms` is when the minute ends, which is when the expectation can be known.
    """

    time_ms: np.ndarray[tuple[int], np.dtype[np.int64]]
    by_latent: F64
    by_filter: F64


def foresee(market: SyntheticMarket, start_ms: int, end_ms: int) -> Foreseen:
    """Return what could be expected of the hours after each minute that ends in (start_ms, end_ms], whole days."""
    days = range(start_ms // DAY_MS, -(-end_ms // DAY_MS))
    volatility = [market.volatility(day) for day in days]
    latent = np.concatenate([market.latent(day) for day in days], axis=1)
    total = np.concatenate([_total(one) for one in volatility], axis=1)
    ahead = np.concatenate([_ahead(one) for one in volatility], axis=1)
    returns, log_volume = _candles(market, days[0] * DAY_MS, (days[-1] + 1) * DAY_MS, volatility[0])

    # In units of what the equations know: a return of unit variance, a log volume without its ordinary level.
    seen_return = returns / total + 0.5 * total
    seen_volume = log_volume - 0.8 * np.log(total / volatility[0].minute)
    filtered = _filtered(seen_return, seen_volume, market.edge)
    drift = drift_of(market.edge)
    times = days[0] * DAY_MS + np.arange(1, total.shape[1] + 1, dtype=np.int64) * MINUTE_MS
    kept = (times > start_ms) & (times <= end_ms)
    return Foreseen(times[kept], (drift * ahead * latent)[:, kept], (drift * ahead * filtered)[:, kept])


def _levels(one: Volatility, after: int) -> tuple[F64, F64]:
    """Return the expected square of the market's and of each symbol's level `after` minutes, given today's."""
    squares = []
    for fast, slow in (one.shared, one.own):
        log = np.zeros_like(fast)
        for (memory, deviation), state in ((FAST_VOLATILITY, fast), (SLOW_VOLATILITY, slow)):
            phi = np.exp(-after / memory)
            # The level is exp(state - variance); what is drawn until then adds its own variance, twice for the square.
            log = log + 2 * phi * state + 2 * deviation**2 * (1 - phi**2) - 2 * deviation**2
        squares.append(np.exp(log))
    return squares[0], squares[1]


def _total(one: Volatility) -> F64:
    shared, own = _levels(one, 0)
    return one.minute * one.cycle * np.sqrt(one.shared_share * shared + (1 - one.shared_share) * own)


def _ahead(one: Volatility) -> F64:
    """Return the sum over the hour ahead of expected volatility, weighted by what is left of the latent by then."""
    phi = np.exp(-1.0 / MEMORY_MINUTES)
    found = np.zeros((len(one.minute), MINUTES))
    for begin in range(0, HORIZON_MINUTES, _STEP):
        shared, own = _levels(one, begin + _STEP // 2)
        cycle = np.roll(one.cycle, -(begin + _STEP // 2))
        weight = float((phi ** np.arange(begin, begin + _STEP)).sum())
        found += weight * one.minute * cycle * np.sqrt(one.shared_share * shared + (1 - one.shared_share) * own)
    return found


def _candles(market: SyntheticMarket, start_ms: int, end_ms: int, ordinary: Volatility) -> tuple[F64, F64]:
    returns, volumes = [], []
    for index in range(len(market.characters)):
        minutes = market.history(index, start_ms, end_ms)
        close = np.asarray(minutes.close, np.float64)
        returns.append(np.diff(np.log(close), prepend=np.log(float(minutes.open[0]))))
        volumes.append(np.log(np.maximum(np.asarray(minutes.volume, np.float64), 1.0) / ordinary.quantity[index]))
    return np.stack(returns), np.stack(volumes)


def _filtered(seen_return: F64, seen_volume: F64, edge: float) -> F64:
    """
    Return the latent as a Kalman filter knows it at the end of each minute.

    State: the latent and the autoregressive noise of volume. The minute's return tells of the latent before it moves,
    the minute's volume after. Gains are those of the steady state.
    """
    drift, leak = drift_of(edge), leak_of(edge)
    phi, rho = np.exp(-1.0 / MEMORY_MINUTES), np.exp(-1.0 / VOLUME_AR[0])
    keep = np.array([phi, rho])
    process = np.array([1 - phi**2, VOLUME_AR[1] ** 2 * (1 - rho**2)])
    covariance = np.diag([1.0, VOLUME_AR[1] ** 2])
    by_return, by_volume = np.array([drift, 0.0]), np.array([leak, 1.0])
    gains = np.zeros((2, 2))
    for _ in range(5_000):
        gains[0] = covariance @ by_return / (by_return @ covariance @ by_return + 1.0)
        covariance = covariance - np.outer(gains[0], by_return @ covariance)
        covariance = covariance * np.outer(keep, keep) + np.diag(process)
        gains[1] = covariance @ by_volume / (by_volume @ covariance @ by_volume + VOLUME_WHITE**2)
        covariance = covariance - np.outer(gains[1], by_volume @ covariance)

    out = np.empty_like(seen_return)
    state = np.zeros((len(seen_return), 2))
    for minute in range(seen_return.shape[1]):
        state = state + np.outer(seen_return[:, minute] - state @ by_return, gains[0])
        state = state * keep
        state = state + np.outer(seen_volume[:, minute] - state @ by_volume, gains[1])
        out[:, minute] = state[:, 0]
    return out
