"""Following the exit profile that the policy names: what its name means is read once a version, and told."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec
from msgspec import UNSET, UnsetType

from inference.domain.decision import TradingState
from inference.domain.errors import PolicyError
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import Policy
from inference.policy.exit_profiles import usable_exit_profile
from inference.supervision.standing import Standing

FOLLOWED, REFUSED = "policy.exit_profile_followed", "policy.exit_profile_refused"
_OBJECTION = "exit profile"


def built_in() -> Mapping[str, ExitProfile]:
    """Return the profiles that nobody has to write."""
    return BUILT_IN


class FollowedExits:
    """
    Knows the exit profile of new trades, and holds entries back where there is none that can be carried out.

    `unsupported` says why no profile can be: only the policy's barriers are then. `read` finds the profiles there are;
    it is asked at each version of the policy, so that a file which is edited meanwhile changes nothing by itself.
    """

    def __init__(
        self,
        standing: Standing,
        *,
        note: Callable[[str, Mapping[str, str]], None],
        read: Callable[[], Mapping[str, ExitProfile]] = built_in,
        unsupported: str = "",
    ) -> None:
        self.profile: ExitProfile | UnsetType = UNSET
        self._policy: Policy | None = None
        self._standing = standing
        self._note = note
        self._read = read
        self._unsupported = unsupported

    def follow(self, policy: Policy) -> None:
        """
        Go by what the policy names, from the next entry on; what is open keeps the profile it was entered by.

        Whoever asks again by the same policy changes nothing, unless it could not be followed.
        """
        if policy is self._policy:
            return
        before, self.profile = self.profile, UNSET
        try:
            found = usable_exit_profile(policy, self._read())
        except PolicyError as error:
            self._refuse(policy, str(error))
            return
        if found is not None and self._unsupported:
            self._refuse(policy, f"Exit profile {found.name} cannot be followed here: {self._unsupported}")
            return
        self._policy = policy
        self._standing.lift(_OBJECTION)
        if found is None:
            return
        self.profile = found
        if found != before:
            self._note(FOLLOWED, {"exit_profile": found.name, "rules": msgspec.json.encode(found).decode()})

    def _refuse(self, policy: Policy, reason: str) -> None:
        self._policy = None
        if self._standing.object(_OBJECTION, TradingState.REDUCING, reason[:400]):
            self._note(REFUSED, {"exit_profile": policy.exit_profile, "reason": reason[:500]})
