"""What a text is turned into: how it sounds, about the market and about each asset that it speaks of."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from feature_store.context.lexicon import score
from feature_store.context.mentions import Mentions
from feature_store.context.observation import MARKET, SENTIMENT, Figure, Observation


@dataclass(frozen=True, slots=True)
class Texts:
    """Turns texts into observations; the text itself is not kept."""

    mentions: Mentions
    score: Callable[[str], float] = score

    def observed(self, item: str, text: str, claimed_ms: int | None, *, first_ms: int | None = None) -> Observation:
        """Return what a text tells."""
        value = self.score(text)
        figures = [Figure(subject, SENTIMENT, value) for subject in (MARKET, *self.mentions.of(text))]
        return Observation(item, claimed_ms, tuple(figures), first_ms)
