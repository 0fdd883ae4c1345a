"""The policy in force: a new version is taken when asked for, and a store that fails leaves the last good one."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from inference.domain.policy import Policy
from inference.policy.values import value_text
from inference.policy.versions import PolicyStoreError, PolicyVersion, StoreFault, differences

UPDATED = "policy.updated"
FAILED = "policy.store_failed"
RECOVERED = "policy.store_recovered"
SEED_IGNORED = "policy.seed_ignored"
LOADED = "policy.loaded"
UNFIT = "policy.unfit_for_live"
FIT = "policy.fit_for_live"
_CHANGES_TOLD = 1000


class Store(Protocol):
    """What is asked of a store here."""

    def signature(self) -> tuple[int, ...]:
        """Return numbers that change with the file."""
        ...

    def newest(self) -> PolicyVersion | None:
        """Return the version in force."""
        ...

    def history(self) -> tuple[PolicyVersion, ...]:
        """Return every version, the first one first."""
        ...

    def kept(self) -> tuple[PolicyVersion, ...]:
        """Return every version of the snapshot beside it, the first one first."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """
    A version that takes effect now, and the one that was in force until then.

    `passed_over` are the versions between the two, each with its predecessor: nothing was ever decided by them.
    """

    version: PolicyVersion
    before: PolicyVersion | None
    passed_over: tuple[tuple[PolicyVersion, PolicyVersion], ...] = ()


class PolicyWatch:
    """
    Knows which version is in force.

    `fault` is why entries must wait: the store cannot be read or trusted. What is in force stays so meanwhile, and the
    store is looked at again each time. A store that is only being written just now is looked at later. `told` is the
    number of the last version that a journal of before knows, 0 where it knows none.
    """

    def __init__(self, store: Store, current: PolicyVersion | None, fault: PolicyStoreError | None = None) -> None:
        self.current = current
        self.fault = fault
        self.told = 0
        self._store = store
        # Not looked at yet: what was read before may have changed since.
        self._seen: tuple[int, ...] | None = None

    def take(self) -> Taken | None:
        """Return the version that takes effect now, if there is a new one."""
        seen = self._store.signature()
        if seen == self._seen and self.fault is None:
            return None
        try:
            newest = self._newest()
        except PolicyStoreError as error:
            if error.fault is not StoreFault.BUSY:
                self.fault = error
            return None
        self.fault, self._seen, before = None, seen, self.current
        if before is not None and (newest.number, newest.digest) == (before.number, before.digest):
            return None
        self.current = newest
        since = self.told if before is None else before.number
        return Taken(version=newest, before=before, passed_over=self.made_after(since, newest.number))

    def made_after(self, number: int, below: int) -> tuple[tuple[PolicyVersion, PolicyVersion], ...]:
        """
        Return each version between two numbers with its predecessor, in their order.

        A store that cannot be read is told by its snapshot. None where the first number is 0, of which nothing is
        known, or where neither can be read.
        """
        if not 0 < number < below - 1:
            return ()
        versions: tuple[PolicyVersion, ...] = ()
        for read in (self._store.history, self._store.kept):
            # They are history: what is in force was read, and counts.
            with suppress(PolicyStoreError):
                versions = read()
                break
        return tuple((before, one) for before, one in pairwise(versions) if number < one.number < below)

    def _newest(self) -> PolicyVersion:
        newest = self._store.newest()
        if newest is None:
            raise PolicyStoreError(
                StoreFault.MISSING, "The policy store is gone, and so is its snapshot; put them back"
            )
        return newest


def version_detail(version: PolicyVersion) -> dict[str, str]:
    """Return what a journal says of a version."""
    return {
        "version": str(version.number),
        "fingerprint": version.policy.fingerprint,
        "author": version.author,
        "reason": version.reason,
        "source": f"{version.source.value} {version.of}".strip(),
    }


def update_detail(taken: Taken, before: Policy) -> dict[str, str]:
    """Return what a journal says of a version that takes effect, and of what it changes."""
    number = None if taken.before is None else taken.before.number
    return _detail(taken.version, before, number)


def missed_detail(version: PolicyVersion, before: PolicyVersion, in_force: PolicyVersion) -> dict[str, str]:
    """Return what a journal says of a version that it was not told of when it was made, and what followed it."""
    detail = _detail(version, before.policy, before.number)
    return detail if version.number == in_force.number else detail | {"superseded_by": str(in_force.number)}


def _detail(version: PolicyVersion, before: Policy, number: int | None) -> dict[str, str]:
    changes = changes_text(before, version.policy)
    detail = version_detail(version) | {"changes": changes[:_CHANGES_TOLD]}
    if number is not None:
        detail["from_version"] = str(number)
    return detail


def changes_text(before: Policy, after: Policy) -> str:
    """Return in what two policies differ, in words."""
    found = differences(before, after)
    return "; ".join(f"{name} {value_text(old)} -> {value_text(new)}" for name, (old, new) in found.items())
