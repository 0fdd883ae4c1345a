"""Convenes the committee once a candle, journals what it resolves when that changes, and hands on what is enforced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

from msgspec import UNSET, UnsetType

from inference.domain.bias import BiasMode
from inference.domain.decision import Candidate
from inference.domain.governance import Resolution, Stance
from inference.domain.policy import Policy
from inference.domain.position import Account
from inference.execution.book import Book
from inference.governance.briefing import Briefing, Model, Others, Record
from inference.governance.charter import Charter
from inference.governance.committee import convene
from inference.supervision.model_supervisor import ModelSupervisor

RESOLVED = "risk.committee_resolved"
_WORDS = 500


class CommitteeWatch:
    """
    Keeps the newest resolution.

    The journal has one entry for each change of stance, budget or vetoes, with every reason that a role gave; caps move
    with each candle and are told in the decisions that they refuse.
    """

    def __init__(self, note: Callable[[str, Mapping[str, str]], None], charter: Charter | None = None) -> None:
        self.resolution: Resolution | None = None
        # What it would be without the others: what a worker says to them must not be their own echo.
        self.own_stance = Stance.NORMAL
        self._note = note
        self._charter = charter or Charter()

    def attend(self, briefing: Briefing) -> Resolution | UnsetType:
        """Convene; return the resolution where the policy enforces it, else UNSET, so that decisions do not hold it."""
        enforced = briefing.policy.committee_mode is BiasMode.ENFORCE
        found = convene(briefing, self._charter, enforced=enforced)
        alone = (
            found if briefing.others is None else convene(replace(briefing, others=None), self._charter, enforced=False)
        )
        self.own_stance = alone.stance
        before, self.resolution = self.resolution, found
        if before is None or _key(before) != _key(found):
            self._note(RESOLVED, _told(found))
        return found if enforced else UNSET


def briefing_of(
    policy: Policy,
    *,
    account: Account,
    book: Book,
    candidates: Sequence[Candidate],
    real_money: bool,
    is_whole: bool,
    unsynced: int,
    reproduced: bool | None,
    model: Model | None,
    others: Others | None,
) -> Briefing:
    """
    Put before the committee what a worker knows at a closed candle.

    `is_whole` says that the journal was whole at its start and that no failure has closed it to writing since;
    `unsynced` counts entries not yet on disk; `reproduced` tells whether the last candle, decided again, came out the
    same.
    """
    return Briefing(
        policy=policy,
        account=account,
        positions=book.positions(),
        in_flight=book.in_flight(),
        volatility=volatility_of(candidates),
        regimes={one.signal.symbol: one.signal.regime for one in candidates},
        real_money=real_money,
        record=Record(is_whole=is_whole, unsynced=unsynced, reproduced=reproduced),
        model=model,
        others=others,
    )


def seen_of(supervisor: ModelSupervisor, *, gated: bool) -> Model:
    """Return what was seen of a model live, and whether the gates let it trade."""
    evidence, bias = supervisor.evidence, supervisor.bias
    return Model(
        gated=gated,
        is_poor=evidence is not None and evidence.poor_by is not None,
        is_biased=bias is not None and bias.is_bias,
    )


def volatility_of(candidates: Iterable[Candidate]) -> dict[str, Decimal]:
    """Return each candidate's average true range as a share of its close."""
    return {one.signal.symbol: Decimal(str(one.atr)) / Decimal(str(one.close)) for one in candidates if one.close > 0}


def _key(resolution: Resolution) -> tuple[object, ...]:
    """Return what makes a resolution another one; the numbers behind it move with each candle."""
    told = tuple(vote.role for vote in resolution.votes if vote.because)
    return resolution.stance, round(resolution.budget, 1), tuple(resolution.vetoes), resolution.enforced, told


def _told(resolution: Resolution) -> dict[str, str]:
    because = "; ".join(f"{vote.role}: {why}" for vote in resolution.votes for why in vote.because)
    return {
        "stance": resolution.stance.value,
        "budget": f"{resolution.budget:.2f}",
        "vetoed": " ".join(resolution.vetoes),
        "mode": "enforce" if resolution.enforced else "observe",
        "because": because[:_WORDS],
    }
