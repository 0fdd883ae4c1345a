"""The file of exit profiles that a person writes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from inference.domain.errors import PolicyError
from inference.domain.exit_profile import BUILT_IN, ExitProfile
from inference.domain.policy import BARRIERS, Policy
from inference.exits.profile_text import profile_named, profiles_of

FILE_NAME = "exits.toml"
"""What a person's profiles are called in the folder of the policy store."""

_LARGEST_BYTES = 1_000_000


def kept_exit_profiles(folder: Path) -> Mapping[str, ExitProfile]:
    """
    Return the profiles that there are beside a policy store, built in and of its file `exits.toml`, where it has one.

    Raises:
        PolicyError: See `read_exit_profiles`.
    """
    path = folder / FILE_NAME
    return read_exit_profiles(path if path.exists() else None)


def usable_exit_profile(policy: Policy, profiles: Mapping[str, ExitProfile]) -> ExitProfile | None:
    """
    Return the profile that a policy names, None where that is `BARRIERS`.

    Raises:
        PolicyError: There is none of that name, or it has no target, by which entries are sized and followed.
    """
    if policy.exit_profile == BARRIERS:
        return None
    found = profile_named(policy.exit_profile, profiles)
    if not found.targets:
        raise PolicyError(f"Exit profile {found.name} has no target, by which entries are sized; give it one")
    return found


def read_exit_profiles(path: Path | None) -> Mapping[str, ExitProfile]:
    """
    Return the exit profiles of a TOML file by name, with those that are built in; these alone where no file is named.

    Raises:
        PolicyError: The file cannot be read, or says a profile that cannot be used.
    """
    if path is None:
        return BUILT_IN
    try:
        if path.stat().st_size > _LARGEST_BYTES:
            raise PolicyError(f"Exit profiles {path} have more than {_LARGEST_BYTES} bytes; name a file of profiles")
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PolicyError(f"Exit profiles {path} cannot be read: {error}; name a file of profiles") from error
    return profiles_of(text, f"Exit profiles {path}")
