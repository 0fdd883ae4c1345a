"""What the environment says of the tables."""

from __future__ import annotations

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class StorageSettings(BaseSettings):
    """Where the tables are: an address as SQLAlchemy writes it, perhaps with a password; None is a file of the home."""

    model_config = SettingsConfigDict(env_prefix="QT_", frozen=True, extra="ignore")

    database_url: SecretStr | None = None

    @property
    def address(self) -> str | None:
        """The address itself; what is set to nothing is not set."""
        return (self.database_url.get_secret_value() or None) if self.database_url else None
