"""What the environment says to flows: venue, series, registry and home."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

import msgspec
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from feature_store.errors import BadInputError

REPOSITORY = Path(__file__).resolve().parents[1]
TimeframeName = Literal["1m", "5m", "15m", "1h", "4h", "1d"]
TrainingSize = Literal["full", "quick", "tiny"]
VenueName = Literal["sandbox", "binanceusdm", "binance", "bitfinex"]


class _Service(msgspec.Struct, frozen=True):
    url: str | None = None


class _StackRecord(msgspec.Struct, frozen=True):
    services: dict[str, _Service] = {}


class FlowSettings(BaseSettings):
    """
    The environment of a flow run, read once where a flow or a command starts.

    Addresses that the environment leaves out are looked up in the stack's own record, QUANTUM_HOME/stack.json.
    """

    model_config = SettingsConfigDict(env_prefix="QT_", populate_by_name=True, extra="ignore", frozen=True)

    home: Path = Field(default=Path("var"), validation_alias="QUANTUM_HOME")
    venue: VenueName = "sandbox"
    venue_url: str | None = None
    api_key: SecretStr = SecretStr("sandbox-key")
    api_secret: SecretStr = SecretStr("sandbox-secret")
    mlflow_url: str | None = None
    symbols: str = "all"
    timeframe: TimeframeName = "5m"
    days: int = Field(default=30, ge=1, le=1500)
    size: TrainingSize = "full"
    concurrency: int = Field(default=4, ge=1, le=32)
    # Where a browser finds MLflow, if not where flows do (behind a proxy, in a compose network).
    mlflow_public_url: str | None = None

    @field_validator("home")
    @classmethod
    def _resolved(cls, home: Path) -> Path:
        return home.expanduser().resolve()

    @classmethod
    def of(cls, **chosen: object) -> Self:
        """
        Read the environment; what a flow was told (anything but None) wins over it.

        Raises:
            BadInputError: A value is not usable.
        """
        try:
            return cls(**{name: value for name, value in chosen.items() if value is not None})  # type: ignore[arg-type]
        except ValidationError as error:
            problems = "; ".join(
                f"{_variable(problem['loc'])}: {problem['msg']}, was {problem['input']!r}" for problem in error.errors()
            )
            raise BadInputError(f"Unusable settings: {problems}") from None

    @property
    def lake(self) -> Path:
        """Folder of the candle lake; the store owns the layout below it."""
        return self.home / "lake"

    @property
    def features(self) -> Path:
        """Folder of materialised features."""
        return self.home / "features"

    @property
    def candidates(self) -> Path:
        """Folder in which bundles are built before they are logged."""
        return self.home / "candidates"

    @property
    def gates(self) -> Path:
        """The bounds that a candidate must hold."""
        return REPOSITORY / "mlflow" / "gates.yaml"

    def address(self, service: str) -> str | None:
        """Return the URL of a service of the running stack, or None where none is recorded."""
        try:
            record = msgspec.json.decode((self.home / "stack.json").read_bytes(), type=_StackRecord)
        except (OSError, msgspec.DecodeError):
            return None
        found = record.services.get(service, _Service()).url
        return found.rstrip("/") if found else None

    @property
    def venue_address(self) -> str | None:
        """URL of the sandbox exchange, None for a venue that ccxt knows the address of."""
        if self.venue != "sandbox":
            return None
        return self.venue_url or self.address("sandbox")

    @property
    def registry_address(self) -> str | None:
        """URL of the MLflow server."""
        return self.mlflow_url or self.address("mlflow")

    @property
    def registry_page(self) -> str | None:
        """URL under which a browser reaches MLflow."""
        return self.mlflow_public_url or self.registry_address

    def chosen_symbols(self) -> tuple[str, ...] | None:
        """Return the symbols to work on, or None for all that the venue (or the lake) has."""
        return parse_symbols(self.symbols)


def _variable(location: tuple[int | str, ...]) -> str:
    name = str(location[0]) if location else "environment"
    return name.upper() if name.startswith("QUANTUM") else f"QT_{name.upper()}"


def parse_symbols(text: str) -> tuple[str, ...] | None:
    """Read a comma list of unified names; `all` is None."""
    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    return None if not names or names == ("all",) else names
