"""What a bundle says of the newest candle of many symbols, as signals."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from feature_store.features.live import LatestFeatures
from inference.domain.signal import SignalScore
from inference.models.bundle import Bundle
from inference.models.ensemble import EnsembleOutput
from inference.models.followed_regimes import FollowedRegimes
from inference.signals.scoring import signals


def model_name(version: str, digest: str) -> str:
    """Return the name by which signals tell of a model: its version, and the first digits of its bundle's digest."""
    return f"{version}:{digest[:12]}"


def opinions(
    bundle: Bundle,
    version: str,
    latest: LatestFeatures,
    rows: Sequence[int],
    *,
    venue: str,
    timeframe_ms: int,
    see: Callable[[EnsembleOutput], None] = lambda _: None,
    regimes: FollowedRegimes | None = None,
) -> tuple[SignalScore, ...]:
    """
    Return one signal for each of `rows` of `latest`, in their order.

    `see` is shown what all members answered. Regimes are told by `regimes`, with probabilities; without it by the
    bundle's thresholds.
    """
    # As a rule all are ready: windows are large, and are not copied once more then.
    chosen = slice(None) if len(rows) == len(latest.symbols) else list(rows)
    returns = latest.returns[chosen].astype(np.float32)
    moments = np.asarray(latest.open_time_ms[chosen], np.int64)
    scores = bundle.score(latest.model_inputs[chosen], latest.windows[chosen], returns, moments)
    see(scores)
    symbols = [latest.symbols[row] for row in rows]
    reading = None if regimes is None else regimes.read(latest, rows)
    return signals(
        scores,
        symbols=symbols,
        feature_times_ms=[int(latest.open_time_ms[row]) + timeframe_ms for row in rows],
        venue=venue,
        model_version=model_name(version, bundle.digest),
        weights=bundle.weights,
        regimes=bundle.regimes(returns, symbols) if reading is None else reading.label,
        regime_probability=None if reading is None else reading.probability,
    )
