"""From a batch of closed candles to what the model says of each symbol: features, readiness, scores."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from feature_store.candle import Timeframe
from feature_store.extensions.live import ViewedFeatures
from feature_store.features import native
from feature_store.features.live import LiveFeatures
from inference.domain.decision import Candidate
from inference.domain.events import FeaturesUsed
from inference.feed.batches import CandleBatch
from inference.feed.followed import FollowedFeatures, Known, LastRow
from inference.feed.rebuilding import Behind
from inference.signals.used_features import UsedFeatures
from inference.supervision.model_watch import ActiveModel
from inference.supervision.scored_candle import ScoredCandle, Scoring


@dataclass(frozen=True, slots=True)
class Opinion:
    """What is known at a closed candle, what was scored of it, and which features that used."""

    known: Known
    scored: ScoredCandle = field(default_factory=ScoredCandle)
    used: FeaturesUsed | None = None

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """What may be traded."""
        return self.scored.candidates

    @property
    def incomplete(self) -> Mapping[str, str]:
        """Of which symbols nothing may be said, and why."""
        return self.known.incomplete


class Opinions:
    """Features taken from batch to batch, and a model's word on them; one thread at a time may ask."""

    def __init__(
        self,
        features: LiveFeatures,
        *,
        symbols: tuple[str, ...],
        venue: str,
        timeframe: Timeframe,
        monotonic: Callable[[], float],
    ) -> None:
        self.features = features
        self._venue = venue
        self._timeframe_ms = timeframe.milliseconds
        self._monotonic = monotonic
        self._scoring: Scoring | None = None
        self._used = UsedFeatures(
            symbols,
            venue=venue,
            timeframe=timeframe.value,
            code=native.made_from()[:16],
            viewed=features if isinstance(features, ViewedFeatures) else None,
        )
        self._followed = FollowedFeatures(features, keep=self._used.keep)

    @property
    def rows(self) -> Mapping[str, LastRow]:
        """The newest candle of each symbol, as features saw it."""
        return self._followed.rows

    def of(self, batch: CandleBatch, model: ActiveModel | None, behind: Behind) -> Opinion:
        """Take in a batch; without a model, or where nothing is ready, nothing is scored."""
        known = self._followed.advance(batch, behind)
        if model is None or not known.ready:
            return Opinion(known)
        scored = self._scoring_of(model).score(known.latest, known.ready, self._followed.rows)
        used = self._used.record(
            known.latest, known.ready, continuity=self.features.continuity, candle_close_ms=batch.close_time_ms
        )
        return Opinion(known, scored, used)

    def _scoring_of(self, model: ActiveModel) -> Scoring:
        if self._scoring is None or self._scoring.model is not model:
            self._scoring = Scoring(
                model, venue=self._venue, timeframe_ms=self._timeframe_ms, monotonic=self._monotonic
            )
        return self._scoring
