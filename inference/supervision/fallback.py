"""What is done about a model whose live opinions turn out to be poor: smaller entries, none, another model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from decimal import Decimal

from msgspec import UnsetType

from inference.domain.fallback import Fallback, FallbackMode
from inference.domain.governance import ALL, Resolution, Role, Stance, Vote
from inference.supervision.quality_evidence import FEWEST_OUTCOMES, QualityEvidence
from inference.supervision.remembered import FELL_BACK

SHRINK_AT = 10.0
STOP_AT = 30.0
"""At which evidence a model's entries shrink and stop. A good one ever comes so far with 1 / evidence at most."""
SHRUNK = Decimal("0.5")
STEPPED = "model.fallback"


def fallback_of(evidence: QualityEvidence | None) -> Fallback:
    """
    Return what the evidence against a model's opinions asks for.

    The evidence is what bets against them have made of 1: of models that are not poor, 1 in 10 at most is ever shrunk,
    1 in 30 ever stopped, 1 in 100 ever replaced, however long they trade (Ville's inequality, 1939).
    """
    if evidence is None:
        return Fallback.NONE
    if evidence.poor_by is not None:
        return Fallback.BACK
    if evidence.outcomes < FEWEST_OUTCOMES or evidence.evidence < SHRINK_AT:
        return Fallback.NONE
    return Fallback.STOP if evidence.evidence >= STOP_AT else Fallback.SHRINK


class FallbackWatch:
    """
    Follows the model that trades, one look at each scored candle; `asked` is what its evidence asks for.

    `leave` sets a model, by its name, aside for the one that traded before it and says which that is, empty where there
    is none; None says that nothing was set aside, and it is asked again at the next candle. A model that was left and
    `is_aside` no more was let trade again by a person, who knows what was said of it: it is not left twice. Until
    another model has taken over, nothing is entered.
    """

    def __init__(
        self,
        mode: FallbackMode,
        *,
        note: Callable[[str, Mapping[str, str]], None],
        leave: Callable[[str], str | None],
        is_aside: Callable[[str], bool],
        left: Iterable[str] = (),
    ) -> None:
        self.asked = Fallback.NONE
        self._mode = mode
        self._note = note
        self._leave = leave
        self._is_aside = is_aside
        self._left = set(left)
        self._model = ""
        self._evidence: QualityEvidence | None = None

    @property
    def done(self) -> Fallback:
        """What is done: what is asked for, unless it is only told."""
        return self.asked if self._mode is FallbackMode.ENFORCE else Fallback.NONE

    def look(self, model: str, evidence: QualityEvidence | None) -> None:
        """Take in what is known of the model that scored a candle, by its name and digest."""
        before = Fallback.NONE if model != self._model else self.asked
        self._model, self._evidence = model, evidence
        asked = fallback_of(evidence)
        if asked is not Fallback.BACK:
            # It has recovered, or was never poor: should it be so again, it is left again.
            self._left.discard(model)
        elif model in self._left and not self._is_aside(model):
            asked = Fallback.NONE
        self.asked = asked
        if asked is not before:
            self._note(STEPPED, {"model": model, "step": asked.value, "mode": self._mode.value, **self._figures()})
        if self.done is Fallback.BACK and model not in self._left:
            back_to = self._leave(model)
            if back_to is not None:
                self._left.add(model)
                self._note(FELL_BACK, {"model": model, "to": back_to, **self._figures()})

    def heeded(self, resolution: Resolution | UnsetType, policy: str) -> Resolution | UnsetType:
        """
        Return a resolution that heeds what is done; the same where nothing is.

        Args:
            resolution: What the committee enforces, if it does.
            policy: The fingerprint of the policy in force.
        """
        done = self.done
        if done is Fallback.NONE:
            return resolution
        told = self._figures()
        why = f"fallback {done}: evidence {told['evidence']} against {self._model} after {told['outcomes']} outcomes"
        budget = SHRUNK if done is Fallback.SHRINK else Decimal(0)
        vetoes = {} if done is Fallback.SHRINK else {ALL: why}
        vote = Vote(
            role=Role.CHIEF_RISK_OFFICER,
            policy=policy,
            stance=Stance.CAREFUL if done is Fallback.SHRINK else Stance.EXITS_ONLY,
            budget=budget,
            caps={},
            vetoes=vetoes,
            because=(why,),
        )
        if isinstance(resolution, UnsetType):
            return Resolution(stance=vote.stance, budget=budget, caps={}, vetoes=vetoes, votes=(vote,), enforced=True)
        return replace(
            resolution,
            stance=max(resolution.stance, vote.stance, key=lambda one: one.strictness),
            budget=min(resolution.budget, budget),
            vetoes={**resolution.vetoes, **vetoes},
            votes=(*resolution.votes, vote),
        )

    def _figures(self) -> dict[str, str]:
        known = self._evidence
        if known is None:
            return {"evidence": "0.0", "outcomes": "0"}
        return {"evidence": f"{known.evidence:.1f}", "outcomes": str(known.outcomes)}
