"""Where the budgets of requests are kept, as the environment says."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Self

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

_REDIS = ("redis://", "rediss://", "unix://")


class BudgetPlace(BaseSettings):
    """
    A folder that several homes of one machine share, or a Redis that several machines share.

    Nothing set means the user's cache folder on this machine, so that all homes share it. An address may hold a
    password, and is never shown.
    """

    model_config = SettingsConfigDict(env_prefix="QT_", extra="ignore", frozen=True)

    budgets: SecretStr = SecretStr("")

    @classmethod
    def of(cls) -> Self:
        """Read the environment."""
        return cls()

    @property
    def redis(self) -> str | None:
        """The address of Redis, where it is one."""
        text = self.budgets.get_secret_value().strip()
        return text if text.startswith(_REDIS) else None

    @property
    def folder(self) -> Path | None:
        """The folder, where it is one."""
        text = self.budgets.get_secret_value().strip()
        return Path(text) if text and self.redis is None else None


def machine_folder() -> Path | None:
    """Return the folder that all homes of a user share on a machine, as XDG's rules say; None where none can be."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "quantum-trader" / "budgets"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return folder if os.access(folder, os.W_OK) else None
