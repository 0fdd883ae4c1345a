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


_CHANCE = 0.5


class Measure(StrEnum):
    """
    What opinions are held to.

    Being right more often than a coin, being surer than the share of rises alone, and being right more often than
    halfway between a coin and what training promised.
    """

    HIT_RATE = "hit_rate"
    BRIER = "brier"
    PROMISED = "promised"


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

    `promised` is how often the model was right on candles that it had not been fitted on, None where nobody said so.
    `promise_bets` bet that it is right at most halfway between a coin and that: a model that promised 58 % and is right
    in 51 % is better than a coin and breaks its promise all the same. They begin with what was owned as the promise
    became known, `joined`, so that what is owned in all does not leap then.
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
    promised: float | None = None
    joined: float = 1.0
    promise_bets: Bets = field(default_factory=Bets)

    @property
    def outcomes(self) -> int:
        """How many independent outcomes the test has seen since it began."""
        return self.hit_bets.outcomes

    @property
    def evidence(self) -> float:
        """
        What speaks against the opinions: the mean of all bets, which keeps the bound however they depend.

        Each measure has an equal share of the stated rate, so that a third one costs the other two a third of theirs.
        """
        both = self.hit_bets.evidence + self.brier_bets.evidence
        return both / 2 if self.promised is None else (both + self._owned_of_promise) / 3

    @property
    def halfway(self) -> float:
        """The least share of right opinions that keeps the promise; that of a coin where there is none."""
        return _CHANCE if self.promised is None else (_CHANCE + self.promised) / 2

    @property
    def _owned_of_promise(self) -> float:
        return self.joined * self.promise_bets.evidence

    def owned_by(self, measure: Measure) -> float:
        """Return what the bets of one measure own; nothing where nobody is held to it."""
        match measure:
            case Measure.HIT_RATE:
                return self.hit_bets.evidence
            case Measure.BRIER:
                return self.brier_bets.evidence
            case Measure.PROMISED:
                return 0.0 if self.promised is None else self._owned_of_promise

    def held_to(self, promised: float | None) -> QualityEvidence:
        """Return this, held to a promise from here on; one that is no better than a coin holds nobody to anything."""
        if self.promised is not None or promised is None or not _CHANCE < promised < 1:
            return self
        return replace(self, promised=promised, joined=self.evidence)

    def after(self, one: MaturedCandle) -> QualityEvidence:
        """Return what is known once a further candle has matured; one that overlaps the last counted adds nothing."""
        if one.said_ms < self.counted_until_ms:
            return self
        seen = replace(self, counted_until_ms=one.due_ms, rises=self.rises + one.rose, counted=self.counted + 1)
        base = _brier(self._share_of_rises, one.rose)
        if self.poor_by is None:
            return _bet(seen, one, base, most=max(self._share_of_rises, 1 - self._share_of_rises) ** 2)
        recovery = self.recovery.after(self._better(one, base))
        if recovery.outcomes >= FEWEST_OUTCOMES and recovery.evidence >= LIMIT:
            return QualityEvidence(
                counted_until_ms=seen.counted_until_ms, rises=seen.rises, counted=seen.counted, promised=self.promised
            )
        return replace(seen, recovery=recovery)

    def _better(self, one: MaturedCandle, base: float) -> float:
        """By how much an outcome was better than what opinions were found poor by; never below -1."""
        if self.poor_by is Measure.BRIER:
            return base - one.brier
        least = _CHANCE if self.poor_by is Measure.HIT_RATE else self.halfway
        return (one.right - least) / least

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
        promise_bets=known.promise_bets
        if known.promised is None
        else known.promise_bets.after((known.halfway - one.right) / (1 - known.halfway)),
    )
    if seen.outcomes < FEWEST_OUTCOMES or seen.evidence < LIMIT:
        return seen
    return replace(seen, poor_by=max(Measure, key=seen.owned_by))


def _brier(said: float, rose: float) -> float:
    return rose * (1 - said) ** 2 + (1 - rose) * said**2
