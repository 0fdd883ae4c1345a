"""The exit profiles that a policy may name in this home, as its worker knows them."""

from __future__ import annotations

from collections.abc import Mapping

from flows.settings import FlowSettings
from inference.domain.exit_profile import ExitProfile
from inference.domain.policy import Policy
from inference.policy.exit_profiles import kept_exit_profiles, usable_exit_profile
from inference.policy.exit_venues import require_followed


def exits_for(settings: FlowSettings, policy: Policy) -> Mapping[str, ExitProfile]:
    """
    Return the profiles that are built in and those of the home, once it is sure that a worker could trade by a policy.

    Raises:
        PolicyError: The home's file cannot be used, the policy names a profile that is not there, or the venue holds
            no such orders.
    """
    profiles = kept_exit_profiles(settings.home / "policy")
    require_followed(usable_exit_profile(policy, profiles), settings.venue)
    return profiles
