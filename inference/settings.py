"""What the environment asks of the worker, checked for contradictions before anything starts."""

from __future__ import annotations

from collections.abc import Mapping
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Self, TypeVar

from pydantic import Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from feature_store.candle import Timeframe
from feature_store.errors import UnknownTimeframeError, UnknownVenueError
from feature_store.venue.test_networks import TEST_NETWORKS, no_test_network
from inference.domain.bias import CANDLES_KEPT, BiasMode
from inference.domain.errors import SettingsError
from inference.domain.fallback import FallbackMode
from inference.domain.mode import AS_LIVE

VENUES = ("sandbox", "binanceusdm", "bitfinex", "sandbox-bitfinex")
_SANDBOXES = ("sandbox", "sandbox-bitfinex")
_SPOT = ("binance", "sandbox-spot")
SANDBOX_KEY = "sandbox-key"
SANDBOX_SECRET = "sandbox-secret"  # noqa: S105 - the local exchange's public default, worth nothing elsewhere


class Mode(StrEnum):
    """How real the money is: none of it is, but in live."""

    SANDBOX = "sandbox"
    PAPER = "paper"
    TESTNET = "testnet"
    LIVE = "live"

    @property
    def is_at_a_venue(self) -> bool:
        """Whether orders go to a venue of others, by the keys of an account there: what holds of live holds here."""
        return self in AS_LIVE


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
    # What a new paper account holds, in quote currency; one that exists keeps what it has.
    paper_balance: Decimal = Field(default=Decimal(10_000), gt=0, le=Decimal(10) ** 12)
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
    # What follows where live opinions turn out to be poor; by default it is done, but in sandbox mode only told.
    fallback_mode: FallbackMode | None = None
    # The rules that a new policy store begins with; afterwards the store is in force.
    policy_profile: str | None = None
    approval_file: Path | None = None
    # One worker trades an account: where its lease is kept, how long it lasts, and whether a second worker waits.
    lease_url: SecretStr | None = None
    lease_seconds: float = Field(default=10, ge=2, le=300)
    lease_wait: bool = False
    # Where events are told, by default a file in the home; whether entries need it, and after how long it is down.
    bus: SecretStr | None = None
    bus_required: bool = False
    bus_late_seconds: float = Field(default=10, ge=1, le=600)
    # What the bus keeps, beyond what a group of consumers still needs.
    bus_keep_events: int = Field(default=100_000, ge=1)
    bus_keep_days: float = Field(default=7, gt=0)
    # A file outside the home that is kept at the journal's head; what the journal is called among others in MLflow.
    journal_anchor: Path | None = None
    journal_name: str | None = None
    # Numbers by which the committee's roles vote, as TOML; read at the start.
    charter: Path | None = None
    # Workers of one desk: the folder of their views, this one's name, all names, and how old a view may be that counts.
    federation: Path | None = None
    federation_name: str = Field(default="", pattern=r"^([a-z0-9][a-z0-9-]{0,39})?$")
    federation_members: Annotated[tuple[str, ...], NoDecode] = ()
    federation_seconds: float = Field(default=120, ge=5, le=86_400)
    # Where Prometheus may read what the worker does; without a port nowhere, with 0 at a port that is free.
    metrics_port: int | None = Field(default=None, ge=0, le=65535)
    metrics_address: str = "127.0.0.1"
    home: Path = Field(default=Path("var"), validation_alias="QUANTUM_HOME")

    @property
    def is_accelerated(self) -> bool:
        """Whether the venue's clock may run at another pace than ours, as only the local exchange's does."""
        return self.venue in _SANDBOXES

    @property
    def is_test_network(self) -> bool:
        """Whether market and account are those of the venue's test network."""
        return self.mode is Mode.TESTNET

    @property
    def market(self) -> str:
        """The name under which what was computed of candles is kept: a test network's are not the venue's."""
        return f"{self.venue}-testnet" if self.is_test_network else self.venue

    @property
    def paper_file(self) -> Path:
        """Where the paper account of the venue is kept."""
        return self.home / "paper" / f"{self.venue}.json"

    @property
    def fallback(self) -> FallbackMode:
        """Whether a model whose live opinions are poor is shrunk, stopped and left, or only told of."""
        return self.fallback_mode or (FallbackMode.OBSERVE if self.mode is Mode.SANDBOX else FallbackMode.ENFORCE)

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

    @field_validator("federation_members", mode="before")
    @classmethod
    def _split_members(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(dict.fromkeys(name.strip() for name in value.split(",") if name.strip()))
        return value

    @field_validator("venue")
    @classmethod
    def _known_venue(cls, value: str) -> str:
        if value in _SPOT:
            raise ValueError(
                f"A worker does not trade spot, QT_VENUE was {value!r}: a spot account cannot go short, and has no"
                " order that only reduces, so that a stop beside an exit could sell what is not held;"
                " choose QT_VENUE=sandbox (or sandbox-bitfinex) for the local exchange,"
                " or QT_VENUE=binanceusdm with QT_MODE=paper, testnet or live"
            )
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
        at_a_venue = self.mode.is_at_a_venue
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
            *self._rules_about_paper(),
            (
                not at_a_venue or self.venue not in _SANDBOXES,
                (
                    f"QT_MODE={self.mode} contradicts QT_VENUE={self.venue};"
                    " name the venue, for example QT_VENUE=binanceusdm"
                ),
            ),
            (
                not self.is_test_network or self.venue in TEST_NETWORKS,
                f"QT_MODE=testnet contradicts QT_VENUE={self.venue}: {no_test_network(self.venue)}",
            ),
            (
                not at_a_venue or self.venue == "binanceusdm",
                f"QT_MODE={self.mode} trades binanceusdm only in this version, QT_VENUE was {self.venue!r}",
            ),
            (
                not at_a_venue or self.venue_url is None,
                (
                    f"QT_MODE={self.mode} contradicts QT_VENUE_URL: orders go to the venue's own"
                    f" {'test network' if self.is_test_network else 'address'}; unset QT_VENUE_URL"
                ),
            ),
            *self._rules_about_anchor(),
            (
                self.federation is None or self.federation_name in self.federation_members,
                (
                    "QT_FEDERATION needs QT_FEDERATION_NAME, this worker's, and QT_FEDERATION_MEMBERS, all of them,"
                    f" separated by commas; were {self.federation_name!r} and {','.join(self.federation_members)!r}"
                ),
            ),
            *self._rules_about_money(),
        ]

    def _rules_about_paper(self) -> list[tuple[bool, str]]:
        if self.mode is not Mode.PAPER:
            return []
        return [
            (
                (self.venue in _SANDBOXES) == (self.venue_url is not None),
                (
                    f"QT_MODE=paper takes the market from QT_VENUE={self.venue}: unset QT_VENUE_URL"
                    if self.venue_url is not None
                    else f"QT_MODE=paper with QT_VENUE={self.venue} needs QT_VENUE_URL, the local exchange's address;"
                    " or name a venue with a real market, for example QT_VENUE=binanceusdm"
                ),
            ),
        ]

    def _rules_about_anchor(self) -> list[tuple[bool, str]]:
        if self.journal_anchor is None:
            return []
        anchor, home = self.journal_anchor.resolve(), self.home.resolve()
        return [
            (
                home not in anchor.parents,
                (
                    f"QT_JOURNAL_ANCHOR must lie outside QUANTUM_HOME ({home}), was {str(anchor)!r};"
                    " what loses the home would lose it too"
                ),
            ),
            (
                anchor.parent.is_dir() and not anchor.is_dir(),
                (
                    "QT_JOURNAL_ANCHOR must name a file in a folder that exists (is its disk mounted?),"
                    f" was {str(anchor)!r}"
                ),
            ),
        ]

    def _rules_about_money(self) -> list[tuple[bool, str]]:
        default_key = self.api_key.get_secret_value() == SANDBOX_KEY
        whose = "the venue's test network" if self.is_test_network else "the venue"
        return [
            (
                not self.mode.is_at_a_venue or not default_key,
                f"QT_MODE={self.mode} needs QT_API_KEY and QT_API_SECRET of {whose}, found the sandbox's",
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
    def policy_folder(self) -> Path:
        """Home of the policy's versions."""
        return self.home / "policy"

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
