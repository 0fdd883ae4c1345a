"""What the environment asks of the worker, checked for contradictions before anything starts."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feature_store.candle import Timeframe
from feature_store.errors import UnknownTimeframeError, UnknownVenueError
from inference.domain.errors import SettingsError

VENUES = ("sandbox", "binanceusdm", "binance", "bitfinex")
SANDBOX_KEY = "sandbox-key"
SANDBOX_SECRET = "sandbox-secret"  # noqa: S105 - the local exchange's public default, worth nothing elsewhere


class Mode(StrEnum):
    """How real the money is."""

    SANDBOX = "sandbox"
    PAPER = "paper"
    TESTNET = "testnet"
    LIVE = "live"


class Settings(BaseSettings):
    """One worker's settings, from the environment (prefix `QT_`, and `QUANTUM_HOME`)."""

    model_config = SettingsConfigDict(env_prefix="QT_", frozen=True, extra="ignore", populate_by_name=True)

    mode: Mode = Mode.SANDBOX
    venue: str = "sandbox"
    venue_url: str | None = None
    api_key: SecretStr = SecretStr(SANDBOX_KEY)
    api_secret: SecretStr = SecretStr(SANDBOX_SECRET)
    timeframe: Timeframe = Timeframe.M5
    symbols: Annotated[tuple[str, ...], NoDecode] = ()
    mlflow_url: str | None = None
    model_name: str = "quantum-ensemble"
    model_alias: str = "champion"
    model_poll_seconds: float = Field(default=1.0, gt=0)
    approval_file: Path | None = None
    home: Path = Field(default=Path("var"), validation_alias="QUANTUM_HOME")

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        if isinstance(value, str):
            names = [name.strip() for name in value.split(",") if name.strip()]
            return () if names == ["all"] else tuple(names)
        return value

    @field_validator("venue")
    @classmethod
    def _known_venue(cls, value: str) -> str:
        if value not in VENUES:
            raise ValueError(str(UnknownVenueError(value, VENUES)))
        return value

    @field_validator("timeframe", mode="before")
    @classmethod
    def _known_timeframe(cls, value: object) -> object:
        try:
            return Timeframe.parse(str(value))
        except UnknownTimeframeError as error:
            raise ValueError(str(error)) from error

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for holds, message in self._rules():
            if not holds:
                raise ValueError(message)
        return self

    def _rules(self) -> list[tuple[bool, str]]:
        sandbox = self.mode is Mode.SANDBOX
        real_money = self.mode is Mode.LIVE
        default_key = self.api_key.get_secret_value() == SANDBOX_KEY
        return [
            (
                not sandbox or self.venue == "sandbox",
                (
                    f"QT_MODE=sandbox trades the local exchange only, QT_VENUE was {self.venue!r};"
                    " set QT_VENUE=sandbox, or choose QT_MODE=live"
                ),
            ),
            (
                not sandbox or self.venue_url is not None,
                (
                    "QT_MODE=sandbox needs QT_VENUE_URL, the local exchange's address;"
                    " `qtctl up` starts one, `qtctl status` shows its address"
                ),
            ),
            (
                self.mode not in (Mode.PAPER, Mode.TESTNET),
                f"QT_MODE={self.mode} is not offered by this version; use QT_MODE=sandbox",
            ),
            (
                not real_money or self.venue != "sandbox",
                f"QT_MODE={self.mode} contradicts QT_VENUE=sandbox; name the venue, for example QT_VENUE=binanceusdm",
            ),
            (
                not real_money or self.venue == "binanceusdm",
                f"QT_MODE={self.mode} trades binanceusdm only in this version, QT_VENUE was {self.venue!r}",
            ),
            (
                not real_money or not default_key,
                f"QT_MODE={self.mode} needs QT_API_KEY and QT_API_SECRET of the venue, found the sandbox's",
            ),
            (
                self.mode is not Mode.LIVE or self.venue_url is None,
                "QT_MODE=live contradicts QT_VENUE_URL: real money goes to the venue's own address; unset QT_VENUE_URL",
            ),
            (
                self.mode is not Mode.LIVE or (self.approval_file is not None and self.approval_file.is_file()),
                (
                    "QT_MODE=live needs a person's approval: QT_APPROVAL_FILE must name a file that holds the SHA-256"
                    " digest of the approved model bundle"
                ),
            ),
        ]

    @property
    def bundles(self) -> Path:
        """Folder of verified bundles."""
        return self.home / "bundles"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.home / "journal" / "journal.jsonl"

    @property
    def status_file(self) -> Path:
        """The worker's live status."""
        return self.home / "worker" / "status.json"

    @property
    def own_states(self) -> Path:
        """Home of the worker's own snapshots of the features' state."""
        return self.home / "worker"


def load_settings(**overrides: object) -> Settings:
    """
    Read the environment, with what the command line said taking precedence.

    Raises:
        SettingsError: A setting is unknown, missing or contradicts another.
    """
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return Settings(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        parts.append(text if "QT_" in text or not where else f"QT_{where.upper()}: {text}")
    return "; ".join(parts)
