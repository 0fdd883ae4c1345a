"""What the environment asks of the worker, checked for contradictions before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feature_store.candle import Timeframe
from feature_store.errors import UnknownTimeframeError, UnknownVenueError
from inference.domain.bias import CANDLES_KEPT, BiasMode, BiasRules
from inference.domain.errors import SettingsError
from inference.domain.mode import OFFERED_MODES, not_offered

VENUES = ("sandbox", "binanceusdm", "binance", "bitfinex", "sandbox-bitfinex")
_SANDBOXES = ("sandbox", "sandbox-bitfinex")
SANDBOX_KEY = "sandbox-key"
SANDBOX_SECRET = "sandbox-secret"  # noqa: S105 - the local exchange's public default, worth nothing elsewhere


class Mode(StrEnum):
    """How real the money is."""

    SANDBOX = "sandbox"
    PAPER = "paper"
    TESTNET = "testnet"
    LIVE = "live"


class ShadowPlace(StrEnum):
    """Where the challenger is scored: in the worker's process, in one of its own, or nowhere."""

    INSIDE = "inside"
    BESIDE = "beside"
    OFF = "off"


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
    shadow: ShadowPlace | None = None
    challenger_alias: str = "challenger"
    # Resident memory of the process, above which it takes no challenger in, or lets go of one after loading it.
    shadow_memory_mb: float = Field(default=350, gt=0)
    # Signals are watched for a bias to one side: over how many candles, above which share, and what follows.
    bias_mode: BiasMode = BiasMode.OBSERVE
    bias_window: int = Field(default=20, ge=1, le=CANDLES_KEPT)
    bias_share: float = Field(default=0.7, ge=0.5, lt=1)
    approval_file: Path | None = None
    # One worker trades an account: where its lease is kept, how long it lasts, and whether a second worker waits.
    lease_url: SecretStr | None = None
    lease_seconds: float = Field(default=10, ge=2, le=300)
    lease_wait: bool = False
    home: Path = Field(default=Path("var"), validation_alias="QUANTUM_HOME")

    @field_validator("symbols", mode="before")
    @classmethod
    def _split_symbols(cls, value: object) -> object:
        if isinstance(value, str):
            names = [name.strip() for name in value.split(",") if name.strip()]
            if "universe" in names:
                raise ValueError(
                    "QT_SYMBOLS=universe is for ingest and training; a worker follows a list only: start it with"
                    " QT_SYMBOLS=BTC/USDT:USDT,… (`qtctl universe show` says which are in), or QT_SYMBOLS=all"
                )
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
        return [
            (
                not sandbox or self.venue in _SANDBOXES,
                (
                    f"QT_MODE=sandbox trades the local exchange only, QT_VENUE was {self.venue!r};"
                    " set QT_VENUE=sandbox (or sandbox-bitfinex), or choose QT_MODE=live"
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
                self.mode in OFFERED_MODES,
                not_offered(self.mode),
            ),
            (
                not real_money or self.venue not in _SANDBOXES,
                (
                    f"QT_MODE={self.mode} contradicts QT_VENUE={self.venue};"
                    " name the venue, for example QT_VENUE=binanceusdm"
                ),
            ),
            (
                not real_money or self.venue == "binanceusdm",
                f"QT_MODE={self.mode} trades binanceusdm only in this version, QT_VENUE was {self.venue!r}",
            ),
            (
                self.mode is not Mode.LIVE or self.venue_url is None,
                "QT_MODE=live contradicts QT_VENUE_URL: real money goes to the venue's own address; unset QT_VENUE_URL",
            ),
            *self._rules_about_money(),
        ]

    def _rules_about_money(self) -> list[tuple[bool, str]]:
        real_money = self.mode is Mode.LIVE
        default_key = self.api_key.get_secret_value() == SANDBOX_KEY
        return [
            (
                not real_money or not default_key,
                f"QT_MODE={self.mode} needs QT_API_KEY and QT_API_SECRET of the venue, found the sandbox's",
            ),
            (
                self.approval_file is None or self.approval_file.is_file(),
                (
                    "QT_APPROVAL_FILE must name a file that holds the SHA-256 digest of the only model bundle that may"
                    f" trade real money, was {str(self.approval_file)!r}; write it, or unset it"
                ),
            ),
        ]

    @property
    def shadow_place(self) -> ShadowPlace:
        """Where the challenger is scored; a process that trades real money shares itself only when told to."""
        return self.shadow or (ShadowPlace.BESIDE if self.mode is Mode.LIVE else ShadowPlace.INSIDE)

    @property
    def bias_rules(self) -> BiasRules:
        """By which rules signals are watched for a bias."""
        return BiasRules(mode=self.bias_mode, window=self.bias_window, share=self.bias_share)

    @property
    def bundles(self) -> Path:
        """Folder of verified bundles."""
        return self.home / "bundles"

    @property
    def notices(self) -> Path:
        """Folder in which flows leave what they decided of models, for the journal."""
        return self.home / "verdicts"

    @property
    def journal(self) -> Path:
        """The journal's file."""
        return self.home / "journal" / "journal.jsonl"

    @property
    def status_file(self) -> Path:
        """The worker's live status."""
        return self.home / "worker" / "status.json"

    @property
    def stored_states(self) -> Path:
        """Where the flow `features` keeps the states that it computes from the lake."""
        return self.home / "features"

    @property
    def own_states(self) -> Path:
        """Home of the worker's own snapshots of the features' state."""
        return self.home / "worker"

    @property
    def shadow_folder(self) -> Path:
        """Home of what is kept of challengers: their bundles, the journal of their opinions, a status."""
        return self.home / "shadow"

    @property
    def shadow_journal(self) -> Path:
        """Folder of the days on which challengers were scored."""
        return self.shadow_folder / "journal"


_Kind = TypeVar("_Kind", bound=Settings)


class ShadowSettings(Settings):
    """The settings of a process that only scores a challenger: it needs no keys and nobody's approval."""

    def _rules_about_money(self) -> list[tuple[bool, str]]:
        return [(self.mlflow_url is not None, "A shadow worker follows the registry: set QT_MLFLOW_URL")]


def load_settings(**overrides: object) -> Settings:
    """
    Read the environment, with what the command line said taking precedence.

    Raises:
        SettingsError: A setting is unknown, missing or contradicts another.
    """
    return _load(Settings, overrides)


def load_shadow_settings(**overrides: object) -> ShadowSettings:
    """
    Read the environment for a process that only scores a challenger.

    Raises:
        SettingsError: A setting is unknown, missing or contradicts another.
    """
    return _load(ShadowSettings, overrides)


def _load(kind: type[_Kind], overrides: Mapping[str, object]) -> _Kind:
    given = {name: value for name, value in overrides.items() if value is not None}
    try:
        return kind(**given)  # type: ignore[arg-type]
    except ValidationError as error:
        raise SettingsError(_sentence(error)) from error


def _sentence(error: ValidationError) -> str:
    parts = []
    for item in error.errors():
        where = ".".join(str(part) for part in item["loc"])
        text = item["msg"].removeprefix("Value error, ")
        parts.append(text if "QT_" in text or not where else f"QT_{where.upper()}: {text}")
    return "; ".join(parts)
