"""What a model makes of the newest candle: its candidates, what its members answered, and how long that took."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from feature_store.features.live import LatestFeatures
from inference.domain.decision import Candidate
from inference.models.followed_regimes import FollowedRegimes
from inference.models.opinions import opinions
from inference.models.timed_members import MemberTimes
from inference.supervision.member_counts import ENSEMBLE, Answers, answers_of
from inference.supervision.model_watch import ActiveModel


class Row(Protocol):
    """What sizing needs of a symbol's newest candle."""

    @property
    def atr(self) -> float:
        """Average true range in price units."""
        ...

    @property
    def close(self) -> float:
        """The newest close."""
        ...


@dataclass(frozen=True, slots=True)
class ScoredCandle:
    """Candidates in the order of the rows that were scored; answers and seconds by member, `ensemble` for all."""

    candidates: tuple[Candidate, ...] = ()
    answers: Mapping[str, Answers] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)


class Scoring:
    """Asks one model, and measures what it takes."""

    def __init__(self, model: ActiveModel, *, venue: str, timeframe_ms: int, monotonic: Callable[[], float]) -> None:
        self.model = model
        self._venue = venue
        self._timeframe_ms = timeframe_ms
        self._monotonic = monotonic
        self._times = MemberTimes(model.bundle, monotonic)
        manifest = model.bundle.manifest
        self._regimes = (
            None
            if manifest.regime_model is None
            else FollowedRegimes(manifest.regime_model, manifest.model_inputs, step_ms=timeframe_ms)
        )

    def score(self, latest: LatestFeatures, ready: Sequence[int], rows: Mapping[str, Row]) -> ScoredCandle:
        """Return what the model makes of the rows that are ready."""
        bundle, answers = self.model.bundle, dict[str, Answers]()
        began = self._monotonic()
        scored = opinions(
            bundle,
            self.model.version,
            latest,
            ready,
            venue=self._venue,
            timeframe_ms=self._timeframe_ms,
            see=lambda scores: answers.update(answers_of(scores)),
            regimes=self._regimes,
        )
        seconds = {ENSEMBLE: self._monotonic() - began, **self._times.take()}
        candidates = tuple(
            Candidate(
                signal=signal, atr=rows[signal.symbol].atr, close=rows[signal.symbol].close, threshold=bundle.threshold
            )
            for signal in scored
        )
        return ScoredCandle(candidates, answers, seconds)
