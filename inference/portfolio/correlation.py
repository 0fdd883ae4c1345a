"""
How symbols move together: clusters of correlated returns, and the beta of each to BTC.

Correlation is Pearson's, of log returns of the candles that all symbols share. Two symbols above the threshold are in
one cluster, and so is whoever is tied to either (single linkage): of a chain of look-alikes no link is left out, which
makes clusters larger than any other linkage would, and limits on them stricter. Beta is the covariance with BTC's
returns over their variance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

LEAST_RETURNS = 24
"""With fewer returns in common nothing is said of a symbol."""
_REFERENCE = "BTC/"

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class CoMovement:
    """The first symbol of each symbol's cluster, and each symbol's beta to BTC; 1 where no BTC is followed."""

    clusters: Mapping[str, str] = field(default_factory=dict)
    betas: Mapping[str, float] = field(default_factory=dict)


def co_movement(
    closes: Mapping[str, tuple[npt.NDArray[np.int64], Floats]],
    *,
    last_open_ms: int,
    step_ms: int,
    window: int,
    threshold: float,
) -> CoMovement:
    """
    Return how symbols move together over the newest candles.

    Args:
        closes: Open times (ms, rising) and closes of each symbol.
        last_open_ms: When the newest candle opened; a symbol without it, or with few before it, is left out.
        step_ms: Length of a candle.
        window: Over how many returns.
        threshold: The correlation above which two symbols are one cluster.
    """
    names = sorted(closes)
    logs = _returns([closes[name] for name in names], last_open_ms=last_open_ms, step_ms=step_ms, window=window)
    known = np.isfinite(logs)
    usable = np.flatnonzero((known.sum(axis=1) >= LEAST_RETURNS) & known[:, -1])
    if not len(usable):
        return CoMovement()
    logs, known = logs[usable], known[usable]
    symbols = [names[place] for place in usable]
    means = np.where(known, logs, 0.0).sum(axis=1) / known.sum(axis=1)
    centred = np.where(known, logs - means[:, None], 0.0)
    covariance = centred @ centred.T
    # Sums over the candles that both have, so that a hole in one is no return of nothing in the other.
    squares = np.square(centred) @ known.T.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        correlation = covariance / np.sqrt(squares * squares.T)
    tied = np.nan_to_num(correlation, nan=0.0) > threshold
    return CoMovement(clusters=_clusters(symbols, tied), betas=_betas(symbols, covariance, squares))


def _returns(
    series: list[tuple[npt.NDArray[np.int64], Floats]], *, last_open_ms: int, step_ms: int, window: int
) -> Floats:
    """Return log returns, one row a symbol and one column a candle; NaN where either close is missing or no price."""
    table = np.full((len(series), window + 1), np.nan)
    for row, (times, values) in enumerate(series):
        place = window - (last_open_ms - times) // step_ms
        fits = (place >= 0) & (place <= window) & np.isfinite(values) & (values > 0)
        table[row, place[fits]] = values[fits]
    return np.asarray(np.diff(np.log(table), axis=1), np.float64)


def _clusters(symbols: list[str], tied: npt.NDArray[np.bool_]) -> dict[str, str]:
    found: dict[str, str] = {}
    for start, name in enumerate(symbols):
        if name in found:
            continue
        found[name] = name
        waiting = [start]
        while waiting:
            for other in np.flatnonzero(tied[waiting.pop()]).tolist():
                if symbols[other] not in found:
                    found[symbols[other]] = name
                    waiting.append(other)
    return found


def _betas(symbols: list[str], covariance: Floats, squares: Floats) -> dict[str, float]:
    reference = next((row for row, name in enumerate(symbols) if name.startswith(_REFERENCE)), None)
    if reference is None:
        return dict.fromkeys(symbols, 1.0)
    variance = squares[reference]
    betas = np.divide(covariance[reference], variance, out=np.ones_like(variance), where=variance > 0)
    return {name: round(float(beta), 4) for name, beta in zip(symbols, betas, strict=True)}
