"""Tests of what decides and of an order's life notice almost every small change to it."""

from __future__ import annotations

import os
import random
import tomllib
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import msgspec

from infra.prove.mutant_campaign import Named, Verdict, all_mutants, campaign
from infra.prove.mutant_sources import ROOT, TARGETS
from infra.prove.mutating import Mutant
from infra.prove.proof import Proof, Size

EQUIVALENT = Path(__file__).with_name("mutants_equivalent.toml")
LEAST_SHARE = 0.95
CI_MUTANTS = 240
_SEED = 1
_FOLDER = ROOT / "var-prove" / "mutants"


class Equivalent(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mutant that no test can tell from the source, and why."""

    target: str
    function: str
    was: str
    becomes: str
    reason: str
    number: int = 0


def prove(size: Size) -> Proof:
    """Try every mutant, in CI a drawn part of them; count those that are noticed, and hold the list to its word."""
    mutants = all_mutants(TARGETS)
    listed = equivalents(EQUIVALENT)
    excused, unknown = matched(listed, mutants)
    chosen = mutants if size is Size.FULL else drawn(mutants, CI_MUTANTS)
    verdicts = campaign(chosen, _FOLDER, lanes=len(os.sched_getaffinity(0)))

    stillborn = {name for name, one in verdicts.items() if one.answer.stillborn}
    noticed = {name for name, one in verdicts.items() if one.is_killed}
    wrong = [*unknown, *(f"listed, but noticed by {_how(verdicts[one])}: {_place(mutants, one)}"
                         for one in sorted(excused & (noticed | stillborn)))]  # fmt: skip
    counted = set(verdicts) - stillborn - excused
    survivors = sorted(counted - noticed)
    share = (len(counted) - len(survivors)) / len(counted)
    late = sum(verdicts[name].answer.late for name in counted)
    return Proof(
        name="mutants",
        figure=(
            f"{len(counted) - len(survivors):,} of {len(counted):,} mutants of {len(TARGETS)} files noticed "
            f"({share:.1%}), {late} of them by time; {len(excused & set(verdicts))} equivalent, {len(stillborn)} that "
            f"cannot be imported, of {len(mutants):,} in all; {len(wrong)} entries of the list wrong"
        ),
        bar=f">= {LEAST_SHARE:.0%} noticed; 0 entries wrong",
        holds=share >= LEAST_SHARE and not wrong,
        details=(*_by_target(counted, survivors), *wrong, *(f"survived: {_place(mutants, one)}" for one in survivors)),
    )


def equivalents(path: Path) -> list[Equivalent]:
    """
    Return the list of mutants that change nothing.

    Raises:
        msgspec.ValidationError: An entry lacks something, or says something that is not asked for.
        tomllib.TOMLDecodeError: The file is no TOML.
    """
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")).get("equivalent", []), list[Equivalent])


def matched(listed: list[Equivalent], mutants: Mapping[Named, Mutant]) -> tuple[set[Named], list[str]]:
    """Return the mutants that a list names, and what is wrong with it: entries of nothing, twice, without a reason."""
    by_words = {
        (target, one.function, one.was, one.becomes, one.number): (target, number)
        for (target, number), one in mutants.items()
    }
    found, wrong = set[Named](), list[str]()
    for one in listed:
        name = by_words.get((one.target, one.function, one.was, one.becomes, one.number))
        said = f"{one.target}, {one.function or 'module'}: {one.was} -> {one.becomes} [{one.number}]"
        if name is None:
            wrong.append(f"listed, but there is no such mutant: {said}")
        elif name in found:
            wrong.append(f"listed twice: {said}")
        elif not one.reason.strip():
            wrong.append(f"listed without a reason: {said}")
        else:
            found.add(name)
    return found, wrong


def drawn(mutants: Mapping[Named, Mutant], count: int) -> dict[Named, Mutant]:
    """Return a part of the mutants, the same each time, in their order."""
    names = set(random.Random(_SEED).sample(sorted(mutants), min(count, len(mutants))))
    return {name: one for name, one in mutants.items() if name in names}


def _by_target(counted: set[Named], survivors: list[Named]) -> list[str]:
    every, left = Counter(target for target, _ in counted), Counter(target for target, _ in survivors)
    return [f"{target}: {every[target] - left[target]} of {every[target]}" for target in TARGETS if every[target]]


def _how(verdict: Verdict) -> str:
    return verdict.answer.killer or ("time" if verdict.answer.late else "who imports it")


def _place(mutants: Mapping[Named, Mutant], name: Named) -> str:
    return f"{name[0]}:{mutants[name].first_line} {mutants[name].key}"
