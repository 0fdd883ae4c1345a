"""From votes to one resolution: the strictest stance, the least budget, every veto; who is silent is counted strict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from decimal import Decimal

from inference.domain.governance import ALL, Resolution, Role, Stance, Vote
from inference.governance.briefing import Briefing
from inference.governance.charter import Charter
from inference.governance.roles import ROLES, Voting


def convene(
    briefing: Briefing, charter: Charter, *, enforced: bool, roles: Mapping[Role, Voting] = ROLES
) -> Resolution:
    """Hear each role on one briefing; one that fails has not voted."""
    votes: list[Vote] = []
    failed: dict[Role, str] = {}
    for role, ask in roles.items():
        try:
            votes.append(ask(briefing, charter))
        except (ArithmeticError, ValueError) as error:
            # An input that no rule expects must close the door, not open it.
            failed[role] = f"{type(error).__name__}: {error}"
    return resolve(votes, policy=briefing.policy.fingerprint, enforced=enforced, failed=failed)


def resolve(
    votes: Iterable[Vote], *, policy: str, enforced: bool, failed: Mapping[Role, str] | None = None
) -> Resolution:
    """
    Return what votes come to, in whatever order they are given.

    A vote under another policy than the one in force does not count, and a role without a vote that counts vetoes
    everything: all roles decide under the same rules, or nothing is entered.
    """
    counted = {one.role: one for one in sorted(votes, key=_order) if one.policy == policy}
    vetoes: dict[str, str] = {}
    caps: dict[str, Decimal] = {}
    for role in Role:
        vote = counted.get(role)
        if vote is None:
            why = (failed or {}).get(role, "no vote under the policy in force")
            _add(vetoes, ALL, f"{role}: {why}")
            continue
        for symbol, why in vote.vetoes.items():
            _add(vetoes, symbol, f"{role}: {why}")
        for symbol, cap in vote.caps.items():
            caps[symbol] = min(cap, caps.get(symbol, cap))
    stance = max((one.stance for one in counted.values()), key=lambda one: one.strictness, default=Stance.EXITS_ONLY)
    is_complete = len(counted) == len(Role)
    return Resolution(
        stance=stance if is_complete else Stance.EXITS_ONLY,
        budget=min((one.budget for one in counted.values()), default=Decimal(0)) if is_complete else Decimal(0),
        caps=dict(sorted(caps.items())),
        vetoes=dict(sorted(vetoes.items())),
        votes=tuple(counted[role] for role in Role if role in counted),
        enforced=enforced,
    )


def _order(vote: Vote) -> tuple[str, int, Decimal, str]:
    """The strictest of several votes of one role comes last, and counts."""
    return vote.role, vote.stance.strictness, -vote.budget, repr(vote)


def _add(vetoes: dict[str, str], symbol: str, why: str) -> None:
    vetoes[symbol] = f"{vetoes[symbol]}; {why}" if symbol in vetoes else why
