"""Following the policy in force: what takes effect at a candle, and what a fault of its store stops."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import UNSET, UnsetType

from inference.domain.decision import TradingState
from inference.domain.policy import Policy
from inference.policy.live import unfit_for_live
from inference.policy.versions import PolicyStoreError, PolicyVersion
from inference.policy.watch import (
    FAILED,
    FIT,
    RECOVERED,
    UNFIT,
    UPDATED,
    PolicyWatch,
    missed_detail,
    update_detail,
    version_detail,
)
from inference.supervision.standing import Standing

_OBJECTION = "policy"
_LIVE_OBJECTION = "policy for live"


class FollowedPolicy:
    """
    Takes new versions when asked, and holds entries back while the store cannot be trusted.

    Where it trades `as_live`, entries wait as well while the policy in force leaves a guard without a number or goes
    above what is allowed there; exits go on by it. Without a watch there is one policy and no version.
    """

    def __init__(
        self,
        watch: PolicyWatch | None,
        standing: Standing,
        *,
        note: Callable[[str, Mapping[str, str]], None],
        as_live: bool = False,
    ) -> None:
        self._watch = watch
        self._as_live = as_live
        self._standing = standing
        self._note = note
        self._stamped: tuple[PolicyVersion, str] | None = None

    @property
    def version(self) -> PolicyVersion | None:
        """The version in force."""
        return None if self._watch is None else self._watch.current

    @property
    def fault(self) -> PolicyStoreError | None:
        """Why entries wait for the store."""
        return None if self._watch is None else self._watch.fault

    @property
    def stamp(self) -> tuple[int, str] | tuple[UnsetType, UnsetType]:
        """Number and fingerprint of the version in force, for a decision's record; unset where there is none."""
        version = self.version
        if version is None:
            return UNSET, UNSET
        if self._stamped is None or self._stamped[0] is not version:
            self._stamped = version, version.policy.fingerprint
        return version.number, self._stamped[1]

    def take(self, before: Policy) -> Policy | None:
        """Return the policy that takes effect now, where it is another version than the one before."""
        taken = None if self._watch is None else self._watch.take()
        self._judge(self.fault)
        self._judge_for_live(before if taken is None else taken.version.policy)
        if taken is None:
            return None
        for earlier, one in taken.passed_over:
            self._note(UPDATED, missed_detail(one, earlier, taken.version))
        self._note(UPDATED, update_detail(taken, before))
        return taken.version.policy

    def _judge(self, fault: PolicyStoreError | None) -> None:
        version = self.version
        in_force = {"version": "none"} if version is None else version_detail(version)
        if fault is not None:
            reason = f"the policy store is {fault.fault.value}: {fault}"[:400]
            if self._standing.object(_OBJECTION, TradingState.REDUCING, reason):
                self._note(FAILED, {"code": fault.fault.value, "found": str(fault)[:500], **in_force})
        elif self._standing.lift(_OBJECTION):
            self._note(RECOVERED, in_force)

    def _judge_for_live(self, policy: Policy) -> None:
        found = unfit_for_live(policy) if self._as_live else ""
        detail = {"found": found[:1000], "fingerprint": policy.fingerprint} if self._as_live else {}
        if found:
            reason = f"the policy is not fit for real money: {found}"[:1000]
            if self._standing.object(_LIVE_OBJECTION, TradingState.REDUCING, reason):
                self._note(UNFIT, detail)
        elif self._standing.lift(_LIVE_OBJECTION):
            self._note(FIT, detail)
