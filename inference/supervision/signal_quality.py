"""What is to be said against each signal of a candle, once its quotes are here: ages, spreads, volumes, inputs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Protocol

import numpy as np

from feature_store.features.live import LatestFeatures
from inference.domain.decision import Candidate
from inference.domain.market import Quote
from inference.domain.policy import Policy
from inference.models.bundle import Bundle
from inference.signals.quality import MarketState, QualityLimits, quality
from inference.signals.trained_inputs import PreparedInputs, prepare_inputs


class Traded(Protocol):
    """What is known of a symbol's newest candle."""

    @property
    def close(self) -> float:
        """The newest close."""
        ...

    @property
    def volume(self) -> float:
        """What was traded a candle, the mean of some, in base units; NaN where it is not known."""
        ...


class SignalQuality:
    """Puts flags on signals; what training saw of a bundle's inputs is made ready once."""

    def __init__(self, *, timeframe_ms: int) -> None:
        self._timeframe_ms = timeframe_ms
        self._bundle: Bundle | None = None
        self._trained: PreparedInputs | None = None

    def looked_at(
        self,
        candidates: tuple[Candidate, ...],
        bundle: Bundle,
        *,
        latest: LatestFeatures,
        rows: Mapping[str, Traded],
        quotes: Mapping[str, Quote],
        policy: Policy,
        now_ms: int,
    ) -> tuple[Candidate, ...]:
        """
        Return the candidates with what is to be said against each.

        As they came where the bundle does not say what training saw and no rule of the policy asks: journals of such
        a worker stay as they were.
        """
        trained = self._trained_of(bundle)
        if not candidates or (trained is None and not policy.asks_for_quality):
            return candidates
        places = {symbol: row for row, symbol in enumerate(latest.symbols)}
        symbols = [one.signal.symbol for one in candidates]
        shown = [quotes.get(symbol) for symbol in symbols]
        found = quality(
            MarketState(
                feature_time_ms=np.array([one.signal.feature_time_ms for one in candidates], np.int64),
                # One that is missing is said to be missing, and has no age.
                quote_time_ms=np.array([now_ms if one is None else one.event_time_ms for one in shown], np.int64),
                bid=np.array([_number(None if one is None else one.bid) for one in shown]),
                ask=np.array([_number(None if one is None else one.ask) for one in shown]),
                quote_volume=np.array([rows[symbol].volume * rows[symbol].close for symbol in symbols]),
            ),
            latest.model_inputs[[places[symbol] for symbol in symbols]],
            trained,
            QualityLimits(
                stale_ms=policy.stale_after_candles * self._timeframe_ms,
                widest_spread=None if policy.max_spread is None else float(policy.max_spread),
                thinnest_volume=None if policy.min_candle_volume is None else float(policy.min_candle_volume),
            ),
            now_ms=now_ms,
        )
        return tuple(
            replace(one, signal=replace(one.signal, quality=flags))
            for one, flags in zip(candidates, found.flags, strict=True)
        )

    def _trained_of(self, bundle: Bundle) -> PreparedInputs | None:
        if bundle is not self._bundle:
            trained = bundle.manifest.trained_inputs
            self._bundle = bundle
            self._trained = None if trained is None else prepare_inputs(trained, bundle.manifest.model_inputs)
        return self._trained


def _number(price: Decimal | None) -> float:
    return math.nan if price is None else float(price)
