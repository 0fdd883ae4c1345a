"""
Outcomes of gate trials kept in the repository, so that a campaign of hours can be spread over days and machines.

`make keep` writes those that this machine has run for the code as it is. They count only for
exactly that code, and a proof runs some of them again, chosen anew each time: whoever doubts them all removes the file.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from feature_store.errors import BadInputError
from infra.prove.gate_trials import ROOT, Outcome, Trial, code_digest, run

RAN = ROOT / "var-prove" / "gates"
KEPT = ROOT / "infra" / "prove" / "kept"
# Floats of another machine's arithmetic may differ in their last digits; a verdict may not.
_RELATIVE = 1e-6


@dataclass(frozen=True, slots=True)
class Again:
    """What running some kept trials again has shown; `different` tells what was not as kept."""

    tried: int
    different: tuple[str, ...]

    def told(self, laid: int) -> tuple[str, ...]:
        """Return lines about it, none where the repository kept nothing; `laid` is how much it kept."""
        if not laid:
            return ()
        equal = self.tried - len(self.different)
        return (f"{laid} outcomes are the repository's; {self.tried} run again, {equal} as kept", *self.different)


def restore(digest: str | None = None, *, kept: Path = KEPT, ran: Path = RAN) -> frozenset[str]:
    """
    Lay what the repository keeps beside what this machine has run, without touching that.

    Return the keys of all outcomes that are the repository's, also those that were laid there before.

    Raises:
        BadInputError: The file holds something else than outcomes.
    """
    digest = digest or code_digest()
    place = ran / digest
    laid = set()
    for outcome in read(kept / f"{digest}.jsonl"):
        path, told = place / f"{outcome.trial.key}.json", msgspec.json.encode(outcome)
        if not path.exists():
            place.mkdir(parents=True, exist_ok=True)
            path.write_bytes(told)
        if path.read_bytes() == told:
            laid.add(outcome.trial.key)
    return frozenset(laid)


def keep(digest: str | None = None, *, kept: Path = KEPT, ran: Path = RAN) -> tuple[Path, int]:
    """
    Write all outcomes there are for the code as it is, and take those of other code away; return where, and how many.

    Raises:
        BadInputError: There are none; what is kept stays as it is.
    """
    digest = digest or code_digest()
    path = kept / f"{digest}.jsonl"
    found = {outcome.trial.key: outcome for outcome in read(path)}
    for one in (ran / digest).glob("*.json"):
        outcome = msgspec.json.decode(one.read_bytes(), type=Outcome)
        found.setdefault(outcome.trial.key, outcome)
    if not found:
        raise BadInputError(
            f"Nothing was run for the code as it is ({digest}): run `make prove-null-gate` or `make prove-power` first"
        )
    kept.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_bytes(b"".join(msgspec.json.encode(found[key]) + b"\n" for key in sorted(found)))
    part.rename(path)
    for other in kept.glob("*.jsonl"):
        if other != path:
            other.unlink()
    return path, len(found)


def read(path: Path) -> list[Outcome]:
    """
    Return the outcomes of a file, none where there is no file.

    Raises:
        BadInputError: A line is no outcome, or a trial is told of twice.
    """
    if not path.exists():
        return []
    found: list[Outcome] = []
    for number, line in enumerate(path.read_bytes().splitlines(), start=1):
        try:
            found.append(msgspec.json.decode(line, type=Outcome))
        except msgspec.DecodeError as error:
            raise BadInputError(f"{path.name}, line {number} is no outcome of a trial: {error}") from error
    if len({one.trial.key for one in found}) != len(found):
        raise BadInputError(f"{path.name} tells of a trial twice")
    return found


def run_again(trials: Sequence[Trial], laid: frozenset[str], count: int, *, ran: Path = RAN) -> Again:
    """Run some trials again whose outcome the repository keeps, chosen at random, and hold them against it."""
    there = sorted((one for one in trials if one.key in laid), key=lambda one: (len(one.members), one.key))
    chosen = secrets.SystemRandom().sample(there, min(count, len(there)))
    place = ran / code_digest()
    different = []
    for trial in chosen:
        known = msgspec.json.decode((place / f"{trial.key}.json").read_bytes(), type=Outcome)
        if not same(known, run(trial)):
            different.append(f"not as kept: {trial}")
    return Again(len(chosen), tuple(different))


def same(one: Outcome, other: Outcome) -> bool:
    """Whether two outcomes tell the same, how long they took aside."""
    words = ("trial", "promoted", "refusals", "failed", "trades")
    if any(getattr(one, word) != getattr(other, word) for word in words):
        return False
    figures = ("ic", "net", "sharpe", "oracle_net", "oracle_sharpe")
    return all(
        abs(getattr(one, figure) - getattr(other, figure)) <= _RELATIVE * max(1.0, abs(getattr(one, figure)))
        for figure in figures
    )


if __name__ == "__main__":
    try:
        where, how_many = keep()
    except BadInputError as error:
        raise SystemExit(str(error)) from None
    print(f"{how_many} outcomes kept in {where.relative_to(ROOT)}")
