"""Where an exit profile can be carried out: what its orders ask of a venue, for whoever trades and whoever replays."""

from __future__ import annotations

from inference.domain.errors import PolicyError
from inference.domain.exit_profile import ExitProfile

# What venues can express is known by those who speak to them; a test holds both together.
_WITHOUT = frozenset({"binance", "bitfinex", "sandbox-spot", "sandbox-bitfinex"})


def no_exit_profiles(venue: str) -> str:
    """Return why no exit profile can be carried out at a venue; empty where one can."""
    if venue not in _WITHOUT:
        return ""
    return f"{venue} does not hold reduce-only stops and targets side by side until their price trades"


def require_followed(profile: ExitProfile | None, venue: str) -> None:
    """
    Check that a worker could follow the profile that a policy names; None is that it names none.

    Raises:
        PolicyError: The venue holds no such orders; a worker holds all entries there.
    """
    reason = no_exit_profiles(venue)
    if profile is not None and reason:
        raise PolicyError(
            f"Exit profile {profile.name} cannot be followed at {venue}: {reason}, so that a worker enters nothing "
            "there. Leave exit_profile out of the policy, or choose another venue"
        )
