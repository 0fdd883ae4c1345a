"""
The constants of the synthetic market, and how strong its predictable component is.

What they mean, and what follows from them, is told in `synthetic`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

DEFAULT_EDGE = 0.45
MEMORY_MINUTES = 150.0
HORIZON_MINUTES = 60
LEAK = 0.6

# Memory in minutes and deviation of the two components of log volatility, and of the noise of log volume.
FAST_VOLATILITY = (30.0, 0.22)
SLOW_VOLATILITY = (1440.0, 0.30)
VOLUME_AR = (20.0, 0.35)
VOLUME_WHITE = 0.35


def leak_of(edge: float) -> float:
    """How strongly log volume carries the latent."""
    return LEAK * float(np.tanh(edge / 0.15))


@lru_cache
def drift_of(edge: float) -> float:
    """Drift per minute, in units of volatility and of the latent, that gives `edge` over the horizon."""
    if edge == 0.0:
        return 0.0
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _horizon_correlation(middle, 1.0) < abs(edge) else (low, middle)
    return float(np.copysign(low, edge))


def _horizon_correlation(drift: float, known: float) -> float:
    """Correlation of the hour's return with a predictor that knows the share `known` of the latent's variance."""
    phi = np.exp(-1.0 / MEMORY_MINUTES)
    powers = phi ** np.arange(HORIZON_MINUTES)
    lag = np.abs(np.subtract.outer(np.arange(HORIZON_MINUTES), np.arange(HORIZON_MINUTES)))
    variance = HORIZON_MINUTES + drift**2 * float((phi**lag).sum())
    return float(drift * powers.sum() * np.sqrt(known) / np.sqrt(variance))


def oracle_information_coefficient(edge: float) -> float:
    """Correlation with the next hour's return that knowing the latent itself would give; nobody can do better."""
    return _horizon_correlation(abs(drift_of(edge)), 1.0)


def attainable_information_coefficient(edge: float) -> float:
    """
    Correlation with the next hour's return that the optimal filter of one symbol's minute candles reaches.

    Steady state of a Kalman filter over (latent, autoregressive volume noise) that sees each minute's return and log
    volume, in units of known volatility.
    """
    if edge == 0.0:
        return 0.0
    phi, rho = np.exp(-1.0 / MEMORY_MINUTES), np.exp(-1.0 / VOLUME_AR[0])
    transition = np.diag([phi, rho])
    process = np.diag([1 - phi**2, VOLUME_AR[1] ** 2 * (1 - rho**2)])
    leak, drift = leak_of(edge), drift_of(edge)
    covariance = np.diag([1.0, VOLUME_AR[1] ** 2])
    for _ in range(5_000):
        # The minute's return tells of the latent before it moves, the minute's volume after.
        seen = np.array([[drift, 0.0]])
        gain = covariance @ seen.T / float((seen @ covariance @ seen.T).item() + 1.0)
        covariance = (np.eye(2) - gain @ seen) @ covariance
        covariance = transition @ covariance @ transition.T + process
        seen = np.array([[leak, 1.0]])
        gain = covariance @ seen.T / float((seen @ covariance @ seen.T).item() + VOLUME_WHITE**2)
        covariance = (np.eye(2) - gain @ seen) @ covariance
    return _horizon_correlation(abs(drift), float(1.0 - covariance[0, 0]))
