"""Whether live opinions are shown to be poor: bets against them, which may be looked at after every outcome."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum

from inference.supervision.prediction_quality import MaturedCandle

FALSE_ALARM_RATE = 0.01
"""Of models whose opinions are not poor, at most this share is ever called poor, however often it is looked at."""
LIMIT = 1 / FALSE_ALARM_RATE
FEWEST_OUTCOMES = 20
"""Below so many independent outcomes nothing is said, whatever they were."""
# So many outcomes back a stake looks: a model that was good for long and no longer is must not hide behind the past.
_MEMORY = 50
_MOST_STAKED = 0.75
# The share of rises is supposed to be one half until it is known better, as firmly as after so many outcomes.
_SUPPOSED = 20


class Measure(StrEnum):
    """What opinions are held to: being right more often than a coin, and surer than the share of rises alone."""

    HIT_RATE = "hit_rate"
    BRIER = "brier"


@dataclass(frozen=True, slots=True)
class Bets:
    """
    What somebody owns who began with 1 and bets that numbers, none below -1, are above zero.

    Where each number is expected to be zero or less, given all before it, no stake that is chosen before the number is
    known makes a gain that can be expected. By Ville's inequality (1939) `evidence` then ever reaches a limit with
    probability 1 / limit at most, whatever the distribution and however often it is looked at. Stakes follow the mean
    and the spread of the newest numbers (Waudby-Smith and Ramdas, 2023). Of what is not at stake yet a part joins with
    each number, so that a long good time does not use up what is needed to notice a bad one.
    """

    outcomes: int = 0
    at_stake: float = 0.0
    mean: float = 0.0
    square: float = 0.25

    @property
    def evidence(self) -> float:
        """What is owned by now."""
        return self.at_stake + 1 / (self.outcomes + 1)

    def after(self, number: float) -> Bets:
        """Return what is owned once a further number is known."""
        known = self.outcomes
        stake = min(max(self.mean, 0.0) / max(self.square, 1e-12), _MOST_STAKED)
        joining = 1 / ((known + 1) * (known + 2))
        weight = 1 / min(known + 2, _MEMORY)
        return Bets(
            outcomes=known + 1,
            at_stake=(self.at_stake + joining) * (1 + stake * number),
            mean=self.mean + weight * (number - self.mean),
            square=self.square + weight * (number**2 - self.square),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityEvidence:
    """
    What independent outcomes of one model say of its opinions.

    Outcomes are independent whose opinions were said when the one before had ended: one in each horizon. The sums are
    over those since the test began, or began anew; `base` is the Brier score of always saying the share of rises that
    was known before. `poor_by` is what opinions were found poor by, and `recovery` the bets against that since.
    """

    counted_until_ms: int = 0
    rises: float = 0.0
    counted: int = 0
    right: float = 0.0
    brier: float = 0.0
    base: float = 0.0
    hit_bets: Bets = field(default_factory=Bets)
    brier_bets: Bets = field(default_factory=Bets)
    poor_by: Measure | None = None
    recovery: Bets = field(default_factory=Bets)

    @property
    def outcomes(self) -> int:
        """How many independent outcomes the test has seen since it began."""
        return self.hit_bets.outcomes

    @property
    def evidence(self) -> float:
        """What speaks against the opinions: the mean of both bets, which keeps the bound however they depend."""
        return (self.hit_bets.evidence + self.brier_bets.evidence) / 2

    def after(self, one: MaturedCandle) -> QualityEvidence:
        """Return what is known once a further candle has matured; one that overlaps the last counted adds nothing."""
        if one.said_ms < self.counted_until_ms:
            return self
        seen = replace(self, counted_until_ms=one.due_ms, rises=self.rises + one.rose, counted=self.counted + 1)
        base = _brier(self._share_of_rises, one.rose)
        if self.poor_by is None:
            return _bet(seen, one, base, most=max(self._share_of_rises, 1 - self._share_of_rises) ** 2)
        better = 2 * one.right - 1 if self.poor_by is Measure.HIT_RATE else base - one.brier
        recovery = self.recovery.after(better)
        if recovery.outcomes >= FEWEST_OUTCOMES and recovery.evidence >= LIMIT:
            return QualityEvidence(counted_until_ms=seen.counted_until_ms, rises=seen.rises, counted=seen.counted)
        return replace(seen, recovery=recovery)

    @property
    def _share_of_rises(self) -> float:
        return (self.rises + _SUPPOSED / 2) / (self.counted + _SUPPOSED)


def _bet(known: QualityEvidence, one: MaturedCandle, base: float, *, most: float) -> QualityEvidence:
    seen = replace(
        known,
        right=known.right + one.right,
        brier=known.brier + one.brier,
        base=known.base + base,
        hit_bets=known.hit_bets.after(1 - 2 * one.right),
        # A loss is at most the score that always saying the share of rises can have: counted in that, none is below -1.
        brier_bets=known.brier_bets.after((one.brier - base) / most),
    )
    if seen.outcomes < FEWEST_OUTCOMES or seen.evidence < LIMIT:
        return seen
    by_hits = seen.hit_bets.evidence >= seen.brier_bets.evidence
    return replace(seen, poor_by=Measure.HIT_RATE if by_hits else Measure.BRIER)


def _brier(said: float, rose: float) -> float:
    return rose * (1 - said) ** 2 + (1 - rose) * said**2
